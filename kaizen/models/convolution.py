"""Convolutions whose weight gradients are matrix products: for wide layers, and for small maps, on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Where oneDNN's own weight gradient falls behind (benchmarks/convolution.py): from so many input channels on, or from
# fewer where the map that comes out is small.
WIDE, WIDE_ON_SMALL_MAPS = 256, 64
SMALL_MAP = 16  # positions
ROWS = 512  # positions whose patches are laid out at once: enough for the product, few enough for the cache


class WideConv2d(nn.Conv2d):
    """nn.Conv2d with the same output and input gradient; in float32 on a CPU its weight gradient may be made here."""

    @classmethod
    def like(cls, conv: nn.Conv2d) -> WideConv2d:
        """The same layer with the same weight tensor."""
        geometry = conv.kernel_size, conv.stride, conv.padding
        wide = cls(conv.in_channels, conv.out_channels, *geometry, bias=False, device="meta")  # type: ignore[arg-type]
        wide.weight = conv.weight
        return wide

    def forward(self, images: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H', W')."""
        plain = images.device.type != "cpu" or images.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
        if plain or not (torch.is_grad_enabled() and self.weight.requires_grad):
            return super().forward(images)
        return _Convolve.apply(images, self.weight, list(self.stride), list(self.padding))


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: list[int], padding: list[int]) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(images, weight, None, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        images, weight = ctx.saved_tensors
        ours = images.shape[1] >= WIDE or grad.shape[2] * grad.shape[3] <= SMALL_MAP
        wanted = [ctx.needs_input_grad[0], not ours, False]
        back, found = None, None
        if any(wanted):
            back, found, _ = torch.ops.aten.convolution_backward(
                grad, images, weight, None, ctx.stride, ctx.padding, [1, 1], False, [0, 0], 1, wanted
            )
        if ours:
            found = weight_gradient(images, grad, ctx.stride, ctx.padding, weight.shape[2:])
        return back, found, None, None


def weight_gradient(images: Tensor, grad: Tensor, stride: list[int], padding: list[int], kernel: torch.Size) -> Tensor:
    """Gradient of a convolution's weight: output gradients times the patches that they come from.

    Args:
        images: (B, C, H, W), what went in.
        grad: (B, O, H', W'), the gradient of what came out.
        stride, padding: of the convolution, rows and columns.
        kernel: its height and width.

    Returns:
        (O, C, *kernel) in channels_last.
    """
    rows = rearrange(images, "b c h w -> b h w c").contiguous()
    padded = F.pad(rows, (0, 0, padding[1], padding[1], padding[0], padding[0]))
    channels, (height, width) = padded.shape[3], grad.shape[2:]
    image, row, column, _ = padded.stride()
    patches = padded.as_strided(  # a view: rows of a patch overlap with those of its neighbours
        (len(padded), height, width, kernel[0], kernel[1] * channels),
        (image, stride[0] * row, stride[1] * column, row, 1),
    )
    total = grad.new_zeros(grad.shape[1], kernel[0] * kernel[1] * channels)
    at_once = max(1, ROWS // (height * width))
    for back, patch in zip(grad.split(at_once), patches.split(at_once), strict=True):
        total.addmm_(rearrange(back, "b o h w -> o (b h w)"), patch.reshape(-1, total.shape[1]))
    return rearrange(total, "o (h w c) -> o c h w", h=kernel[0], w=kernel[1])


def widen(encoder: nn.Module) -> None:
    """Take WideConv2d for the convolutions of an encoder that gain by it. Names and weights stay."""
    for parent in encoder.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Conv2d and _gains(child):
                parent.register_module(name, WideConv2d.like(child))


def _gains(conv: nn.Conv2d) -> bool:
    plain = conv.groups == 1 and conv.bias is None and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    return plain and conv.in_channels >= WIDE_ON_SMALL_MAPS and conv.kernel_size != (1, 1)
