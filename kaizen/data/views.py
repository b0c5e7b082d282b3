"""Random views of whole batches, and the fixed transform for evaluation.

The parameters of a batch are drawn at once, from the default generator of its device, with the distributions
of torchvision's `RandomResizedCrop`, `ColorJitter`, `RandomGrayscale` and `RandomHorizontalFlip`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from kaizen.data import augment, filters
from kaizen.data.augment import Planes
from kaizen.data.images import Images
from kaizen.ranks import rand_rows

ASPECT_RATIOS = (3 / 4, 4 / 3)
CROP_ATTEMPTS = 10
BLUR_SIGMAS = (0.1, 2.0)


@dataclass(frozen=True)
class ViewOptions:
    """How one view is made of an image.

    Attributes:
        size: height and width of the view in pixels.
        brightness, contrast, saturation: strengths s; factors are uniform in [max(0, 1 - s), 1 + s].
        hue: strength h in 0..0.5; the hue turns by a part of the colour circle that is uniform in [-h, h].
        jitter_prob, gray_prob, blur_prob, solarize_prob, hflip_prob: how often each operation is applied.
        min_scale, max_scale: bounds of the crop's area as a part of the image's area.
        mean, std: per channel, of images in 0..1.
    """

    size: int
    brightness: float
    contrast: float
    saturation: float
    hue: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    jitter_prob: float = 0.8
    gray_prob: float = 0.2
    blur_prob: float = 0.0
    solarize_prob: float = 0.0
    min_scale: float = 0.08
    max_scale: float = 1.0
    hflip_prob: float = 0.5


class _Normalised(nn.Module):
    """What ends with the normalisation of the channels; it has their mean and standard deviation, of images in 0..1."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)

    def _normalise(self, planes: Planes, size: int) -> Tensor:
        return augment.join(augment.normalize(planes, self.mean, self.std), size)


class ViewTransform(_Normalised):
    """One random view of each image of a batch.

    The order: random resized crop with flip, colour jitter, greyscale, blur, solarisation, normalisation.
    """

    def __init__(self, options: ViewOptions) -> None:
        super().__init__(options.mean, options.std)
        self.options = options

    @torch.no_grad()
    def forward(self, images: Images) -> Tensor:
        """Turn uint8 images (B, 3, H, W), or a list of one crop of each, into float views (B, 3, size, size)."""
        # The one conversion that is left to torch: kernels of torch.compile take ten times as long for it on a CPU.
        if isinstance(images, Tensor):
            return self.colour(self.crop(images.float()))
        (crops,) = images
        return self.colour(self.mirror(crops).float())

    @torch.no_grad()
    def mirror(self, crops: Tensor) -> Tensor:
        """Flip what was cropped while it was read: uint8 (B, 3, size, size)."""
        flip = random_mask(crops, self.options.hflip_prob)
        return torch.where(rearrange(flip, "b -> b 1 1 1"), crops.flip(-1), crops)

    @torch.no_grad()
    def crop(self, images: Tensor) -> Tensor:
        """Crop, resize and flip: levels 0..255 (B, 3, H, W), uint8 or float, to float (B, 3, size, size)."""
        options = self.options
        box = random_boxes(images, (options.min_scale, options.max_scale))
        return filters.resized_crop(images, *box, random_mask(images, options.hflip_prob), options.size)

    @torch.no_grad()
    def colour(self, images: Tensor) -> Tensor:
        """Do the rest: levels 0..255, uint8 or float (B, 3, size, size), to normalised float views."""
        options = self.options
        jitters = any((options.brightness, options.contrast, options.saturation, options.hue))
        planes = augment.split(images)
        planes = _sometimes(self._jitter, options.jitter_prob if jitters else 0.0, planes)
        planes = _sometimes(augment.grayscale, options.gray_prob, planes)
        planes = _sometimes(self._blur, options.blur_prob, planes)
        planes = _sometimes(augment.solarize, options.solarize_prob, planes)
        return self._normalise(planes, options.size)

    def _jitter(self, planes: Planes) -> Planes:
        options, red = self.options, planes[0]
        return augment.color_jitter(
            planes,
            brightness=random_factor(red, options.brightness),
            contrast=random_factor(red, options.contrast),
            saturation=random_factor(red, options.saturation),
            hue=random_uniform(red, -options.hue, options.hue) if options.hue else None,
            order=random_order(red),
        )

    def _blur(self, planes: Planes) -> Planes:
        images = augment.join(planes, self.options.size)
        return augment.split(filters.gaussian_blur(images, random_uniform(images, *BLUR_SIGMAS)))


class Views(nn.Module):
    """Several random views of each image, one for each of the options."""

    def __init__(self, options: Sequence[ViewOptions]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(ViewTransform(each) for each in options)

    def forward(self, images: Images) -> list[Tensor]:
        """Turn uint8 images (B, 3, H, W) into as many views (B, 3, size, size) as there are options.

        Of images cropped while they were read, each view gets its own crop. The views lie in memory as the networks
        want them, in channels_last.
        """
        each = [images] * len(self.transforms) if isinstance(images, Tensor) else [[crop] for crop in images]
        return _in_channels_last([transform(part) for transform, part in zip(self.transforms, each, strict=True)])


class ReadyViews(nn.Module):
    """The views as they come, where loader processes have made them, in the dtype that the networks have."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, views: list[Tensor]) -> list[Tensor]:
        """Views (B, 3, size, size), which joining batches may have laid out otherwise, in channels_last."""
        return _in_channels_last([view.to(self.dtype) for view in views])


def _in_channels_last(views: list[Tensor]) -> list[Tensor]:
    return [view.contiguous(memory_format=torch.channels_last) for view in views]


class EvalTransform(_Normalised):
    """The central square of an image without chance: resize the shorter side to `size`, crop, normalise."""

    def __init__(self, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__(mean, std)
        self.size = size

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Turn uint8 images (B, 3, H, W) into normalised float images (B, 3, size, size)."""
        return self._normalise(augment.split(filters.resized_center_crop(images, self.size)), self.size)


def random_uniform(images: Tensor, low: float, high: float) -> Tensor:
    """One number for each image (B, ...), uniform in [low, high]."""
    return rand_rows(len(images), device=images.device) * (high - low) + low


def random_mask(images: Tensor, probability: float) -> Tensor:
    """One bool for each image (B, ...), true with the given probability."""
    return rand_rows(len(images), device=images.device) < probability


def random_factor(images: Tensor, strength: float) -> Tensor:
    """Jitter factors (B,), uniform in [max(0, 1 - strength), 1 + strength]."""
    return random_uniform(images, max(0.0, 1 - strength), 1 + strength)


def random_order(images: Tensor) -> Tensor:
    """Permutations (B, 4) of the four operations of colour jitter."""
    return rand_rows(len(images), 4, device=images.device).argsort(dim=1)


def random_boxes(images: Tensor, scale: tuple[float, float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw crop boxes as torchvision's `RandomResizedCrop` does.

    Of ten boxes with random area and aspect ratio, the first that fits into the image is taken; if none fits,
    the largest central box with an allowed aspect ratio.

    Args:
        images: (B, 3, H, W).
        scale: bounds of the box's area as a part of the image's area.

    Returns:
        top, left, height and width of the boxes in pixels, each (B,) int64.
    """
    rows, columns = images.shape[2:]
    count, device = len(images), images.device
    low, high = scale
    area = (rand_rows(count, CROP_ATTEMPTS, device=device) * (high - low) + low) * (rows * columns)
    low, high = (math.log(ratio) for ratio in ASPECT_RATIOS)
    ratio = (rand_rows(count, CROP_ATTEMPTS, device=device) * (high - low) + low).exp()
    heights, widths = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()

    fits = (heights > 0) & (heights <= rows) & (widths > 0) & (widths <= columns)
    found, first = fits.any(dim=1), fits.int().argmax(dim=1, keepdim=True)
    central_height, central_width = _central_box(rows, columns)
    height = torch.where(found, heights.gather(1, first).squeeze(1), central_height)
    width = torch.where(found, widths.gather(1, first).squeeze(1), central_width)
    top = torch.where(found, _random_start(rows - height), (rows - central_height) // 2)
    left = torch.where(found, _random_start(columns - width), (columns - central_width) // 2)
    return top.long(), left.long(), height.long(), width.long()


def _central_box(rows: int, columns: int) -> tuple[int, int]:
    """Height and width of the largest box with an allowed aspect ratio."""
    narrowest, widest = ASPECT_RATIOS
    if columns / rows < narrowest:
        return round(columns / narrowest), columns
    if columns / rows > widest:
        return rows, round(rows * widest)
    return rows, columns


def _random_start(room: Tensor) -> Tensor:
    """Whole numbers, uniform in 0..room for each of room (B,)."""
    # In float32 the largest draws times room + 1 may round up to room + 1.
    return (rand_rows(len(room), device=room.device) * (room + 1)).floor().minimum(room)


def _sometimes(operation: Callable[[Planes], Planes], probability: float, planes: Planes) -> Planes:
    """Apply an operation to each image with the given probability."""
    if probability == 0:
        return planes
    chosen = random_mask(planes[0], probability)
    return augment.select(chosen, operation(planes), planes)
