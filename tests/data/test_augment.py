from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter, ImageOps
from PIL.Image import Resampling
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

from kaizen.data import augment, filters


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def random_images(batch: int, height: int = 32, width: int = 32) -> Tensor:
    """Half noise, half smooth images with areas of black and white: (B, 3, H, W) uint8."""
    noise = torch.rand(batch - batch // 2, 3, height, width) * 255
    smooth = F.interpolate(torch.rand(batch // 2, 3, 5, 5), (height, width), mode="bicubic") * 400 - 70
    return torch.cat([noise, smooth]).round().clamp(0, 255).byte()


def to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image.byte().permute(1, 2, 0).numpy())


def from_pil(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def with_pil(images: Tensor, operation: Callable[..., Image.Image], *parameters: Tensor) -> Tensor:
    """Apply operation(image, *its parameters) to one image after the other."""
    columns = [parameter.tolist() for parameter in parameters]
    return torch.stack(
        [from_pil(operation(to_pil(pixels), *row)) for pixels, *row in zip(images, *columns, strict=True)]
    )


def colour(name: str, images: Tensor, *parameters: Tensor | None) -> Tensor:
    """One of the operations on planes, on images (B, 3, H, W)."""
    return augment.join(getattr(augment, name)(augment.split(images), *parameters), images.shape[2])


def mean_difference(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().mean().item()


def columns_then_rows(image: Image.Image, size: int) -> Image.Image:
    """PIL's bicubic resize, in the order that it has up to version 12 for all shapes."""
    return image.resize((size, image.height), Resampling.BICUBIC).resize((size, size), Resampling.BICUBIC)


JITTERS = (vision.adjust_brightness, vision.adjust_contrast, vision.adjust_saturation, vision.adjust_hue)


def bicubic(image: Image.Image, size: int) -> Image.Image:
    return vision.resize(image, [size, size], InterpolationMode.BICUBIC)


@pytest.mark.parametrize(
    ("height", "width", "size", "resize"),
    [
        (32, 32, 32, bicubic),
        (8, 8, 16, bicubic),
        (28, 40, 32, bicubic),
        (40, 28, 32, columns_then_rows),
        (28, 40, 17, columns_then_rows),
        (33, 31, 9, columns_then_rows),
    ],
)
def test_resized_crop_is_pils(height: int, width: int, size: int, resize: Callable[..., Image.Image]) -> None:
    images = random_images(200, height, width)
    heights, widths = torch.randint(1, height + 1, (200,)), torch.randint(1, width + 1, (200,))
    top = (torch.rand(200) * (height - heights + 1)).long()
    left = (torch.rand(200) * (width - widths + 1)).long()
    flip = torch.rand(200) < 0.5

    def crop(image: Image.Image, top: int, left: int, height: int, width: int, flip: bool) -> Image.Image:
        image = resize(vision.crop(image, top, left, height, width), size)
        return vision.hflip(image) if flip else image

    ours = filters.resized_crop(images, top, left, heights, widths, flip, size)
    assert torch.equal(ours, ours.round().clamp(0, 255))
    assert mean_difference(ours, with_pil(images, crop, top, left, heights, widths, flip)) < 0.002


def test_resized_crop_of_everything_is_the_image_or_its_mirror() -> None:
    images = random_images(4)
    start, length = torch.zeros(4, dtype=torch.long), torch.full((4,), 32)
    flip = torch.tensor([False, True, False, True])
    cropped = filters.resized_crop(images, start, start, length, length, flip, 32)
    assert torch.equal(cropped[::2], images[::2].float())
    assert torch.equal(cropped[1::2], images[1::2].flip(3).float())


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(40, 28, 28), (28, 40, 17), (31, 31, 32), (33, 47, 64)],
)
def test_resized_center_crop_is_pils(height: int, width: int, size: int) -> None:
    def crop(image: Image.Image) -> Image.Image:
        return vision.center_crop(vision.resize(image, [size], InterpolationMode.BICUBIC), [size, size])

    images = random_images(20, height, width)
    assert mean_difference(filters.resized_center_crop(images, size), with_pil(images, crop)) < 0.002


def test_resized_center_crop_leaves_images_of_the_right_size_alone() -> None:
    images = random_images(4)
    assert torch.equal(filters.resized_center_crop(images, 32), images.float())


@pytest.mark.parametrize("kind", [augment.BRIGHTNESS, augment.CONTRAST, augment.SATURATION])
@pytest.mark.parametrize("size", [(32, 32), (40, 28), (7, 9)])
def test_blends_are_exactly_pils(kind: int, size: tuple[int, int]) -> None:
    images = random_images(100, *size)
    factors = torch.ones(3, 100)
    factors[kind] = torch.cat([torch.tensor([0.0, 0.5, 1.0, 1.5]), torch.rand(96) * 2])
    ours = colour("color_jitter", images.float(), *factors, None, torch.arange(4).expand(100, 4))
    assert torch.equal(ours, with_pil(images, JITTERS[kind], factors[kind]))


def test_hue_is_pils() -> None:
    images = random_images(200)
    factors = torch.cat([torch.tensor([-0.5, 0.0, 0.5]), torch.rand(197) - 0.5])
    ours = colour("adjust_hue", images.float(), factors)
    assert mean_difference(ours, with_pil(images, vision.adjust_hue, factors)) < 0.002


def test_hue_leaves_greys_alone() -> None:
    greys = torch.arange(256.0).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    assert torch.equal(colour("adjust_hue", greys, torch.tensor([0.3, -0.2])), greys)


def jitter_one(image: Image.Image, factors: list[float], order: list[int]) -> Image.Image:
    for kind in order:
        image = JITTERS[kind](image, factors[kind])
    return image


def test_color_jitter_follows_each_samples_order() -> None:
    order = torch.tensor(list(permutations(range(4)))).repeat(6, 1)
    images = random_images(len(order))
    lowest, highest = torch.tensor([0.6, 0.6, 0.6, -0.2]), torch.tensor([1.4, 1.4, 1.4, 0.2])
    factors = torch.rand(len(order), 4) * (highest - lowest) + lowest
    brightness, contrast, saturation, hue = factors.unbind(1)
    ours = colour("color_jitter", images.float(), brightness, contrast, saturation, hue, order)
    assert mean_difference(ours, with_pil(images, jitter_one, factors, order)) < 0.01
    shifted = with_pil(images, jitter_one, factors, order.roll(1, dims=0))
    assert mean_difference(ours, shifted) > 0.5, "the order makes no difference: this test would not notice"


def test_color_jitter_without_hue_is_exactly_pils() -> None:
    order = torch.tensor(list(permutations(range(4))))
    images = random_images(len(order))
    factors = torch.rand(len(order), 3) * 0.8 + 0.6
    brightness, contrast, saturation = factors.unbind(1)
    ours = colour("color_jitter", images.float(), brightness, contrast, saturation, None, order)

    def jitter(image: Image.Image, factors: list[float], order: list[int]) -> Image.Image:
        return jitter_one(image, factors, [kind for kind in order if kind != augment.HUE])

    assert torch.equal(ours, with_pil(images, jitter, factors, order))


def test_color_jitter_with_factors_of_one_is_the_identity() -> None:
    order = torch.tensor(list(permutations(range(4))))
    images = random_images(len(order)).float()
    one = torch.ones(len(order))
    assert torch.equal(colour("color_jitter", images, one, one, one, None, order), images)
    assert torch.equal(
        colour("color_jitter", images, one, one, one, one * 0.1, order), colour("adjust_hue", images, one * 0.1)
    )


def test_grayscale_is_exactly_pils() -> None:
    images = random_images(50)
    theirs = with_pil(images, lambda image: vision.to_grayscale(image, num_output_channels=3))
    assert torch.equal(colour("grayscale", images.float()), theirs)


def test_solarize_is_exactly_pils() -> None:
    levels = torch.arange(256.0).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(colour("solarize", levels), with_pil(levels, ImageOps.solarize))


@pytest.mark.parametrize("size", [(32, 32), (40, 28), (3, 5)])
def test_gaussian_blur_is_pils(size: tuple[int, int]) -> None:
    images = random_images(100, *size)
    sigma = torch.linspace(0.1, 2.4, 100)
    theirs = with_pil(images, lambda image, radius: image.filter(ImageFilter.GaussianBlur(radius)), sigma)
    assert mean_difference(filters.gaussian_blur(images.float(), sigma), theirs) < 0.002


def test_gaussian_blur_of_sigma_zero_is_the_identity() -> None:
    images = random_images(4).float()
    assert torch.equal(filters.gaussian_blur(images, torch.zeros(4)), images)


def test_normalize_is_torchvisions() -> None:
    images = random_images(8)
    mean, std = (0.51, 0.49, 0.44), (0.27, 0.26, 0.28)
    theirs = vision.normalize(images.float() / 255, mean, std)
    ours = colour("normalize", images.float(), torch.tensor(mean), torch.tensor(std))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_select_takes_whole_images() -> None:
    first, second = random_images(4).float(), random_images(4).float()
    mask = torch.tensor([True, False, False, True])
    chosen = augment.join(augment.select(mask, augment.split(first), augment.split(second)), 32)
    assert torch.equal(chosen[mask], first[mask]) and torch.equal(chosen[~mask], second[~mask])


def test_autocast_does_not_coarsen_products() -> None:
    images = random_images(8)
    start, length = torch.zeros(8, dtype=torch.long), torch.full((8,), 20)

    def augmented() -> Tensor:
        cropped = filters.resized_crop(images, start, start, length, length, torch.zeros(8).bool(), 32)
        return filters.gaussian_blur(cropped, torch.ones(8))

    expected = augmented()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augmented(), expected)


@pytest.mark.parametrize("hue", [None, torch.full((4,), 0.1)])
def test_color_jitter_leaves_its_input_alone(hue: Tensor | None) -> None:
    images = random_images(4).float()
    before, factor = images.clone(), torch.full((4,), 0.6)
    colour("color_jitter", images, factor, factor, factor, hue, torch.tensor([[0, 1, 2, 3]] * 4))
    assert torch.equal(images, before)
