"""How one data set becomes a sequence of tasks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TaskSplit:
    """The tasks of an experiment.

    Attributes:
        strategy: "class" (each task has classes of its own) or "data" (each has a part of the images).
        classes: for each task the classes in it, in the order in which they were drawn.
        train: for each task the indices of its training images, int64.
        test: for each task the indices of the test images it is judged on, int64.
    """

    strategy: str
    classes: list[list[int]]
    train: list[Tensor]
    test: list[Tensor]

    def __len__(self) -> int:
        return len(self.classes)


def split_classes(num_classes: int, num_tasks: int, seed: int) -> list[list[int]]:
    """Random class order cut into `num_tasks` runs, as CaSSLe and Kaizen draw it."""
    order = torch.randperm(num_classes, generator=torch.Generator().manual_seed(seed))
    return [chunk.tolist() for chunk in order.chunk(num_tasks)]


def split_data(num_images: int, num_tasks: int, seed: int) -> list[Tensor]:
    """Random parts of equal size; what does not divide goes to the first part."""
    order = torch.randperm(num_images, generator=torch.Generator().manual_seed(seed))
    part = num_images // num_tasks
    return list(order.split([num_images - part * (num_tasks - 1)] + [part] * (num_tasks - 1)))


def indices_of_classes(targets: Tensor, classes: list[int]) -> Tensor:
    """Indices of all images of the given classes, in data-set order."""
    return torch.isin(targets, torch.tensor(classes)).nonzero().flatten()


def make_split(strategy: str, train: Tensor, test: Tensor, num_classes: int, num_tasks: int, seed: int) -> TaskSplit:
    """Split a data set into tasks.

    Args:
        strategy: "class" or "data".
        train: labels of the training images, (N,); -1 is unlabelled.
        test: labels of the test images, (M,).
        num_classes: number of classes; for "class" it must be a multiple of num_tasks.
        num_tasks: number of tasks.
        seed: seed of the draw, independent of every other generator.
    """
    if strategy == "data":
        everything = list(range(num_classes))
        parts = split_data(len(train), num_tasks, seed)
        whole = torch.arange(len(test))
        return TaskSplit(strategy, [everything] * num_tasks, parts, [whole] * num_tasks)
    classes = split_classes(num_classes, num_tasks, seed)
    return TaskSplit(
        strategy,
        classes,
        [indices_of_classes(train, c) for c in classes],
        [indices_of_classes(test, c) for c in classes],
    )
