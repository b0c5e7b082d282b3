"""How far a task is: one bar in a terminal, a line now and then in a log file."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn, track
from rich.progress import Progress as Bar

from kaizen.learner import ContinualLearner

LINES_PER_TASK = 10
T = TypeVar("T")


def watched(items: Iterable[T], title: str, total: int) -> Iterator[T]:
    """Hand on items one by one: a bar in a terminal, that goes when it is through; one line in a log file.

    Args:
        items: what takes its time.
        title: what stands before the bar.
        total: how many items there are.
    """
    console, started = Console(), time.monotonic()
    if console.is_terminal:
        yield from track(items, title, total, console=console, transient=True)
    else:
        yield from items
        print(f"{title}, {_clock(time.monotonic() - started)}", flush=True)


class Progress(pl.Callback):
    """Named loss terms and the time left of a task.

    Args:
        title: what stands before the bar.
        epochs: of the task.
    """

    def __init__(self, title: str, epochs: int) -> None:
        self.title, self.epochs = title, epochs
        self.console = Console()
        self.bar: Bar | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set up the bar."""
        self.started, self.steps_before = time.monotonic(), trainer.global_step
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.percentage:3.0f} %"),
                TimeRemainingColumn(compact=True), TextColumn("{task.fields[terms]}", style="dim"),
            )  # fmt: skip
            self.bar = Bar(*columns, console=self.console)
            total = self.epochs * int(trainer.num_training_batches)
            self.row = self.bar.add_task(
                self.title, total=total, completed=trainer.global_step * trainer.accumulate_grad_batches, terms=""
            )
            self.bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        if self.bar is not None:
            description = f"{self.title} epoch {trainer.current_epoch + 1}/{self.epochs}"
            self.bar.update(self.row, advance=1, description=description, terms=_terms(pl_module))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """In a log file, a line."""
        done = trainer.current_epoch + 1
        interval = max(1, self.epochs // LINES_PER_TASK)
        if self.bar is None and (done % interval == 0 or done == self.epochs):
            steps = trainer.global_step - self.steps_before  # of this process; an earlier one may have begun the task
            left = (
                (time.monotonic() - self.started) / max(1, steps) * (trainer.global_step / done) * (self.epochs - done)
            )
            print(
                f"{self.title} epoch {done}/{self.epochs}  {_terms(pl_module)}  {_clock(left)} left",
                flush=True,
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bar down."""
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._stop()

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _terms(learner: pl.LightningModule) -> str:
    assert isinstance(learner, ContinualLearner)
    return "  ".join(
        f"{name} {learner.meter.latest[name]:.3f}" for name in learner.weights if name in learner.meter.latest
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
