"""What an experiment's folder holds, read for its page: whatever is missing or damaged is left out, and said."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaizen.args import UsageError
from kaizen.experiment import Experiment
from kaizen.folders import task_folder
from kaizen.page.chart import Point
from kaizen.report import Results, collect, read_experiment
from kaizen.states import notes
from kaizen.status import TaskStatus, look_at


@dataclass(frozen=True)
class Logged:
    """The values of metrics.csv of all tasks, on one axis of steps.

    Attributes:
        series: name -> (step, value), finite values alone.
        borders: the step at which each task begins, and the end of the last; empty without any step.
        damaged: tasks whose file could not be read to its end.
    """

    series: dict[str, list[Point]]
    borders: list[float]
    damaged: list[int]


@dataclass(frozen=True)
class Facts:
    """An experiment as far as it is.

    Attributes:
        folder: of the experiment.
        about: experiment.json.
        results: of the finished tasks; None if there are none.
        problem: why there are no results although a task has finished.
        tasks: the state of each.
        used: is a run at work on it; None where that cannot be known.
        logged: values over the steps.
    """

    folder: Path
    about: dict[str, Any]
    results: Results | None
    problem: str
    tasks: list[TaskStatus]
    used: bool | None
    logged: Logged

    @property
    def flags(self) -> dict[str, Any]:
        """All flags."""
        return dict(self.about["flags"])

    @property
    def classes(self) -> list[str]:
        """The names of the classes in the order of their numbers; none in a folder from before they were kept."""
        return _names(self.about.get("classes"))

    @property
    def notices(self) -> list[str]:
        """What the user was told at the start, and on the way, of each task and of the whole."""
        said = [(task.task, notes(task_folder(self.folder, task.task))) for task in self.tasks]
        of_tasks = [f"Task {task}: {line}" for task, lines in said for line in lines]
        return [*_names(self.about.get("notices")), *of_tasks, *notes(self.folder)]

    def class_name(self, label: object) -> str:
        """The name of a class, or its number."""
        if isinstance(label, int) and 0 <= label < len(self.classes):
            return self.classes[label]
        return str(label)


def read_facts(folder: Path) -> Facts:
    """Read an experiment's folder.

    Raises:
        UsageError: it is not the folder of an experiment.
    """
    about = read_experiment(folder)
    count = len(about["tasks"])
    tasks, used = look_at(Experiment(folder, about["flags"]), count)
    results, problem = None, ""
    try:
        results = collect(folder)
    except UsageError as error:
        if any(task.accuracy != {} for task in tasks):
            problem = str(error)
    return Facts(folder, about, results, problem, tasks, used, read_logged(folder, count))


def read_logged(folder: Path, count: int) -> Logged:
    """Read metrics.csv of the first `count` tasks."""
    series: dict[str, list[Point]] = {}
    borders, damaged = [0.0], list[int]()
    for task in range(count):
        path, end = task_folder(folder, task) / "metrics.csv", borders[-1]
        try:
            with path.open(newline="", encoding="utf-8", errors="replace") as file:
                for row in csv.DictReader(file):
                    if (step := _number(row.pop("step", None))) is None or step < 0:
                        continue
                    end = max(end, borders[task] + step)
                    for name, cell in row.items():
                        if name is not None and (value := _number(cell)) is not None:
                            series.setdefault(name, []).append((borders[task] + step, value))
        except FileNotFoundError:
            pass
        except (OSError, csv.Error):
            damaged.append(task)
        borders.append(end)
    while len(borders) > 1 and borders[-1] == borders[-2]:  # tasks that have not begun
        borders.pop()
    return Logged(series, borders if borders[-1] > 0 else [], damaged)


def _number(cell: object) -> float | None:
    """A finite number, if it is one."""
    try:
        value = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _names(found: object) -> list[str]:
    return [str(name) for name in found] if isinstance(found, list) else []
