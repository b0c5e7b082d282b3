"""Which images of past tasks are kept for replay.

A selection is a ranking of each group of images (the classes of a past task; the task itself in a data split) and a
number that is kept of it. A ranking never changes afterwards, so that a memory that shrinks keeps its best images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kaizen.data.tasks import TaskSplit

Memory = list[list[Tensor]]  # for each past task, for each of its groups: indices of training images, the best first
Counts = list[list[int]]


def _first(candidates: Tensor, generator: torch.Generator) -> Tensor:
    """The published selection: the first images in data-set order."""
    return candidates


def _random(candidates: Tensor, generator: torch.Generator) -> Tensor:
    return candidates[torch.randperm(len(candidates), generator=generator)]


# herding is not among them: it ranks by features, which are there once a task is learned.
RANKINGS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "first": _first,
    "random": _random,
    "balanced": _random,
}


def groups_of(split: TaskSplit, targets: Tensor, task: int) -> list[Tensor]:
    """The images of a task that replay chooses from.

    Args:
        split: the tasks.
        targets: labels of the training images, (N,).
        task: the past task.

    Returns:
        Indices, int64, of the labelled images class by class; in a data split of all images together.
    """
    indices = split.train[task]
    if split.strategy == "data":
        return [indices]
    groups = [indices[targets[indices] == c] for c in split.classes[task]]
    # A domain need not show every class.
    return [group for group in groups if len(group)] if split.strategy == "domain" else groups


def replay_counts(
    split: TaskSplit,
    targets: Tensor,
    task_idx: int,
    proportion: float = 1.0,
    memory_size: int | None = None,
    selection: str = "first",
) -> Counts:
    """How many images of each group of tasks 0..task_idx-1 are kept for task `task_idx`.

    Args:
        split: the tasks.
        targets: labels of the training images, (N,).
        task_idx: the task about to be trained.
        proportion: fraction kept, in (0, 1]: int(proportion x size) of each group.
        memory_size: total number of images kept, too; shared equally over past tasks, then over their groups.
        selection: "balanced" keeps one total instead, int(proportion x all training images) or `memory_size`,
            shared equally over all groups seen so far, whatever task they are of.
    """
    sizes = [[len(group) for group in groups_of(split, targets, task)] for task in range(task_idx)]
    if selection == "balanced":
        return _equal_shares(sizes, min(int(proportion * sum(map(len, split.train))), memory_size or len(targets)))
    if memory_size is None:
        return [[int(proportion * size) for size in groups] for groups in sizes]
    share = memory_size // max(1, task_idx)
    return [[min(int(proportion * size), share // len(groups)) for size in groups] for groups in sizes]


def select_replay(split: TaskSplit, targets: Tensor, counts: Counts, selection: str = "first", seed: int = 0) -> Memory:
    """The images of past tasks that are replayed, by a selection that needs no features.

    Args:
        split: the tasks.
        targets: labels of the training images, (N,).
        counts: how many of each group, from `replay_counts`.
        selection: a key of RANKINGS.
        seed: seed of a random ranking, which is drawn for each group on its own.
    """
    memory: Memory = []
    for task, numbers in enumerate(counts):
        ranked = [
            RANKINGS[selection](group, torch.Generator().manual_seed(seed * 1_000_003 + task * 10_007 + position))
            for position, group in enumerate(groups_of(split, targets, task))
        ]
        memory.append([group[:number] for group, number in zip(ranked, numbers, strict=True)])
    return memory


def flatten(memory: Memory) -> Tensor:
    """All indices of a memory, int64: task after task, group after group; may be empty."""
    return torch.cat([torch.empty(0, dtype=torch.int64), *(group for groups in memory for group in groups)])


def herd(feats: Tensor, count: int) -> Tensor:
    """Rank images so that the mean of the first k of them stays close to the mean of all, for every k.

    iCaRL (Rebuffi et al., 2017, algorithm 4).

    Args:
        feats: normalised features (N, D).
        count: how many are ranked, at most N.

    Returns:
        Positions (count,), int64.
    """
    mean, total = feats.mean(dim=0), torch.zeros_like(feats[0])
    chosen: list[Tensor] = []
    taken = torch.zeros(len(feats), device=feats.device)
    for k in range(1, count + 1):
        distance = ((total + feats) / k - mean).norm(dim=1)
        best = (distance + taken).argmin()
        chosen.append(best)
        taken[best] = torch.inf
        total = total + feats[best]
    return torch.stack(chosen) if chosen else torch.empty(0, dtype=torch.int64, device=feats.device)


def _equal_shares(sizes: Counts, total: int) -> Counts:
    """Share out `total`; what does not divide goes to the first groups."""
    groups = sum(map(len, sizes))
    shares = iter(total // max(1, groups) + (i < total % max(1, groups)) for i in range(groups))
    return [[min(size, next(shares)) for size in task] for task in sizes]
