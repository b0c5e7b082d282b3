from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kaizen.data.images import MemoryImages
from kaizen.data.loaders import evaluation_loader
from kaizen.features import extract_features
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


def images_of(levels: list[int], targets: list[int]) -> MemoryImages:
    pixels = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    return MemoryImages(pixels, torch.tensor(targets), [])


def accuracy(train: MemoryImages, test: MemoryImages, tasks: list[list[int]], k: int, batch: int = 2) -> list[float]:
    loaders = [evaluation_loader(data, torch.arange(len(data)), 4, batch, 0) for data in (train, test)]
    bank, found = (extract_features(Levels(), nn.Identity(), loader, CPU) for loader in loaders)
    return mean_by_task(knn_correct(bank, found, num_classes=3, k=k), [torch.tensor(task) for task in tasks])


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


def test_unlabelled_images_have_no_vote() -> None:
    train = images_of([5, 5, 5, 100, 100], [-1, -1, -1, 0, 1])
    test = images_of([4], [0])
    assert accuracy(train, test, [[0]], k=1) in ([0.0], [1.0])
    train = images_of([5, 5, 5, 20, 100], [-1, -1, -1, 0, 1])
    assert accuracy(train, test, [[0]], k=1) == [1]
