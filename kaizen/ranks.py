"""Processes that share each step. Each runs the networks on its part of the images; losses see the whole batch.

What networks make of a part becomes the whole batch again in every process, with gradients, in the order in which one
process alone would have it. Everything after that, losses, queues, centres and clusters, is computed from the same
numbers everywhere, so that no method has to know of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


def rank_and_world() -> tuple[int, int]:
    """The number of this process and how many there are; 0 and 1 where it is alone."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def share_of(count: int, rank: int, world: int) -> slice:
    """Which of `count` things in a row are those of one process."""
    return slice(count * rank // world, count * (rank + 1) // world)


class Share:
    """What one process has of a batch: here, all of it."""

    def whole(self, part: Tensor) -> Tensor:
        """This process's rows (b, ...) -> the rows of all (B, ...)."""
        return part

    def whole_views(self, views: list[Tensor]) -> list[Tensor]:
        """The same of one tensor for each view."""
        return views

    def drawing(self) -> AbstractContextManager[None]:
        """In the block, what is drawn at random for each image is drawn for this share."""
        return nullcontext()

    def settle(self, networks: nn.Module) -> None:
        """After a step, make the networks of all processes the same."""


@dataclass(frozen=True)
class Part(Share):
    """One process's part of a batch.

    Attributes:
        total: images in the whole batch.
        rows: int64, the places of this process's images in it.
        synchronised: BatchNorm sees the whole batch.
    """

    total: int
    rows: Tensor
    synchronised: bool = False

    @classmethod
    def of(
        cls,
        sizes: Sequence[int],
        rank: int,
        world: int,
        synchronised: bool = False,
        device: torch.device | None = None,
    ) -> Part:
        """The part of a batch that is joined from batches of some sizes, each of which is shared out by itself."""
        starts = [sum(sizes[:place]) for place in range(len(sizes))]
        shares = [
            torch.arange(size)[share_of(size, rank, world)] + start for size, start in zip(sizes, starts, strict=True)
        ]
        return cls(sum(sizes), torch.cat(shares).to(device), synchronised)

    def whole(self, part: Tensor) -> Tensor:
        """Each row at its place in the batch.

        Every process then computes the same loss from them. The gradient of a row is the sum over processes, as many
        times that of the loss, and their mean over processes, which DDP takes for the weights, is that of the loss.
        """
        if part.requires_grad:
            return _Whole.apply(part, self.rows.to(part.device), self.total)
        return _placed(part, self.rows.to(part.device), self.total)

    def whole_views(self, views: list[Tensor]) -> list[Tensor]:
        """Those of one shape go together."""
        if not views or any(view.shape != views[0].shape for view in views):
            return [self.whole(view) for view in views]
        return list(self.whole(torch.stack(views, dim=1)).unbind(dim=1))

    def settle(self, networks: nn.Module) -> None:
        """Running statistics of BatchNorm become the means over processes, where each has seen its part alone."""
        if not self.synchronised:
            average_statistics(networks)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """`rand_rows` draws for the whole batch, and hands out this process's rows."""
        before, _DRAWN.part = _DRAWN.part, self
        try:
            yield
        finally:
            _DRAWN.part = before


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, rows: Tensor, total: int) -> Tensor:
        ctx.save_for_backward(rows)
        return _placed(part, rows, total)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        return _summed(grads[0])[rows], None, None


def _placed(part: Tensor, rows: Tensor, total: int) -> Tensor:
    whole = part.new_zeros(total, *part.shape[1:])
    whole[rows] = part
    dist.all_reduce(whole)  # a number plus zeros: no bit changes
    return whole


def _summed(values: Tensor) -> Tensor:
    values = values.contiguous().clone()
    dist.all_reduce(values)
    return values


def largest(number: int) -> int:
    """The largest of the numbers of all processes."""
    if rank_and_world()[1] == 1:
        return number
    found = torch.tensor(number)
    dist.all_reduce(found, dist.ReduceOp.MAX, group=_beside_the_device(dist.group.WORLD))
    return int(found)


def united(found: Tensor) -> Tensor:
    """Bools (N,), each True where any process has found it so."""
    if rank_and_world()[1] == 1:
        return found
    count = found.to(torch.int32)
    dist.all_reduce(count)
    return count > 0


@lru_cache(maxsize=1)
def _beside_the_device(world: Any) -> Any:
    """How processes speak without waiting for what the device has yet to do; None is the way they speak anyway."""
    return None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")


# What is drawn at random for each image.


class _Drawn:
    part: Part | None = None


_DRAWN = _Drawn()


def rand_rows(count: int, *shape: int, device: torch.device) -> Tensor:
    """Uniform float32 numbers in [0, 1), (count, *shape), for each of `count` images of this process."""
    part = _DRAWN.part
    rows = count if part is None else part.total
    drawn = torch.rand(rows, *shape, device=device, dtype=torch.float32)
    return drawn if part is None else drawn[part.rows.to(device)]


# BatchNorm over the whole batch, or statistics that are the mean of those of all parts.


@torch.no_grad()
def average_statistics(module: nn.Module) -> None:
    """Running statistics of BatchNorm become their means over processes."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    found = [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]
    if not found:
        return
    means = _summed(torch.cat(found)) / rank_and_world()[1]
    torch._foreach_copy_(found, list(means.split([len(value) for value in found])))


class SyncBatchNorm(_BatchNorm):
    """BatchNorm with the statistics of all processes' images; for the CPU, where torch's own does not work."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (B, C, ...), got {input.dim()} dimensions")

    def forward(self, input: Tensor) -> Tensor:
        """(B, C) or (B, C, H, W) -> the same, normalised."""
        if not self.training or rank_and_world()[1] == 1:
            return super().forward(input)
        images = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        mean, var, count = _whole_statistics(images.detach())
        self._remember(mean, var, count)
        found: Tensor = _Normalised.apply(images, self.weight, self.bias, mean, var, count, self.eps)
        return found

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor, count: float) -> None:
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if self.running_mean is not None and self.running_var is not None and self.momentum:
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / (count - 1)), self.momentum)


def _whole_statistics(images: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean and biased variance (C,) over all processes' images (B, C, ...), and how many values each channel has."""
    rank, world = rank_and_world()
    channels = images.shape[1]
    own = images.new_zeros(2 * channels + 1)
    if images.numel():
        mean, var = torch.batch_norm_update_stats(images, None, None, 0.0)
        own = torch.cat([mean, var, mean.new_tensor([images.numel() / channels])])
    each = _placed(own[None], torch.tensor([rank]), world)
    means, variances, counts = each.split([channels, channels, 1], dim=1)
    total = counts.sum()
    mean = (counts * means).sum(dim=0) / total
    var = (counts * (variances + (means - mean).square())).sum(dim=0) / total
    return mean, var, float(total)


class _Normalised(torch.autograd.Function):
    """BatchNorm with given statistics, whose gradient knows that they are those of the whole batch."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor | None, bias: Tensor | None,
        mean: Tensor, var: Tensor, count: float, eps: float,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(images, weight, mean, var)
        ctx.count, ctx.eps = count, eps
        return torch.native_batch_norm(images, weight, bias, mean, var, False, 0.0, eps)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, mean, var = ctx.saved_tensors
        # As if the statistics were constants: the gradients of images (g), weight and bias of this process's part.
        back, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            grad, images, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        # Through the statistics, for normalised images n: g - scale (mean of grad + n x mean of grad x n).
        slope, shift = (_summed(torch.cat([of_weight, of_bias])) / ctx.count).chunk(2)
        inverse = (var + ctx.eps).rsqrt()
        scale = inverse if weight is None else inverse * weight
        slope = -scale * inverse * slope
        shift = -scale * shift - slope * mean
        shape = [1, -1, *[1] * (images.dim() - 2)]
        back.addcmul_(images, slope.view(shape)).add_(shift.view(shape))
        return back, of_weight if weight is not None else None, of_bias if weight is not None else None, *[None] * 4


def synchronised(module: nn.Module, device: torch.device) -> nn.Module:
    """The module with BatchNorm over the whole batch in the place of BatchNorm; weights and names stay."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, child in module.named_children():
        setattr(module, name, _cpu_norm(child) if isinstance(child, _BatchNorm) else synchronised(child, device))
    return module


def _cpu_norm(norm: _BatchNorm) -> SyncBatchNorm:
    made = SyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made.weight, made.bias = norm.weight, norm.bias
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        setattr(made, name, getattr(norm, name))
    return made.train(norm.training)
