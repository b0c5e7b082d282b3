"""A study: runs that differ in nothing but their seeds are one group, and each group has means and deviations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from kaizen.args import UsageError
from kaizen.group_names import ABSENT, group_names, split_flags, value_text
from kaizen.metrics import METRICS, seen_accuracy
from kaizen.runs import IMAGES, Head, Run


@dataclass(frozen=True)
class Stat:
    """A mean over runs.

    Attributes:
        mean: of n values.
        sd: the sample standard deviation, with n - 1 below; None for a single value.
        n: number of values.
    """

    mean: float
    sd: float | None
    n: int

    @property
    def low(self) -> float:
        """One standard deviation below the mean."""
        return self.mean - (self.sd or 0)

    @property
    def high(self) -> float:
        """One standard deviation above the mean."""
        return self.mean + (self.sd or 0)

    @classmethod
    def of(cls, values: Sequence[float]) -> Stat:
        """Summarise at least one value."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class HeadSummary:
    """What one head reached in the runs of a group that have it.

    Attributes:
        metrics: by name; None where it is undefined in every run.
        over_tasks: T values, the mean accuracy over the tasks seen so far after each task.
        matrix: (T, T), the accuracy on each task after each task; see `kaizen.metrics`.
    """

    metrics: dict[str, Stat | None]
    over_tasks: list[Stat]
    matrix: list[list[Stat]]

    @property
    def at_once(self) -> bool:
        """Were all classes learned in a single task."""
        return len(self.over_tasks) == 1

    def line(self, tasks: int) -> list[Stat]:
        """`over_tasks` for a chart of that many tasks: level where all classes were learned at once."""
        return self.over_tasks * tasks if self.at_once else self.over_tasks


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seeds.

    Attributes:
        label: what tells it from the other groups; short, unique.
        method: the self-supervised method.
        arm: the label without the method.
        flags: those that are not the same in all groups, as text; "-" where a flag does not belong to the method.
        runs: of it, by seed.
        heads: by name.
    """

    label: str
    method: str
    arm: str
    flags: dict[str, str]
    runs: list[Run]
    heads: dict[str, HeadSummary]

    @property
    def tasks(self) -> int:
        """How many tasks its runs have; a single one where they learn all classes at once."""
        return len(self.runs[0].task_names)

    def values(self, head: str, metric: str) -> list[float]:
        """Of the runs in which it is defined."""
        found = [run.heads[head].metrics[metric] for run in self.runs if head in run.heads]
        return [value for value in found if value is not None]


@dataclass(frozen=True)
class Study:
    """Groups to compare.

    Attributes:
        groups: those of one method side by side.
        heads: every head that a group has.
        task_names: T names; numbers where the runs' tasks differ. A group with a single task may stand beside others.
        common: the flags that are the same in all groups.
        notes: lines on what was left out, and on what to mind.
    """

    groups: list[Group]
    heads: list[str]
    task_names: list[str]
    common: dict[str, Any]
    notes: list[str]

    @property
    def methods(self) -> list[str]:
        """Each once, in the groups' order."""
        return list(dict.fromkeys(group.method for group in self.groups))

    @property
    def arms(self) -> list[str]:
        """Each once, in the groups' order."""
        return list(dict.fromkeys(group.arm for group in self.groups))

    def having(self, head: str) -> list[Group]:
        """The groups that have this head."""
        return [group for group in self.groups if head in group.heads]


def study_of(runs: Sequence[Run], notes: Iterable[str] = ()) -> Study:
    """Group runs and summarise each group.

    Args:
        runs: at least one, no two of them with the same flags and seeds.
        notes: lines on what was left out before.

    Raises:
        UsageError: the runs have different numbers of tasks, and more than one.
    """
    _check_tasks(runs)
    parts = _parts(_told_apart(runs))
    shared, differing = split_flags([part[0].flags for part in parts])
    names = group_names(parts, differing)
    texts = [{name: value_text(part[0].flags.get(name, ABSENT)) for name in differing} for part in parts]
    groups = [
        Group(*name, flags, part, _summaries(part)) for name, flags, part in zip(names, texts, parts, strict=True)
    ]
    count = max(len(run.task_names) for run in runs)
    task_names = {tuple(run.task_names) for run in runs if len(run.task_names) == count}
    return Study(
        groups,
        list(dict.fromkeys(head for group in groups for head in group.heads)),
        list(task_names.pop()) if len(task_names) == 1 else [f"task {task}" for task in range(count)],
        {name: parts[0][0].flags[name] for name in shared},
        [*notes, *_uneven(groups), *_of_other_images(groups)],
    )


def _check_tasks(runs: Sequence[Run]) -> None:
    several = [run for run in runs if len(run.task_names) > 1]
    for run in several:
        first = several[0]
        if len(run.task_names) != len(first.task_names):
            raise UsageError(
                f"{run.experiment} has {len(run.task_names)} tasks, and {first.experiment} has "
                f"{len(first.task_names)}: their matrices do not compare; name those with one number of tasks alone"
            )


def _told_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs, with another flag that says which images they saw where a name stands for several sets of them."""
    seen: dict[Any, set[str]] = {}
    for run in runs:
        if run.images:
            seen.setdefault(run.flags.get("dataset"), set()).add(run.images)
    several = {dataset for dataset, images in seen.items() if len(images) > 1}
    return [
        replace(run, flags={**run.flags, IMAGES: run.images})
        if run.images and run.flags.get("dataset") in several
        else run
        for run in runs
    ]


def _parts(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs of each group, by seed; groups in the order of their methods' and their own first runs."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(json.dumps(run.flags, sort_keys=True), []).append(run)
    parts = [sorted(part, key=lambda run: run.seeds) for part in found.values()]
    methods = list(dict.fromkeys(part[0].method for part in parts))
    return sorted(parts, key=lambda part: methods.index(part[0].method))


def _summaries(runs: Sequence[Run]) -> dict[str, HeadSummary]:
    names = dict.fromkeys(name for run in runs for name in run.heads)
    return {name: _summary([run.heads[name] for run in runs if name in run.heads]) for name in names}


def _summary(heads: Sequence[Head]) -> HeadSummary:
    tasks = range(len(heads[0].matrix))
    return HeadSummary(
        {metric: _over([head.metrics[metric] for head in heads]) for metric in METRICS},
        [Stat.of([seen_accuracy(head.matrix[i], i) for head in heads]) for i in tasks],
        [[Stat.of([head.matrix[i][j] for head in heads]) for j in tasks] for i in tasks],
    )


def _over(values: Sequence[float | None]) -> Stat | None:
    """Over those that are defined."""
    defined = [value for value in values if value is not None]
    return Stat.of(defined) if defined else None


def _uneven(groups: Sequence[Group]) -> list[str]:
    """A line where the groups have not the same seeds: their means are over different splits or weights."""
    seeds = {group.label: [run.seeds for run in group.runs] for group in groups}
    if len({tuple(one) for one in seeds.values()}) == 1:
        return []
    listed = "; ".join(f"{label}: {seeds_text(one)}" for label, one in seeds.items())
    return [f"the groups have different seeds: {listed}"]


def _of_other_images(groups: Sequence[Group]) -> list[str]:
    """A line where groups of one data set's name saw different images."""
    names = dict.fromkeys(str(run.flags["dataset"]) for group in groups for run in group.runs if IMAGES in run.flags)
    return [f"--dataset {name} stands for several sets of images; `images` tells them apart" for name in names]


def seeds_text(seeds: Iterable[tuple[int, int]]) -> str:
    """Seeds as people write them; with the split's where it is another one."""
    return " ".join(str(seed) if seed == split else f"{seed}/{split}" for seed, split in seeds)
