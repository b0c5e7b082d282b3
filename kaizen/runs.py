"""Finished runs: what was asked, with which seeds, and what it reached. They come from folders of experiments."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from kaizen.args import Args, Flag, UsageError, core_flags, printable, shorten, shown
from kaizen.files import read_json
from kaizen.metrics import summarize
from kaizen.report import Results, collect
from kaizen.states import read_state

SEEDS = ("seed", "split_seed")
IMAGES = "images"  # among the flags of a run: which ones it saw, where the data set's name does not say


@dataclass(frozen=True)
class Head:
    """What one head reached in one run.

    Attributes:
        matrix: accuracies in 0-1, shape (T, T); see `kaizen.metrics`.
        baseline: of the untrained network, shape (T,), or None.
    """

    matrix: list[list[float]]
    baseline: list[float] | None

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """Every metric of `kaizen.metrics.METRICS`."""
        return summarize(self.matrix, self.baseline)


@dataclass(frozen=True)
class Run:
    """One finished experiment.

    Attributes:
        experiment: the name of its folder.
        name: what --name gave it.
        flags: all but the free ones and the seeds. Runs that agree in them are one group.
        seeds: --seed and --split_seed.
        started: when its first task was, ISO 8601 in UTC.
        task_names: T names.
        heads: by name.
        images: what tells its images from those of another data set with the same name; "" where nobody knows.
    """

    experiment: str
    name: str
    flags: dict[str, Any]
    seeds: tuple[int, int]
    started: str
    task_names: list[str]
    heads: dict[str, Head]
    images: str = ""

    @property
    def method(self) -> str:
        """The self-supervised method."""
        return printable(str(self.flags.get("method", "")))


@cache
def _known_flags() -> tuple[Flag, ...]:
    return tuple(core_flags())  # which looks at every annotation, and a study has many runs


def identifying(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that say what was run, but for the seeds; those that are newer than the run have their defaults.

    Raises:
        ValueError: a value is none that a flag can have.
    """
    for name, value in flags.items():
        for one in value if isinstance(value, list) else [value]:
            whole = one is None or isinstance(one, bool | int | str)
            if not whole and not (isinstance(one, float) and math.isfinite(one)):
                raise ValueError(f"flag {shown(name)} is {shorten(ascii(one))}")
    known = {item.name: item.default for item in _known_flags()} | {"devices": Args.devices}
    left_out = {item.name for item in _known_flags() if item.free} | {*SEEDS}
    found = {name: value for name, value in {**known, **flags}.items() if name not in left_out}
    return found | {"pretrained_model": bool(flags.get("pretrained_model"))}  # the file itself may lie anywhere


def find_experiments(place: Path) -> list[Path]:
    """The place itself if it is an experiment's folder, else those at any depth below it, sorted, 9 before 10.

    Raises:
        UsageError: there is none.
    """
    found = _below(place, set())
    if not found:
        raise UsageError(
            f"{printable(str(place))}: holds no experiment; name folders with an experiment.json, folders of such "
            "folders, or runs.csv of an earlier comparison"
        )
    return found


def _below(place: Path, visited: set[Path]) -> list[Path]:
    real = place.resolve()
    if real in visited:  # links may lead in circles
        return []
    visited.add(real)
    if (place / "experiment.json").is_file():
        return [place]
    children = [path for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")]
    children.sort(key=lambda path: re.sub("[0-9]+", lambda digits: digits[0].zfill(20), path.name))
    return [found for child in children for found in _below(child, visited)]


def read_run(folder: Path) -> tuple[Run | None, list[str]]:
    """Read an experiment.

    Returns:
        The run, None if it is not finished or nothing was judged in it; and lines that say what is left out, and why.

    Raises:
        UsageError: a file is damaged.
    """
    place = printable(str(folder))
    if not (folder / "task0" / "accuracy.json").exists():
        return None, [f"{place}: unfinished, no task is done; left out"]
    results = collect(folder)
    done, num_tasks = results["tasks_done"], results["num_tasks"]
    if done < num_tasks:
        return None, [f"{place}: unfinished, {done} of {num_tasks} tasks are done; left out"]
    if not results["heads"]:
        return None, [f"{place}: nothing was judged in it; left out"]
    lines = [f"{place}: {printable(head)} has no complete matrix; this head is left out" for head in results["waiting"]]
    return _run_of(folder, results), lines


def _run_of(folder: Path, results: Results) -> Run:
    flags = {**results["flags"], "max_epochs": _epochs(results)}
    heads = {
        printable(name): Head(head["accuracy_matrix"], head["baseline"]) for name, head in results["heads"].items()
    }
    try:
        return Run(
            printable(folder.resolve().name),
            printable(str(flags.get("name") or "")),
            identifying(flags),
            checked_seeds(results["seeds"]),
            _start(folder),
            [printable(name) for name in results["task_names"]],
            heads,
            _images(folder, flags),
        )
    except ValueError as error:
        path = printable(str(folder / "experiment.json"))
        raise UsageError(f"{path}: {error}; restore the file or leave this folder out") from None


def _images(folder: Path, flags: Mapping[str, Any]) -> str:
    """A digest of names and labels; none where the seed chooses what is judged, or of folders that say nothing."""
    found = read_json(folder / "experiment.json").get("images")
    if not found or flags.get("held_back") is not None:
        return ""
    return sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:12]


def checked_seeds(found: Mapping[str, Any]) -> tuple[int, int]:
    """--seed and --split_seed. Raises ValueError where they are no whole numbers."""
    seed, split_seed = (found.get(name) for name in SEEDS)
    if type(seed) is not int or type(split_seed) is not int:
        raise ValueError(f"seeds are {shorten(ascii(dict(found)))}, not whole numbers for {' and '.join(SEEDS)}")
    return seed, split_seed


def _epochs(results: Results) -> int | list[int] | None:
    """The epochs of a task; of each task where they changed on the way."""
    of_tasks: list[int | None] = results["max_epochs_per_task"]
    known = [number for number in of_tasks if number is not None]
    if len(known) < len(of_tasks) or len(set(known)) == 1:
        return results["flags"].get("max_epochs")
    return known


def _start(folder: Path) -> str:
    """When the first task was started, or judged where nobody took that down."""
    try:
        state = read_state(folder / "task0")
    except ValueError:
        state = None
    if state is not None and state.start is not None:
        return in_utc(state.start)
    judged = (folder / "task0" / "accuracy.json").stat().st_mtime
    return datetime.fromtimestamp(judged, timezone.utc).isoformat(timespec="seconds")


def in_utc(moment: str) -> str:
    """Another way to write a moment of ISO 8601, so that moments sort as text. Raises ValueError where it is none."""
    try:
        return datetime.fromisoformat(moment).astimezone(timezone.utc).isoformat(timespec="seconds")
    except (OverflowError, OSError):  # at the ends of time
        raise ValueError(f"{moment} is no moment") from None


def _are_twins(one: Run, other: Run) -> bool:
    unlike = one.images and other.images and one.images != other.images
    return (one.flags, one.seeds) == (other.flags, other.seeds) and not unlike


def without_duplicates(runs: Iterable[Run]) -> tuple[list[Run], list[str]]:
    """Of runs with the same flags and the same seeds, keep the one that was started first.

    It is no choice by result, so it favours nobody. If both reached the same, they are one run, and heads that only
    one of them has are kept.

    Returns:
        The runs in the order given, and lines that name what was left out.
    """
    kept: list[Run] = []
    lines = []
    for run in runs:
        twin = next((i for i, old in enumerate(kept) if _are_twins(old, run)), None)
        if twin is None:
            kept.append(run)
            continue
        first, second = sorted((kept[twin], run), key=lambda one: one.started)
        same = all(first.heads[head] == second.heads[head] for head in first.heads.keys() & second.heads.keys())
        kept[twin] = _joined(first, second) if same else first
        again = f"{second.experiment}: same flags and seeds as {first.experiment}"
        if not same:
            lines.append(f"{again}, started later, with other accuracies; left out")
        elif first.experiment != second.experiment:
            lines.append(f"{again}, with the same accuracies; counted once")
    return kept, lines


def _joined(first: Run, second: Run) -> Run:
    return replace(first, heads={**first.heads, **{k: v for k, v in second.heads.items() if k not in first.heads}})
