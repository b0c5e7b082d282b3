from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from lightly.utils.benchmarking import knn_predict
from torch import Tensor, nn

from kaizen import knn
from kaizen.data.images import MemoryImages
from kaizen.data.loaders import evaluation_loader
from kaizen.features import Features, extract_features, features_by_batch
from kaizen.knn import knn_correct
from kaizen.logs import mean_by_task

CPU = torch.device("cpu")


class Levels(nn.Module):
    """Features of an image: an angle that grows with its level, and a BatchNorm that must stay untouched."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        angle = self.norm(images.float())[:, 0, 0, 0] / 100
        return 5 * torch.stack([angle.cos(), angle.sin()], dim=1)


class ToFloat(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images / 255


def images_of(levels: list[int], targets: list[int]) -> MemoryImages:
    pixels = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    return MemoryImages(pixels, torch.tensor(targets), [])


def accuracy(train: MemoryImages, test: MemoryImages, tasks: list[list[int]], k: int, batch: int = 2) -> list[float]:
    loaders = [evaluation_loader(data, torch.arange(len(data)), 4, batch, 0) for data in (train, test)]
    bank, found = (extract_features(Levels(), nn.Identity(), loader, CPU) for loader in loaders)
    return mean_by_task(knn_correct([bank], found, num_classes=3, k=k), [torch.tensor(task) for task in tasks])


TRAIN = images_of([0, 10, 20, 100, 110, 120, 200, 210, 220], [0, 0, 0, 1, 1, 1, 2, 2, 2])


@pytest.mark.parametrize("k", [1, 3, 100])
@pytest.mark.parametrize("batch", [1, 2, 100])
def test_separable_features_are_judged_right_task_by_task(k: int, batch: int) -> None:
    test = images_of([5, 105, 205, 15, 115, 215], [0, 1, 2, 0, 1, 1])
    assert accuracy(TRAIN, test, [[0, 3], [1, 4, 5], [2]], k, batch) == pytest.approx([1, 2 / 3, 1])


def test_a_vote_and_not_the_nearest_alone() -> None:
    train = images_of([50, 40, 41, 42], [0, 1, 1, 1])
    test = images_of([49], [1])
    assert accuracy(train, test, [[0]], k=1) == [0]
    assert accuracy(train, test, [[0]], k=4) == [1]


@pytest.mark.parametrize("k", [1, 20, 5000])
def test_the_vote_is_lightlys(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(5, 16, generator=generator)

    def some(count: int) -> Features:
        targets = torch.randint(5, (count,), generator=generator)
        feats = centres[targets] + 2 * torch.randn(count, 16, generator=generator)
        return Features(feats, targets, torch.arange(count))

    voters, test = some(900), some(300)
    expected = knn_predict(
        F.normalize(test.feats, dim=1), F.normalize(voters.feats, dim=1).T, voters.targets, 5, min(k, 900), 0.07
    )
    found = knn_correct([voters], test, 5, k)
    assert torch.equal(found, expected[:, 0] == test.targets) and 0.3 < found.float().mean() < 0.95
    monkeypatch.setattr(knn, "VOTERS", 130)
    monkeypatch.setattr(knn, "QUERIES", 70)
    parts = [Features(*rows) for rows in zip(*(part.split(64) for part in vars(voters).values()), strict=True)]
    assert torch.equal(knn_correct(iter(parts), test, 5, k), found)


def test_the_encoder_keeps_its_precision_and_features_are_compared_in_float32() -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(48, 8))
    images = images_of([*range(0, 250, 5)], [0, 1] * 25)
    loader = evaluation_loader(images, torch.arange(50), 4, 7, 0)
    kinds = []
    encoder.register_forward_hook(lambda _module, _images, feats: kinds.append(feats.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        bank = extract_features(encoder, ToFloat(), loader, CPU)
        lazily = knn_correct(features_by_batch(encoder, ToFloat(), loader, CPU), bank, 2, 3)
    assert {*kinds} == {torch.bfloat16} and bank.feats.dtype == torch.float32
    assert torch.equal(lazily, knn_correct([bank], bank, 2, 3))


def test_unlabelled_images_have_no_vote() -> None:
    train = images_of([5, 5, 5, 100, 100], [-1, -1, -1, 0, 1])
    test = images_of([4], [0])
    assert accuracy(train, test, [[0]], k=1) in ([0.0], [1.0])
    train = images_of([5, 5, 5, 20, 100], [-1, -1, -1, 0, 1])
    assert accuracy(train, test, [[0]], k=1) == [1]
