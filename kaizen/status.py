"""`main_continual.py --status FOLDER`: how far an experiment is, and what its next start will do. Only reads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaizen.args import UsageError, shown
from kaizen.experiment import Experiment
from kaizen.files import read_json
from kaizen.lock import in_use, owner
from kaizen.metrics import check_row, seen_accuracy
from kaizen.report import empty_table
from kaizen.states import DONE, FAILED, INTERRUPTED, RUNNING, TaskState, read_state

if TYPE_CHECKING:
    from rich.console import Console

DAMAGED, NOT_BEGUN = "damaged", "not begun"
# Tasks that were judged, and have no model: of --pretrained_model, or deleted to save space.
NO_MODEL = "no checkpoint"


@dataclass(frozen=True)
class TaskStatus:
    """What is known of one task.

    Attributes:
        task: its number.
        name: what became of it.
        state: what the chain wrote down; None if nothing or damaged.
        accuracy: head -> mean accuracy in 0-1 over the tasks seen so far; None if damaged.
    """

    task: int
    name: str
    state: TaskState | None
    accuracy: dict[str, float] | None


def show_status(given: str) -> None:
    """Print a table of the tasks, the accuracies of those that are done, and what the next start will do.

    Args:
        given: what --status names.

    Raises:
        UsageError: it is not the folder of an experiment.
    """
    from rich.console import Console

    folder = Path(given)
    if not given.isprintable() or not _is_experiment(folder):
        raise UsageError(f"--status {shown(given)}: holds no experiment.json; give an experiment's folder")
    console = Console()
    experiment = _open(folder)
    tasks, used = look_at(experiment, _count(experiment))
    console.print(f"experiment {folder}", markup=False, highlight=False, soft_wrap=True)
    _print_tasks(console, tasks)
    _print_accuracies(console, tasks)
    console.print(_next_start(experiment, tasks, used), markup=False, highlight=False, soft_wrap=True)


def look_at(experiment: Experiment, count: int) -> tuple[list[TaskStatus], bool | None]:
    """How far the first `count` tasks are, and whether a run is at work on them; None where that cannot be known."""
    used = in_use(experiment.folder)  # looked at before and after: a task may begin or end while its state is read
    tasks = [_look(experiment, task) for task in range(count)]
    if used is False and in_use(experiment.folder) is False:
        tasks = [_orphaned(task) for task in tasks]
    return tasks, used


def _is_experiment(folder: Path) -> bool:
    try:
        return (folder / "experiment.json").is_file()
    except OSError:  # a name that is too long, or a folder that is closed to us
        return False


def _open(folder: Path) -> Experiment:
    """The experiment; one without flags where its file is damaged."""
    try:
        experiment = Experiment.open(folder)
    except UsageError:
        return Experiment(folder, {})
    numbers = (experiment.flags.get(name) for name in ("num_tasks", "task_idx"))
    return experiment if all(isinstance(number, int) for number in numbers) else Experiment(folder, {})


def _count(experiment: Experiment) -> int:
    """How many tasks it has; as far as there are folders where nothing says so."""
    if experiment.flags:
        return int(experiment.flags["num_tasks"])
    names = (re.fullmatch(r"task(\d+)", path.name) for path in experiment.folder.iterdir())
    return max((int(name[1]) + 1 for name in names if name), default=0)


def _look(experiment: Experiment, task: int) -> TaskStatus:
    accuracy = _accuracy(experiment, task)
    try:
        state = read_state(experiment.task_folder(task))
    except ValueError:
        return TaskStatus(task, DAMAGED, None, accuracy)
    if experiment.done(task):
        name = DONE
    elif experiment.accuracy(task).exists():
        name = NO_MODEL
    elif state is None:
        name = INTERRUPTED if experiment.begun(task) else NOT_BEGUN
    else:
        name = NO_MODEL if state.state == DONE else state.state
    return TaskStatus(task, name, state, accuracy)


def _orphaned(task: TaskStatus) -> TaskStatus:
    """Nobody is at work here: what was running was killed together with its chain."""
    return TaskStatus(task.task, INTERRUPTED, task.state, task.accuracy) if task.name == RUNNING else task


def _accuracy(experiment: Experiment, task: int) -> dict[str, float] | None:
    path = experiment.accuracy(task)
    try:
        heads: dict[str, list[float]] = dict(read_json(path)["heads"])
        for name, row in heads.items():
            check_row(row, len(row), name)
        return {name: seen_accuracy(row, task) for name, row in heads.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _print_tasks(console: Console, tasks: list[TaskStatus]) -> None:
    table = empty_table("tasks", "task", "state", "start", "end", "took", "starts", "epochs")
    for task in tasks:
        state = task.state
        name = task.name
        if state is not None and name in (FAILED, INTERRUPTED) and state.exit_status is not None:
            name += f" ({state.exit_status})"
        if state is None:
            table.add_row(str(task.task), name, *["-"] * 5)
            continue
        times = (_moment(state.start), _moment(state.end), "-" if state.seconds is None else duration(state.seconds))
        table.add_row(str(task.task), name, *times, str(state.starts or "-"), str(state.max_epochs))
    console.print(table)


def _moment(moment: str | None) -> str:
    """Without the year, for a terminal of 80 columns; state.json has it."""
    return "-" if moment is None else f"{datetime.fromisoformat(moment):%m-%d %H:%M}"


def duration(seconds: float) -> str:
    """Hours:minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _print_accuracies(console: Console, tasks: list[TaskStatus]) -> None:
    judged = [task for task in tasks if task.accuracy is None or task.accuracy]
    heads = list(dict.fromkeys(head for task in judged for head in task.accuracy or ()))
    if not judged:
        return
    table = empty_table("final accuracy over the tasks seen", "after", *heads or ["accuracy"])
    for task in judged:
        found: dict[str, Any] | None = task.accuracy
        cells = [DAMAGED if found is None else f"{found[h]:.3f}" if h in found else "-" for h in heads or ["accuracy"]]
        table.add_row(f"task {task.task}", *cells)
    console.print(table)


def _next_start(experiment: Experiment, tasks: list[TaskStatus], used: bool | None) -> str:
    """What the next start will do, in one line."""
    if used:
        return f"in use by {owner(experiment.folder)}; a second start is refused until that run is over"
    if not experiment.flags:
        return "next start: is refused; experiment.json is damaged"
    first = experiment.flags["task_idx"]
    try:
        experiment.check_order(first, len(tasks))
    except UsageError as error:
        return f"next start: is refused; {error}"
    damaged = [experiment.accuracy(task.task) for task in tasks if task.accuracy is None]
    if damaged:
        return f"next start: ends with an error; {damaged[0]} is damaged, restore it"
    left = [task for task in tasks[first:] if not experiment.done(task.task)]
    if not left:
        return "next start: nothing is left to train; it shows the results"
    following = left[0]
    verb = "takes up" if experiment.begun(following.task) else "begins"
    return f"next start: {verb} task {following.task} of {len(tasks)} ({following.name})"
