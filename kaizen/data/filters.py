"""What mixes neighbouring pixels, for whole batches: resizing and blur, as PIL does them for the same parameters.

Images are (B, 3, H, W) with levels 0..255, parameters (B,). Nothing here waits for the device or has a shape that
depends on values.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def resized_crop(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, flip: Tensor, size: int
) -> Tensor:
    """Crop one box of each image, resize it with PIL's antialiased bicubic filter, and mirror it where asked.

    Args:
        images: (B, 3, H, W), uint8 or float in 0..255.
        top, left, height, width: (B,) integers, boxes in pixels that lie inside the image.
        flip: (B,) bool, true where the result is mirrored from left to right.
        size: height and width of the result.

    Returns:
        (B, 3, size, size) float. On average less than 0.001 grey levels from PIL, or about 0.03 with matrix
        products in TF32. Columns come before rows, as in Pillow up to version 12; where a box taller than
        `size` loses mostly rows, Pillow 13 turns that round, which adds about 0.02 to the mean.
    """
    rows = torch.arange(size, device=images.device)[None]
    columns = rows + flip[:, None] * (size - 1 - 2 * rows)
    return _resample(
        images,
        _bicubic_taps(top, height, images.shape[2], size, rows),
        _bicubic_taps(left, width, images.shape[3], size, columns),
    )


def resized_center_crop(images: Tensor, size: int) -> Tensor:
    """Resize the shorter side to `size` with PIL's antialiased bicubic filter and keep the central square.

    Args:
        images: (B, 3, H, W), uint8 or float in 0..255.
        size: height and width of the result.

    Returns:
        (B, 3, size, size) float; the images themselves where H and W are `size` already.
    """
    if images.shape[2:] == (size, size):
        return images.float()
    shorter = min(images.shape[2:])
    taps = []
    for length in images.shape[2:]:
        resized = size * length // shorter
        first = round((resized - size) / 2)
        kept = torch.arange(first, first + size, device=images.device)[None]
        start = images.new_zeros(len(images), dtype=torch.int64)
        taps.append(_bicubic_taps(start, start + length, length, resized, kept))
    return _resample(images, *taps)


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur as PIL's `ImageFilter.GaussianBlur(radius=sigma)`: three box filters in each direction.

    The box has a fractional radius such that three of them have the variance of the gaussian (Gwosdek et al.,
    "Theoretical Foundations of Gaussian Convolution by Extended Box Filtering", 2011, eq. 7, 11 and 14).

    Args:
        images: (B, 3, H, W) float.
        sigma: (B,) standard deviations in pixels, 0..2.4 (where the box is 5 pixels wide); 0 for no change.

    Returns:
        (B, 3, H, W) float. On average less than 0.001 grey levels from PIL.
    """
    batch, channels, height, width = images.shape
    if batch == 0:
        return images
    radius = _box_radius(sigma)[:, None]
    distance = torch.arange(-2, 3, device=images.device).abs()
    kernel = (radius + 1 - distance).clamp_(0, 1) / (2 * radius + 1)
    kernel = kernel.repeat_interleave(channels, dim=0)[:, None, None]
    planes = images.reshape(1, batch * channels, height, width)
    with _float32_products(images):
        for weight, border in ((kernel, (2, 2, 0, 0)), (kernel.mT, (0, 0, 2, 2))):
            for _ in range(3):
                padded = F.pad(planes, border, mode="replicate")
                planes = _round_to_levels(F.conv2d(padded, weight, groups=batch * channels))
    return planes.view_as(images)


class Taps(NamedTuple):
    """The few neighbouring pixels that each of P results is made of, along one direction."""

    first: Tensor  # (B, P) int64, the first of the T pixels
    weights: Tensor  # (B, T, P), sum to 1 over T


def _resample(images: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Weigh columns, then rows, with a rounding after each: (B, C, H, W) to (B, C, P of rows, P of columns)."""
    height, width = images.shape[2:]
    with _float32_products(images):
        levels = _round_to_levels(rearrange(images.float(), "b c h w -> b (c h) w") @ _dense(columns, width))
        if torch.compiler.is_compiling():
            # Rows of pixels lie in one piece, so that a kernel adds up whole rows faster than it multiplies matrices.
            return _weigh_rows(rearrange(levels, "b (c h) w -> b c h w", h=height), rows)
        levels = rearrange(levels, "b (c h) w -> b h (c w)", h=height)
        levels = _round_to_levels(_dense(rows, height).mT @ levels)
    return rearrange(levels, "b h (c w) -> b c h w", c=images.shape[1]).contiguous()


def _weigh_rows(images: Tensor, rows: Taps) -> Tensor:
    """Each result's row (B, C, P, W) from the few rows of images (B, C, H, W) that it is made of."""
    index = rearrange(rows.first, "b p -> b 1 p 1")
    weights = rearrange(rows.weights, "b t p -> t b 1 p 1").unbind()
    parts = (images.take_along_dim(index + t, dim=2) * weight for t, weight in enumerate(weights))
    return _round_to_levels(reduce(torch.add, parts))


def _dense(taps: Taps, size: int) -> Tensor:
    """The same as weights of all `size` pixels: (B, size, P)."""
    batch, count, results = taps.weights.shape
    pixels = taps.first[:, None] + torch.arange(count, device=taps.first.device)[:, None]
    return taps.weights.new_zeros(batch, size, results).scatter_(1, pixels, taps.weights)


def _bicubic_taps(start: Tensor, length: Tensor, in_size: int, out_size: int, positions: Tensor) -> Taps:
    """How to resize pixels [start, start + length) to out_size, for P of the results.

    Args:
        start, length: (B,) integers, the box in pixels.
        in_size: pixels of the image.
        out_size: pixels that the whole box is resized to.
        positions: (B or 1, P) integers in 0..out_size - 1, the results to keep.
    """
    # In float throughout: a processor turns 64-bit integers into floats one by one.
    start, length, positions = start.float()[:, None], length.float()[:, None], positions.float()
    scale = length / out_size
    width = scale.clamp(min=1)  # where the box shrinks, the kernel widens with it: this is the antialiasing
    center = (positions + 0.5) * scale
    # The kernel spans four widths, which are largest where the box is the whole image.
    count = min(in_size, math.ceil(4 * max(1.0, in_size / out_size)))
    first = ((center - 2 * width + 0.5).floor_() + start).clamp_(0, in_size - count)
    steps = torch.arange(count, device=start.device, dtype=torch.float32)[:, None]
    pixel = (first - start)[:, None] + steps  # (B, T, P), counted from the box's first
    weights = _cubic_kernel(((pixel + 0.5) / width[:, None] - (center / width)[:, None]).abs_())
    weights.mul_((pixel + 1).clamp_(0, 1).mul_((length[:, None] - pixel).clamp_(0, 1)))  # 1 inside of the box, else 0
    return Taps(first.long(), weights / weights.sum(1, keepdim=True))


def _cubic_kernel(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel (a = -0.5), its two pieces as one sum of truncated powers."""
    outer = (2 - distance).clamp_(min=0)
    inner = (1 - distance).clamp_(min=0)
    return (outer * 0.5 - 0.5).mul_(outer).mul_(outer).add_((1 - 2 * inner).mul_(inner).mul_(inner))


def _box_radius(sigma: Tensor) -> Tensor:
    """Radius, with its fractional part, of the box filter that has a third of the gaussian's variance."""
    variance = sigma.square() / 3
    whole = ((12 * variance + 1).sqrt_() - 1).div_(2).floor_()
    fraction = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    return whole + fraction / (6 * (variance - (whole + 1).square()))


def _round_to_levels(values: Tensor) -> Tensor:
    """Round half up and clamp to 0..255, in place."""
    return values.add_(0.5).floor_().clamp_(0, 255)


def _float32_products(images: Tensor) -> torch.autocast:
    """Autocast would take the products to bfloat16, which is coarser than a grey level."""
    return torch.autocast(images.device.type, enabled=False)
