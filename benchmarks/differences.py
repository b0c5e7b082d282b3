"""How far the views are from PIL: each operation on the same images with the same parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

from kaizen.data import augment, filters
from kaizen.data.views import random_boxes


def differences(images: Tensor, size: int) -> dict[str, float]:
    """Mean absolute difference by operation, in levels of 0..255; both sides round to whole levels.

    Args:
        images: uint8 (B, 3, H, W).
        size: of the crops.
    """
    count = len(images)
    box = random_boxes(images, (0.08, 1.0))
    flip = torch.rand(count) < 0.5
    found = {
        "crop": mean_difference(filters.resized_crop(images, *box, flip, size), images, pil_crop(size), *box, flip)
    }
    one, order = torch.ones(count), torch.arange(4).expand(count, 4)
    for name, strength in (("brightness", 0.4), ("contrast", 0.4), ("saturation", 0.2)):
        factor = 1 + strength * (2 * torch.rand(count) - 1)
        factors = {"brightness": one, "contrast": one, "saturation": one, name: factor}
        jittered = augment.color_jitter(augment.split(images), **factors, hue=None, order=order)
        ours = augment.join(jittered, images.shape[2])
        found[name] = mean_difference(ours, images, getattr(vision, f"adjust_{name}"), factor)
    turn = 0.2 * torch.rand(count) - 0.1
    ours = augment.join(augment.adjust_hue(augment.split(images), turn), images.shape[2])
    found["hue"] = mean_difference(ours, images, vision.adjust_hue, turn)
    return found


def pil_crop(size: int) -> Callable[..., Image.Image]:
    """The resized crop that torchvision makes of one PIL image, mirrored or not."""

    def crop(image: Image.Image, top: float, left: float, height: float, width: float, flip: bool) -> Image.Image:
        box = [int(side) for side in (top, left, height, width)]
        found = vision.resized_crop(image, *box, [size, size], InterpolationMode.BICUBIC)
        return vision.hflip(found) if flip else found

    return crop


def mean_difference(ours: Tensor, images: Tensor, operation: Callable[..., Image.Image], *parameters: Tensor) -> float:
    """From what a PIL operation makes of one image after the other, each with its own parameters."""
    rows = zip(images, *(parameter.tolist() for parameter in parameters), strict=True)
    theirs = [vision.pil_to_tensor(operation(vision.to_pil_image(image), *row)) for image, *row in rows]
    return float((ours - torch.stack(theirs).float()).abs().mean())
