from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from scipy.stats import chisquare, ks_2samp
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

from kaizen.data.views import (
    EvalTransform,
    ViewOptions,
    Views,
    ViewTransform,
    random_boxes,
    random_factor,
    random_mask,
    random_order,
    random_uniform,
)

MEAN, STD = (0.51, 0.49, 0.44), (0.27, 0.26, 0.28)
CIFAR = ViewOptions(32, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, mean=MEAN, std=STD)
# The whole image, as it is: no crop, no flip, no colour, no shift and scale.
PLAIN = ViewOptions(
    32,
    brightness=0,
    contrast=0,
    saturation=0,
    hue=0,
    mean=(0, 0, 0),
    std=(1, 1, 1),
    gray_prob=0,
    min_scale=1,
    max_scale=1,
    hflip_prob=0,
)
DRAWS = 1500
BIG = 4000


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def random_images(batch: int, height: int = 32, width: int = 32) -> Tensor:
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)


def assert_same_distribution(ours: Tensor, theirs: Tensor) -> None:
    assert ks_2samp(ours.numpy(), theirs.numpy()).pvalue > 0.005


@pytest.mark.parametrize("size", [(32, 32), (40, 28), (20, 50)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.6, 0.9)])
def test_boxes_are_distributed_as_torchvisions(size: tuple[int, int], scale: tuple[float, float]) -> None:
    image, ratio = torch.empty(3, *size), [3 / 4, 4 / 3]
    draw = transforms.RandomResizedCrop.get_params
    theirs = torch.tensor([draw(image, list(scale), ratio) for _ in range(DRAWS)])
    ours = torch.stack(random_boxes(torch.empty(BIG, 3, *size), scale), dim=1)
    for column in range(4):
        assert_same_distribution(ours[:, column], theirs[:, column])
    assert_same_distribution(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3])
    assert_same_distribution(ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3])


@pytest.mark.parametrize("size", [(64, 8), (8, 64), (9, 31)])
def test_boxes_fall_back_to_the_centre_as_torchvisions(size: tuple[int, int]) -> None:
    theirs = transforms.RandomResizedCrop.get_params(torch.empty(3, *size), [0.9, 1.0], [3 / 4, 4 / 3])
    ours = torch.stack(random_boxes(torch.empty(5, 3, *size), (0.9, 1.0)), dim=1)
    assert ours.tolist() == [list(theirs)] * 5


def test_boxes_lie_inside_the_image() -> None:
    top, left, height, width = random_boxes(torch.empty(BIG, 3, 40, 28), (0.08, 1.0))
    assert top.min() == 0 and left.min() == 0 and height.min() >= 1 and width.min() >= 1
    assert (top + height).max() == 40 and (left + width).max() == 28


def test_jitter_is_distributed_as_torchvisions() -> None:
    jitter = transforms.ColorJitter(brightness=0.4, contrast=1.5, saturation=0.2, hue=0.1)
    ranges = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    theirs = torch.tensor([jitter.get_params(*ranges)[1:] for _ in range(DRAWS)])
    images = torch.empty(BIG, 3, 1, 1)
    assert_same_distribution(random_factor(images, 0.4), theirs[:, 0])
    assert_same_distribution(random_factor(images, 1.5), theirs[:, 1])
    assert_same_distribution(random_factor(images, 0.2), theirs[:, 2])
    assert_same_distribution(random_uniform(images, -0.1, 0.1), theirs[:, 3])


def test_orders_are_all_equally_likely() -> None:
    counts = Counter(map(tuple, random_order(torch.empty(BIG, 1)).tolist()))
    assert len(counts) == 24
    assert chisquare(list(counts.values())).pvalue > 0.005


@pytest.mark.parametrize(
    "options",
    [
        replace(PLAIN, hflip_prob=0.3),
        replace(PLAIN, gray_prob=0.3),
        replace(PLAIN, blur_prob=0.3),
        replace(PLAIN, solarize_prob=0.3),
        replace(PLAIN, jitter_prob=0.3, brightness=0.4),
        replace(PLAIN, jitter_prob=0.3, hue=0.1),
    ],
    ids=["flip", "gray", "blur", "solarize", "brightness", "hue"],
)
def test_each_operation_is_applied_with_its_probability(options: ViewOptions) -> None:
    images = random_images(1000)
    views = ViewTransform(options)(images)
    touched = (views * 255 - images).abs().amax(dim=(1, 2, 3)) > 0.5
    assert touched.float().mean().item() == pytest.approx(0.3, abs=0.05)


def test_options_that_do_nothing_leave_the_image() -> None:
    images = random_images(8)
    torch.testing.assert_close(ViewTransform(PLAIN)(images), images / 255)


def test_a_view_is_what_torchvision_makes_of_the_same_draws() -> None:
    images = random_images(100, 32, 28)
    options = replace(CIFAR, jitter_prob=1, gray_prob=0, blur_prob=1, solarize_prob=1)
    torch.manual_seed(1)
    ours = ViewTransform(options)(images)

    torch.manual_seed(1)
    boxes = torch.stack(random_boxes(images, (0.08, 1.0)), dim=1).tolist()
    flips = random_mask(images, 0.5).tolist()
    random_mask(images, options.jitter_prob)
    factors = [random_factor(images, strength).tolist() for strength in (0.4, 0.4, 0.2)]
    factors.append(random_uniform(images, -0.1, 0.1).tolist())
    orders = random_order(images).tolist()
    random_mask(images, options.blur_prob)
    sigmas = random_uniform(images, 0.1, 2.0).tolist()

    jitters = (vision.adjust_brightness, vision.adjust_contrast, vision.adjust_saturation, vision.adjust_hue)
    theirs = []
    for index, pixels in enumerate(images):
        image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        image = vision.resized_crop(image, *boxes[index], [32, 32], InterpolationMode.BICUBIC)
        for kind in orders[index]:
            image = jitters[kind](image, factors[kind][index])
        image = ImageOps.solarize(image.filter(ImageFilter.GaussianBlur(sigmas[index])))
        image = vision.hflip(image) if flips[index] else image
        theirs.append(vision.normalize(vision.to_tensor(image), MEAN, STD))
    assert (ours - torch.stack(theirs)).abs().mean() < 0.01 / 255 / 0.27


def test_a_view_is_its_crop_then_its_colour() -> None:
    transform, images = ViewTransform(CIFAR), random_images(16)
    torch.manual_seed(1)
    view = transform(images)
    torch.manual_seed(1)
    assert torch.equal(transform.colour(transform.crop(images)), view)


def test_colour_takes_crops_in_uint8() -> None:
    transform, images = ViewTransform(replace(CIFAR, blur_prob=0.5, solarize_prob=0.5)), random_images(16)
    torch.manual_seed(1)
    view = transform.colour(images.float())
    torch.manual_seed(1)
    assert torch.equal(transform.colour(images), view)


def test_the_seed_decides() -> None:
    transform, images = ViewTransform(replace(CIFAR, blur_prob=0.5, solarize_prob=0.5)), random_images(16)
    torch.manual_seed(1)
    first, second = transform(images), transform(images)
    torch.manual_seed(1)
    assert torch.equal(transform(images), first)
    assert not torch.equal(first, second)


def test_views_makes_one_view_for_each_of_its_options() -> None:
    images = random_images(4)
    views = Views([PLAIN, replace(CIFAR, size=16), replace(PLAIN, solarize_prob=1)])(images)
    assert [tuple(view.shape) for view in views] == [(4, 3, 32, 32), (4, 3, 16, 16), (4, 3, 32, 32)]
    torch.testing.assert_close(views[0], images / 255)
    torch.testing.assert_close(views[2], torch.minimum(images, 255 - images) / 255)


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (40, 28, 20), (28, 40, 32)])
def test_evaluation_is_torchvisions(height: int, width: int, size: int) -> None:
    reference = transforms.Compose(
        [
            transforms.Resize(size, InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    images = random_images(10, height, width)
    theirs = torch.stack([reference(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images])
    ours = EvalTransform(size, MEAN, STD)(images)
    assert (ours - theirs).abs().mean() < 0.01 / 255 / 0.27


def test_a_checkpoint_holds_nothing_of_the_transforms() -> None:
    assert not Views([CIFAR, CIFAR]).state_dict() and not EvalTransform(32, MEAN, STD).state_dict()


def test_everything_stays_on_the_device_and_needs_no_value_of_it() -> None:
    # Fake tensors stand in for those of a GPU. They refuse to mix devices, to hand a value to the host, and
    # to take a shape from a value.
    with FakeTensorMode():
        images = torch.empty(4, 3, 40, 28, dtype=torch.uint8, device="cuda")
        views = Views([replace(CIFAR, blur_prob=0.5, solarize_prob=0.5)]).to("cuda")
        for batch in (*views(images), EvalTransform(32, MEAN, STD).to("cuda")(images)):
            assert batch.device.type == "cuda" and batch.shape == (4, 3, 32, 32)


def test_images_cropped_while_read_give_one_crop_to_each_view() -> None:
    plain = replace(PLAIN, size=4, std=(1 / 255,) * 3)
    crops = list(torch.randint(0, 256, (2, 5, 3, 4, 4), dtype=torch.uint8))
    first, second = Views([plain, replace(plain, hflip_prob=1.0)])(crops)
    torch.testing.assert_close(first, crops[0].float())
    torch.testing.assert_close(second, crops[1].flip(-1).float())
