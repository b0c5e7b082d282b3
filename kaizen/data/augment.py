"""Colour augmentations for whole batches, with parameters of each sample's own.

Every function takes the three planes of images and parameters of shape (B,), and gives what torchvision's PIL
transforms give for the same parameters. PIL stores uint8 between two operations; here images are float tensors that
hold integers in 0..255, so each operation ends with PIL's own rounding and clamping. `split` and `join` lead from
images (B, 3, H, W) to planes and back: a loop over one plane's pixels, with one parameter per image, is what a
compiler makes fast code of.

Nothing here waits for the device or has a shape that depends on values. On CPU tensors `torch.where`,
comparisons and `remainder` are several times slower than `lerp`, `clamp` and `floor`: those treat the pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
"""What the entries of `color_jitter`'s `order` stand for; torchvision numbers them the same way."""

Planes = tuple[Tensor, Tensor, Tensor]  # red, green and blue, each (B, H x W), levels 0..255 in float

LUMA_WEIGHTS = (19595 / 2**16, 38470 / 2**16, 7471 / 2**16)  # dyadic, so that float32 sums of them are exact


def split(images: Tensor) -> Planes:
    """Images (B, 3, H, W), uint8 or float, to planes."""
    red, green, blue = images.float().flatten(2).unbind(1)
    return red, green, blue


def join(planes: Planes, height: int) -> Tensor:
    """Planes to images (B, 3, height, W)."""
    return torch.stack(planes, dim=1).unflatten(2, (height, -1))


def adjust_hue(planes: Planes, factor: Tensor) -> Planes:
    """Turn the hue by `factor` (B,) of the colour circle, in -0.5..0.5, through uint8 HSV as PIL does.

    The way through uint8 loses colours, so 0 is no identity. On average less than 0.001 grey levels from PIL.
    """
    hue, saturation, value = _rgb_to_hsv(planes)
    hue.add_((factor * 255).trunc_()[:, None])
    hue.sub_((hue / 256).floor_(), alpha=256)  # PIL's uint8 wraps around
    return _hsv_to_rgb(hue, saturation, value)


def color_jitter(
    planes: Planes,
    brightness: Tensor,
    contrast: Tensor,
    saturation: Tensor,
    hue: Tensor | None,
    order: Tensor,
) -> Planes:
    """Adjust brightness, contrast, saturation and hue, in an order of each sample's own.

    Args:
        planes: of the images.
        brightness, contrast, saturation: (B,) factors, 1 for no change.
        hue: (B,) in -0.5..0.5, or None to leave hue alone.
        order: (B, 4) integers, in each row a permutation of BRIGHTNESS, CONTRAST, SATURATION and HUE.
    """
    unchanged = torch.ones_like(brightness)
    factors = torch.stack([brightness, contrast, saturation, unchanged], dim=1).gather(1, order)
    planes = _copy(planes)
    if hue is None:
        return _blend_steps_(planes, order, factors)
    # Hue is the dear step, and each order has it once: first all blends that go before it, then hue for all
    # images together, then the blends that go after it. A blend with factor 1 changes nothing.
    steps = torch.arange(4, device=order.device)
    hue_step = (order == HUE).int().argmax(dim=1, keepdim=True)
    before = torch.where(steps < hue_step, factors, 1.0)
    after = torch.where(steps > hue_step, factors, 1.0)
    planes = adjust_hue(_blend_steps_(planes, order[:, :3], before[:, :3]), hue)
    return _blend_steps_(planes, order[:, 1:], after[:, 1:])


def grayscale(planes: Planes) -> Planes:
    """Replace the three planes by their luma."""
    luma = _luma(planes)
    return luma, luma, luma


def solarize(planes: Planes) -> Planes:
    """Invert the levels from 128 up, as `PIL.ImageOps.solarize` does."""
    red, green, blue = (torch.minimum(plane, 255 - plane) for plane in planes)  # x <= 255 - x just where x < 128
    return red, green, blue


def normalize(planes: Planes, mean: Tensor, std: Tensor) -> Planes:
    """Map levels 0..255 to `(x / 255 - mean) / std`, in the dtype of these; mean and std are (3,)."""
    shift, scale = (255 * mean).unbind(), (1 / (255 * std)).unbind()
    red, green, blue = ((plane - m).mul_(s).to(mean.dtype) for plane, m, s in zip(planes, shift, scale, strict=True))
    return red, green, blue


def select(mask: Tensor, planes: Planes, otherwise: Planes) -> Planes:
    """Take the images of `planes` where `mask` (B,) is true and those of `otherwise` where not."""
    share = mask.to(planes[0].dtype)[:, None]
    red, green, blue = (torch.lerp(old, new, share) for old, new in zip(otherwise, planes, strict=True))
    return red, green, blue


def _copy(planes: Planes) -> Planes:
    red, green, blue = (plane.clone(memory_format=torch.contiguous_format) for plane in planes)
    return red, green, blue


def _blend_steps_(planes: Planes, kinds: Tensor, factors: Tensor) -> Planes:
    """Apply S blends in a row, in place, with kinds and factors (B, S). A kind of HUE needs a factor of 1."""
    for kind, factor in zip(kinds.unbind(1), factors.unbind(1), strict=True):
        luma = _luma(planes)
        mean = _mean_level(luma) * (kind == CONTRAST)[:, None]
        other = luma.mul_((kind == SATURATION)[:, None]).add_(mean)
        _blend_(planes, other, factor)
    return planes


def _blend_(planes: Planes, other: Tensor, factor: Tensor) -> Planes:
    """PIL's `Image.blend(other, images, factor)` in place: float32, in this order, rounded towards zero."""
    for plane in planes:
        plane.sub_(other).mul_(factor[:, None]).add_(other).clamp_(0, 255).floor_()
    return planes


def _luma(planes: Planes) -> Tensor:
    """ITU-R 601 luma in PIL's 16-bit fixed point, rounded: (B, H x W)."""
    red, green, blue = planes
    of_red, of_green, of_blue = LUMA_WEIGHTS
    return (red * of_red).add_(green, alpha=of_green).add_(blue, alpha=of_blue).add_(0.5).floor_()


def _mean_level(luma: Tensor) -> Tensor:
    return (luma.sum(dim=1, keepdim=True) / luma.shape[1] + 0.5).floor_()


def _rgb_to_hsv(planes: Planes) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation and value as PIL's uint8 levels, each (B, H x W)."""
    value = torch.maximum(torch.maximum(planes[0], planes[1]), planes[2])
    red, green, blue = (value - plane for plane in planes)
    chroma = torch.maximum(torch.maximum(red, green), blue)
    not_red, not_green = red.clamp(max=1), green.clamp(max=1)  # 0 where the channel is the largest, else 1
    divisor = chroma.clamp(min=1)
    red, green, blue = red.div_(divisor), green.div_(divisor), blue.div_(divisor)
    side = torch.lerp((red - blue).add_(2), (green - red).add_(4), not_green)
    turn = torch.lerp(blue - green, side, not_red).div_(6)
    hue = turn.sub_(turn.floor()).mul_(255).floor_()
    saturation = chroma.div_(value.clamp(min=1)).mul_(255).floor_()
    return hue, saturation, value


def _hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Planes:
    """The inverse of `_rgb_to_hsv`."""
    side = hue * (6 / 255)
    # What each channel lacks of value, in parts of the chroma and before clamping to -1..0: red lacks nothing
    # at the sides 5 to 1 of the colour hexagon, green at 1 to 3, blue at 3 to 5.
    red = (side - 3).abs_().sub_(2)
    green = 1 - (side - 2).abs_()
    blue = 1 - (side - 4).abs_()
    chroma, top = value * saturation / 255, value + 0.5
    for plane in (red, green, blue):
        plane.clamp_(-1, 0).mul_(chroma).add_(top).floor_()
    return red, green, blue
