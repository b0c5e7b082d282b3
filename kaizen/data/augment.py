"""Image augmentations for whole batches, with parameters of each sample's own.

Every function takes parameters of shape (B,), and gives what torchvision's PIL transforms give for the same
parameters. PIL stores uint8 between two operations; here images are float tensors that hold integers in 0..255, so
each operation ends with PIL's own rounding and clamping. Geometry works on images (B, 3, H, W), colour on their
three planes (B, H x W): `split` and `join` lead from one to the other. A loop over one plane's pixels, with one
parameter per image, is what a compiler makes fast code of.

Nothing here waits for the device or has a shape that depends on values. On CPU tensors `torch.where`,
comparisons and `remainder` are several times slower than `lerp`, `clamp` and `floor`: those treat the pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
"""What the entries of `color_jitter`'s `order` stand for; torchvision numbers them the same way."""

Planes = tuple[Tensor, Tensor, Tensor]  # red, green and blue, each (B, H x W), levels 0..255 in float

LUMA_WEIGHTS = (19595 / 2**16, 38470 / 2**16, 7471 / 2**16)  # dyadic, so that float32 sums of them are exact


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
        _bicubic_weights(top, height, images.shape[2], size, rows),
        _bicubic_weights(left, width, images.shape[3], size, columns),
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
    weights = []
    for length in images.shape[2:]:
        resized = size * length // shorter
        first = round((resized - size) / 2)
        kept = torch.arange(first, first + size, device=images.device)[None]
        start = images.new_zeros(len(images), dtype=torch.int64)
        weights.append(_bicubic_weights(start, start + length, length, resized, kept))
    return _resample(images, *weights)


def split(images: Tensor) -> Planes:
    """Images (B, 3, H, W), uint8 or float, to planes."""
    red, green, blue = images.float().flatten(2).unbind(1)
    return red, green, blue


def join(planes: Planes, height: int) -> Tensor:
    """Planes to images (B, 3, height, W)."""
    return torch.stack(planes, dim=1).unflatten(2, (height, -1))


def adjust_brightness(planes: Planes, factor: Tensor) -> Planes:
    """Blend with black: `factor` (B,) 0 gives black, 1 the image, more a brighter image."""
    return _blend_(_copy(planes), torch.zeros((), device=factor.device), factor)


def adjust_contrast(planes: Planes, factor: Tensor) -> Planes:
    """Blend with the mean luma of each image: `factor` (B,) 0 gives one grey, 1 the image."""
    return _blend_(_copy(planes), _mean_level(_luma(planes)), factor)


def adjust_saturation(planes: Planes, factor: Tensor) -> Planes:
    """Blend with the luma of each pixel: `factor` (B,) 0 gives a grey image, 1 the image."""
    return _blend_(_copy(planes), _luma(planes), factor)


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


def solarize(planes: Planes) -> Planes:
    """Invert the levels from 128 up, as `PIL.ImageOps.solarize` does."""
    red, green, blue = (torch.minimum(plane, 255 - plane) for plane in planes)  # x <= 255 - x just where x < 128
    return red, green, blue


def normalize(planes: Planes, mean: Tensor, std: Tensor) -> Planes:
    """Map levels 0..255 to `(x / 255 - mean) / std`; mean and std are (3,)."""
    shift, scale = (255 * mean).unbind(), (1 / (255 * std)).unbind()
    red, green, blue = ((plane - m).mul_(s) for plane, m, s in zip(planes, shift, scale, strict=True))
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


def _resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Weigh columns, then rows, with a rounding after each; weights are (B, out, in)."""
    batch, channels, height, _ = images.shape
    # In the layout (B, H, 3, W) both directions are one matrix product per image, without copies in between.
    levels = images.transpose(1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    with _float32_products(images):
        levels = _round_to_levels(levels.flatten(1, 2) @ columns.mT)
        levels = _round_to_levels(rows @ levels.view(batch, height, -1))
    return levels.view(batch, rows.shape[1], channels, -1).transpose(1, 2).contiguous()


def _bicubic_weights(start: Tensor, length: Tensor, in_size: int, out_size: int, positions: Tensor) -> Tensor:
    """Weights (B, P, in_size) to resize pixels [start, start + length) to out_size, for P of the results.

    Args:
        start, length: (B,) integers, the box in pixels.
        in_size: pixels of the image.
        out_size: pixels that the whole box is resized to.
        positions: (B or 1, P) integers in 0..out_size - 1, the results to keep.
    """
    # In float throughout: a processor turns 64-bit integers into floats one by one.
    start, length, positions = start.float(), length.float()[:, None, None], positions.float()
    scale = length / out_size
    width = scale.clamp(min=1)  # where the box shrinks, the kernel widens with it: this is the antialiasing
    pixel = torch.arange(in_size, device=start.device, dtype=torch.float32) - start[:, None, None]
    center = (positions[:, :, None] + 0.5) * scale
    weights = _cubic_kernel(((pixel + 0.5) / width - center / width).abs_())
    weights.mul_((pixel >= 0) & (pixel < length))
    return weights.mul_(weights.sum(dim=-1, keepdim=True).reciprocal_())


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
