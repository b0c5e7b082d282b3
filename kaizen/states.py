"""How far each task came, ``task<k>/state.json``, and what was said on the way, ``task<k>/notes.json``."""

from __future__ import annotations

import signal
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from kaizen.files import read_json, write_json

RUNNING, DONE, FAILED, INTERRUPTED = "running", "done", "failed", "interrupted"


@dataclass(frozen=True)
class TaskState:
    """What is known of the last time a task was started.

    Attributes:
        state: running, done, failed, or interrupted by a signal. A task that is running while nobody holds the
            experiment's lock was killed together with the chain.
        exit_status: of the task's process, 128 + n for signal n; None while it runs.
        signal: the name of the signal that interrupted it.
        start, end: ISO 8601, with the offset from UTC; None where nobody took them down.
        seconds: from start to end.
        starts: how often it was started.
        max_epochs: what it was trained with; later tasks may have another number.
        versions: of the libraries.
    """

    state: str
    max_epochs: int
    exit_status: int | None = None
    signal: str | None = None
    start: str | None = None
    end: str | None = None
    seconds: float | None = None
    starts: int = 0
    versions: dict[str, str] | None = None


def read_state(folder: Path) -> TaskState | None:
    """The state of the task in a folder; None if there is none.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        content = read_json(folder / "state.json")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(str(error)) from None
    try:
        state = TaskState(**{item.name: content[item.name] for item in fields(TaskState)})
        for moment in filter(None, (state.start, state.end)):
            datetime.fromisoformat(moment)
    except (KeyError, TypeError) as error:
        raise ValueError(str(error)) from None
    numbers = (state.max_epochs, state.starts, state.seconds or 0, state.exit_status or 0)
    if state.state not in (RUNNING, DONE, FAILED, INTERRUPTED) or not all(isinstance(n, int | float) for n in numbers):
        raise ValueError("a value is not one of its kind")
    return state


def begin(folder: Path, max_epochs: int, versions: dict[str, str]) -> TaskState:
    """Write down that a task starts, once more or for the first time."""
    before = _if_whole(folder)
    starts = 1 if before is None else before.starts + 1
    return _write(folder, TaskState(RUNNING, max_epochs, start=_now(), starts=starts, versions=versions))


def end(folder: Path, state: TaskState, exit_status: int) -> TaskState:
    """Write down how a task ended that `begin` began."""
    now = _now()
    seconds = (datetime.fromisoformat(now) - datetime.fromisoformat(state.start or now)).total_seconds()
    killed = _signal_of(exit_status)
    name = DONE if exit_status == 0 else FAILED if killed is None else INTERRUPTED
    return _write(folder, replace(state, state=name, exit_status=exit_status, signal=killed, end=now, seconds=seconds))


def note(folder: Path, line: str) -> None:
    """Say something that whoever reads the task's figures should know, and keep it for the report."""
    print(line, flush=True)
    if line not in (before := notes(folder)):
        write_json(folder / "notes.json", [*before, line])


def notes(folder: Path) -> list[str]:
    """What was said while the task in a folder was trained; nothing where the file is damaged."""
    try:
        found = read_json(folder / "notes.json")
    except (OSError, ValueError):
        return []
    return [str(line) for line in found] if isinstance(found, list) else []


def settle(folder: Path, max_epochs: int) -> None:
    """Write down that a task is through, where nobody was left to do so, or where its folder is older than states."""
    state = _if_whole(folder)
    if state is None:
        _write(folder, TaskState(DONE, max_epochs))
    elif state.state != DONE:
        _write(folder, replace(state, state=DONE, exit_status=None, signal=None))


def _if_whole(folder: Path) -> TaskState | None:
    try:
        return read_state(folder)
    except ValueError:
        return None


def _write(folder: Path, state: TaskState) -> TaskState:
    content: dict[str, Any] = asdict(state)
    write_json(folder / "state.json", content)
    return state


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def _signal_of(exit_status: int) -> str | None:
    try:
        return signal.Signals(exit_status - 128).name
    except ValueError:
        return None
