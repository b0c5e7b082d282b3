"""What every self-supervised method is: an encoder, a projector and a loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from kaizen.args import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE
from kaizen.models.momentum import MomentumNetwork
from kaizen.precision import float32, in_float32
from kaizen.ranks import Share

# The flags that several methods share. A method takes them as keyword-only parameters, with its own defaults.
ProjHidden = Annotated[int, "hidden width of the projector", COUNT]
OutputDim = Annotated[int, "width of the projections", COUNT]
PredHidden = Annotated[int, "hidden width of the predictor", COUNT]
Prototypes = Annotated[int, "number of prototypes", COUNT]
Temperature = Annotated[float, "temperature of the contrastive softmax", POSITIVE]
BaseTau = Annotated[float, "share of old weights the momentum network keeps at the first step", FRACTION]
FinalTau = Annotated[float, "the same at the last step", FRACTION]
Weight = Annotated[float, "weight of a part of the loss", NOT_NEGATIVE]


@dataclass
class Output:
    """What the networks make of a batch, one tensor per view.

    Attributes:
        feats: encoder features, (B, feature_dim).
        z: projections, (B, output_dim); float32 also under autocast, as some are normalised and remembered.
        p: predictions, for methods with a predictor; scores of the prototypes, for methods with those.
        keys: what the momentum network says, without gradient; of full crops only.
        full: how many of the views, from the front, are full crops; the others are small ones.
        indices: which images these are, (B,) into the image set; set by the learner.
    """

    feats: list[Tensor]
    z: list[Tensor]
    p: list[Tensor] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)
    full: int = 2
    indices: Tensor | None = None

    def shared(self, share: Share) -> Output:
        """The same for the whole batch, of which this is a share; the features stay where they are."""
        z, p, keys = (share.whole_views(views) for views in (self.z, self.p, self.keys))
        return replace(self, z=z, p=p, keys=keys)


def full_crops(views: list[Tensor]) -> int:
    """How many views are full crops: those as large as the first.

    Args:
        views: tensors (B, 3, size, size), full crops before small ones.
    """
    return sum(view.shape[-1] == views[0].shape[-1] for view in views)


@torch.no_grad()
def enqueue(queue: Tensor, pointer: Tensor, keys: Tensor) -> None:
    """Write keys over the oldest rows of a queue, around its end if need be.

    Args:
        queue: (K, ...), changed in place.
        pointer: (1,) int64, the oldest row; moved on in place.
        keys: (B, ...); of more than K the last K are kept.
    """
    size = len(queue)
    keys = keys[-size:]
    slots = (pointer + torch.arange(len(keys), device=keys.device)) % size
    queue[slots] = keys.to(queue.dtype)
    pointer.copy_((pointer + len(keys)) % size)


class SSLMethod(nn.Module):
    """A self-supervised method. Subclasses set `projector` and say their `loss`; they see views, nothing else.

    A subclass has the constructor `(encoder, feature_dim, *, flag: Annotated[type, "help"] = default, ...)`:
    its keyword-only parameters are its command-line flags.
    """

    projector: nn.Module
    output_dim: int
    static_lr: tuple[str, ...] = ()  # parts whose learning rate follows no schedule
    takes_multicrop = False  # does the loss know what to do with small crops, and with more than two full ones
    has_prototypes = False  # is there a `teaching_prototypes`
    has_momentum = False  # is `momentum` a network, on which a probe can be trained too
    momentum: MomentumNetwork | None
    share = Share()  # what this process has of each batch; set where several share them

    def __init__(self, encoder: nn.Module, feature_dim: int) -> None:
        super().__init__()
        self.encoder, self.feature_dim = encoder, feature_dim
        self.momentum = None
        self.epoch = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """See `loss`: so that none of the methods can forget it."""
        super().__init_subclass__(**kwargs)
        cls.loss = in_float32(cls.loss)  # type: ignore[method-assign]

    @classmethod
    def check_flags(cls, flags: dict[str, Any], batch_size: int) -> None:
        """Refuse flags that do not fit one another or the batch.

        Args:
            flags: all of the method's, by name.
            batch_size: task images per step.

        Raises:
            UsageError: one line with the flag, its value and the cure.
        """

    def forward(self, views: list[Tensor]) -> Output:
        """Each view through encoder and projector.

        Networks without gradient go first: the graph of the others then is not yet in memory.

        Args:
            views: tensors (B, 3, H, W); full crops come before small ones.
        """
        feats = [self.encoder(view) for view in views]
        return Output(feats, float32([self.projector(f) for f in feats]), full=full_crops(views))

    def loss(self, out: Output, targets: Tensor) -> Tensor:
        """The method's loss.

        Under autocast too, `out` comes in float32 here and the maths stays in it.

        Args:
            out: what `forward` made of a batch.
            targets: labels (B,) for supervised variants; -1 = unlabelled.

        Returns:
            A scalar.
        """
        raise NotImplementedError

    @property
    def teaching_prototypes(self) -> nn.Module | None:
        """Projections (B, output_dim), normalised, -> scores (B, K) of prototypes, for distillation; or None."""
        return None

    def heads(self) -> Iterator[tuple[str, Iterable[nn.Parameter]]]:
        """Name and parameters of each part but the encoder, and of what belongs to no part, each parameter once."""
        seen = {id(p) for p in self.encoder.parameters()}
        parts = [(name, part.parameters()) for name, part in self.named_children() if name != "encoder"]
        for name, parameters in [*parts, ("method", self.parameters(recurse=False))]:
            fresh = [p for p in parameters if id(p) not in seen]
            seen |= {id(p) for p in fresh}
            yield name, fresh

    def start_task(self, batches: Iterator[tuple[list[Tensor], Tensor]], num_images: int) -> None:
        """Called before the first epoch of a task.

        Args:
            batches: this process's share of the task's batches as (views, indices into the image set). Made one by
                one as they are asked for, so they cost nothing where nobody does.
            num_images: how many the image set has.
        """

    def start_epoch(self, epoch: int) -> None:
        """Called before each epoch of a task, 0-based. In it, nothing may ask for a tensor's value: the host waits."""
        self.epoch = epoch

    def resume_epoch(self, epoch: int) -> None:
        """Called where training goes on inside an epoch, with all that was saved in its place."""
        self.epoch = epoch

    def not_finite_cure(self) -> str:
        """What to do where the loss is not finite, if flags of the method may be at fault; the end of a sentence."""
        return ""

    def after_backward(self) -> None:
        """Called when the gradients of an optimiser step are there; the place to change some or leave them out."""

    def after_batch(self, out: Output) -> None:
        """Called once the gradients of a batch are taken; the place to move a queue.

        Args:
            out: of this batch, as `forward` made it.
        """

    def update_momentum(self, tau: float) -> None:
        """Called after an optimiser step where there is a momentum network.

        Args:
            tau: the share of itself, in 0-1, that it keeps.
        """
        if self.momentum is not None:
            self.momentum.update(self.encoder, self.projector, tau)
