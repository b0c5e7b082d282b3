"""Which images of past tasks are kept for replay."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kaizen.data.tasks import TaskSplit

Selection = Callable[[Tensor, int, torch.Generator], Tensor]


def _first(candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The published selection: the first images in data-set order."""
    return candidates[:count]


def _random(candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    chosen = torch.randperm(len(candidates), generator=generator)[:count]
    return candidates[chosen.sort().values]


SELECTIONS: dict[str, Selection] = {"first": _first, "random": _random}


def select_replay(
    split: TaskSplit,
    targets: Tensor,
    task_idx: int,
    proportion: float = 1.0,
    memory_size: int | None = None,
    selection: str = "first",
    seed: int = 0,
) -> Tensor:
    """Indices of the images of tasks 0..task_idx-1 that task `task_idx` replays.

    From each class of each past task or domain (data split: from each past task) int(proportion x size) images
    are kept, and no more than an equal share of `memory_size`.

    Args:
        split: the tasks.
        targets: labels of the training images, (N,).
        task_idx: the task about to be trained.
        proportion: fraction kept, in (0, 1].
        memory_size: total number of images kept; shared over past tasks, then over their classes.
        selection: a key of SELECTIONS.
        seed: seed of a random selection. The images of a class stay the same from task to task.

    Returns:
        int64 indices into the training images, task after task, class after class; may be empty.
    """
    kept = [torch.empty(0, dtype=torch.int64)]
    for task in range(task_idx):
        groups = _groups(split, targets, task)
        share = None if memory_size is None else memory_size // task_idx // len(groups)
        for position, candidates in enumerate(groups):
            count = int(proportion * len(candidates))
            count = count if share is None else min(count, share)
            generator = torch.Generator().manual_seed(seed * 1_000_003 + task * 10_007 + position)
            kept.append(SELECTIONS[selection](candidates, count, generator))
    return torch.cat(kept)


def _groups(split: TaskSplit, targets: Tensor, task: int) -> list[Tensor]:
    indices = split.train[task]
    if split.strategy == "data":
        return [indices]
    groups = [indices[targets[indices] == c] for c in split.classes[task]]
    # A domain need not show every class.
    return [group for group in groups if len(group)] if split.strategy == "domain" else groups
