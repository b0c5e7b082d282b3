"""How one data set becomes a sequence of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kaizen.args import UsageError, nearest


@dataclass(frozen=True)
class TaskSplit:
    """The tasks of an experiment.

    Attributes:
        strategy: "class" (each task has classes of its own), "data" (each has a part of the images) or "domain"
            (each has a domain of its own).
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


def split_classes(
    num_classes: int,
    num_tasks: int,
    seed: int,
    sizes: Sequence[int] | None = None,
    order: Sequence[int] | None = None,
) -> list[list[int]]:
    """A class order cut into `num_tasks` runs.

    Args:
        num_classes: number of classes.
        num_tasks: number of tasks.
        seed: of the random order, as CaSSLe and Kaizen draw it.
        sizes: classes of each task, which sum to num_classes; without it the runs are of equal length.
        order: a permutation of all classes instead of a random one.
    """
    drawn = torch.randperm(num_classes, generator=torch.Generator().manual_seed(seed))
    chosen = drawn if order is None else torch.tensor(order)
    return [run.tolist() for run in (chosen.chunk(num_tasks) if sizes is None else chosen.split(list(sizes)))]


def class_order(words: Sequence[str], names: Sequence[str]) -> list[int]:
    """The class numbers that --class_order gives by name or by number.

    Args:
        words: as they were given.
        names: of the classes, in the order of their numbers.

    Raises:
        UsageError: not a permutation of all classes.
    """
    by_name = {name: number for number, name in enumerate(names)}
    by_number = {str(number): number for number in range(len(names))}
    known = by_number | by_name
    if all(word in by_number for word in words) and not all(word in by_name for word in words):
        known = by_number  # although some class is called like a number
    order: list[int] = []
    for word in words:
        if word not in known:
            raise UsageError(
                f"--class_order {word}: no such class{nearest(word, known)}; "
                f"give the numbers 0 to {len(names) - 1}, or the names, of all classes"
            )
        if known[word] in order:
            raise UsageError(f"--class_order {word}: is given twice; give each of the {len(names)} classes once")
        order.append(known[word])
    missing = [name for name, number in by_name.items() if number not in order]
    if missing:
        raise UsageError(
            f"--class_order: lacks {len(missing)} of the {len(names)} classes, the first one {missing[0]}; "
            "give each class once"
        )
    return order


def split_data(num_images: int, num_tasks: int, seed: int) -> list[Tensor]:
    """Random parts of equal size; what does not divide goes to the first part.

    Args:
        num_images: number of images.
        num_tasks: number of parts.
        seed: of the draw, as CaSSLe and Kaizen make it.

    Returns:
        For each task indices of images, int64.
    """
    order = torch.randperm(num_images, generator=torch.Generator().manual_seed(seed))
    part = num_images // num_tasks
    return list(order.split([num_images - part * (num_tasks - 1)] + [part] * (num_tasks - 1)))


def indices_of_classes(targets: Tensor, classes: list[int]) -> Tensor:
    """Indices of all images of the given classes, int64, in data-set order; `targets` (N,) are their labels."""
    return torch.isin(targets, torch.tensor(classes)).nonzero().flatten()


def make_split(
    strategy: str,
    train: Tensor,
    test: Tensor,
    num_classes: int,
    num_tasks: int,
    seed: int,
    sizes: Sequence[int] | None = None,
    order: Sequence[int] | None = None,
) -> TaskSplit:
    """Split a data set by classes or at random into tasks.

    In a class split, unlabelled training images are shared out equally at random over the tasks.

    Args:
        strategy: "class" or "data".
        train: labels of the training images, (N,); -1 is unlabelled.
        test: labels of the test images, (M,).
        num_classes: number of classes; for "class" without sizes it must be a multiple of num_tasks.
        num_tasks: number of tasks.
        seed: seed of the draw, independent of every other generator.
        sizes: as in `split_classes`.
        order: as in `split_classes`.
    """
    if strategy == "data":
        everything = list(range(num_classes))
        parts = split_data(len(train), num_tasks, seed)
        whole = torch.arange(len(test))
        return TaskSplit(strategy, [everything] * num_tasks, parts, [whole] * num_tasks)
    classes = split_classes(num_classes, num_tasks, seed, sizes, order)
    unlabelled = (train == -1).nonzero().flatten()
    shares = [unlabelled[part] for part in split_data(len(unlabelled), num_tasks, seed)]
    labelled = [indices_of_classes(train, c) for c in classes]
    return TaskSplit(
        strategy,
        classes,
        [torch.cat(both).sort().values for both in zip(labelled, shares, strict=True)],
        [indices_of_classes(test, c) for c in classes],
    )


def split_domains(train: Tensor, test: Tensor, num_classes: int, num_tasks: int) -> TaskSplit:
    """Make each of the first `num_tasks` domains a task, with all classes.

    Args:
        train: domains of the training images, (N,), counted in the order of the tasks.
        test: domains of the test images, (M,).
        num_classes: number of classes.
        num_tasks: number of tasks.
    """
    everything = list(range(num_classes))
    parts = [[(domains == task).nonzero().flatten() for task in range(num_tasks)] for domains in (train, test)]
    return TaskSplit("domain", [everything] * num_tasks, parts[0], parts[1])


def visible_labels(targets: Tensor, tasks: Sequence[Tensor], fraction: float, seed: int) -> Tensor:
    """Hide all but a random fraction of the labels of each class in each task; at least one is left.

    What is drawn depends on the seed, the task and its labels alone, and a larger fraction adds to a smaller one.

    Args:
        targets: labels of all images, (N,); -1 is unlabelled.
        tasks: for each task the indices of its images; no image is in two tasks.
        fraction: of the labels that stay, in (0, 1].
        seed: of the draw, independent of every other generator.

    Returns:
        The labels with -1 in the place of those hidden, (N,).
    """
    visible = torch.full_like(targets, -1)
    for task, indices in enumerate(tasks):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + task)
        shuffled = indices[torch.randperm(len(indices), generator=generator)]
        for c in targets[indices].unique().tolist():
            members = shuffled[targets[shuffled] == c]
            kept = members[: max(1, round(fraction * len(members)))]
            visible[kept] = targets[kept]
    return visible
