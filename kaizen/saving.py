"""Inside a task: what is saved on the way, when, and how a task that was stopped goes on from it."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kaizen.args import UsageError
from kaizen.checkpoint import check_same, lasting, read_checkpoint
from kaizen.data.loaders import ShuffledBatches
from kaizen.files import atomic_path
from kaizen.learner import ContinualLearner
from kaizen.metrics_file import MetricsFile
from kaizen.ranks import largest
from kaizen.signals import handling
from kaizen.states import note

KEPT = 2  # the newest, and the one before in case that the newest is damaged later
SAME = 1.0  # seconds in which a second signal is the first one, heard again from the process above


class Stopped(BaseException):
    """A signal has stopped the training, and what there was is saved; no failure, that anything could tolerate."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class Stop:
    """What SIGTERM, SIGINT and SIGHUP ask for: the end after the step that is being trained; a second time, at once."""

    def __init__(self) -> None:
        self.number, self.heard = 0, 0.0
        self.listens = False
        self.awaited = False  # does somebody look at `number` before the next step

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals over while the block runs."""
        with handling(self.hear):
            self.listens = True
            try:
                yield
            finally:
                self.listens = False

    @contextmanager
    def awaited_by_training(self) -> Iterator[None]:
        """Signals wait while the block runs, and are obeyed after it at the latest."""
        self.awaited = True
        try:
            yield
        finally:
            self.awaited = False

    def agreed(self) -> int:
        """The signal that this process or another that shares its steps has heard; 0 without one."""
        return largest(self.number)

    def obey(self) -> None:
        """Raises Stopped where the end has been asked for."""
        if self.number:
            raise Stopped(self.number)

    def hear(self, number: int, frame: object) -> None:
        """A signal has come."""
        if self.number and time.monotonic() - self.heard > SAME:
            os._exit(128 + number)
        if not self.number:
            self.number, self.heard = number, time.monotonic()
            if not self.awaited:
                self.obey()


class Saved:
    """The checkpoints inside one task: `step<number>.ckpt` in a folder of their own, the highest step is the newest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self) -> list[Path]:
        """From the newest to the oldest."""
        return sorted(self.folder.glob("step*.ckpt"), reverse=True)

    def write(self, trainer: pl.Trainer) -> Path:
        """Save where the trainer stands; older ones go once it is on the disk."""
        newest = self.folder / f"step{trainer.global_step:09d}.ckpt"
        if not trainer.is_global_zero:
            trainer.save_checkpoint(newest)  # waits for the leading process, which alone writes
            return newest
        self.folder.mkdir(exist_ok=True)
        for cut_off in self.folder.glob(".*.tmp"):
            cut_off.unlink()
        with atomic_path(newest) as temporary:
            trainer.save_checkpoint(temporary)
        for path in self.paths()[KEPT:]:
            path.unlink()
        return newest

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest whole one and its "progress"; damaged ones are named and passed over."""
        for path in self.paths():
            try:
                return path, read_checkpoint(path, "--experiment_dir")["progress"]
            except (UsageError, KeyError, TypeError) as error:
                note(self.folder.parent, f"warning: {error}; going on from what was saved before it")
        return None

    def clear(self) -> None:
        """The task is over."""
        if self.folder.exists():
            shutil.rmtree(self.folder)


class Saving(pl.Callback):
    """Save at the start of each epoch but the first, every so many steps, and when a signal asks for the end.

    All of it happens before a step, when queue, momentum network, schedule and test images of the one before are
    looked after.

    Args:
        saved: where to.
        stop: the signals.
        every_n_steps: optimiser steps between checkpoints inside an epoch; None for none.
        newest: the checkpoint that training goes on from, from `saved`.
    """

    def __init__(
        self, saved: Saved, stop: Stop, every_n_steps: int | None, newest: tuple[Path, dict[str, Any]] | None
    ) -> None:
        self.saved, self.stop, self.every_n_steps = saved, stop, every_n_steps
        self.path = newest[0] if newest else None
        self.progress = newest[1] if newest else None
        self.last = 0  # the step that was saved last
        self.batch = 0  # the batch of the epoch that comes next
        self.before, self.began = 0.0, time.monotonic()

    @property
    def rows(self) -> int:
        """Of metrics.csv, that were logged until then."""
        return self.progress["rows"] if self.progress else 0

    @property
    def seconds(self) -> float:
        """Of training, in all processes that took part."""
        return self.before + time.monotonic() - self.began

    def go_on(self, loaders: Mapping[str, DataLoader[Any]]) -> None:
        """Let the loaders begin where the task was stopped."""
        if self.progress is None:
            return
        for loader in loaders.values():
            assert isinstance(loader.sampler, ShuffledBatches)
            loader.sampler.go_to(self.progress["epoch"], self.progress["batch"])

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what Lightning does not know of, and leave out the teacher, which has a file of its own."""
        learner = _learner(pl_module)
        checkpoint["state_dict"] = lasting(checkpoint["state_dict"])
        checkpoint["progress"] = {
            "epoch": trainer.current_epoch,
            "batch": self.batch,
            "meter": learner.meter.state(),
            "epoch_loss": learner.epoch_loss.state(),
            "skipped_steps": learner.steps.skipped,
            "task_state": _task_state(learner.method),
            "rows": sum(len(logger.rows) for logger in trainer.loggers if isinstance(logger, MetricsFile)),
            "seconds": self.seconds,
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lightning takes what fits. Raises UsageError where anything but the teacher is missing, or is of no use."""
        assert self.path is not None
        check_same(lasting(pl_module.state_dict()), checkpoint["state_dict"], self.path, "--experiment_dir")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on as if nothing had been."""
        self.began = time.monotonic()
        if self.stop.listens:  # in the place of Lightning's handler, which would end the task and save nothing
            signal.signal(signal.SIGTERM, self.stop.hear)
        if self.progress is None:
            return
        learner = _learner(pl_module)
        learner.meter.load(self.progress["meter"])
        learner.epoch_loss.load(self.progress["epoch_loss"])
        learner.steps.skipped = self.progress["skipped_steps"]
        for name, value in self.progress["task_state"].items():
            owner, _, leaf = name.rpartition(".")
            setattr(learner.method.get_submodule(owner), leaf, value.to(learner.device))
        learner.method.resume_epoch(trainer.current_epoch)
        self.last, self.before = trainer.global_step, self.progress["seconds"]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time to, if no gradient waits for more batches; then end where that is asked for."""
        if batch_idx % trainer.accumulate_grad_batches:
            return
        since, asked = trainer.global_step - self.last, self.stop.agreed()
        due = batch_idx == 0 or asked or (self.every_n_steps and since >= self.every_n_steps)
        if since and due:
            self.batch = batch_idx
            learner = _learner(pl_module)
            learner.check_finite()
            learner.guard.last_good = self.saved.write(trainer)
            self.last = trainer.global_step
        if asked:
            raise Stopped(asked)


def _task_state(method: nn.Module) -> dict[str, Tensor]:
    """What a method remembers within a task alone: its buffers that no task hands on to the next."""
    handed_on = method.state_dict().keys()
    return {name: value for name, value in method.named_buffers() if name not in handed_on}


def _learner(module: pl.LightningModule) -> ContinualLearner:
    assert isinstance(module, ContinualLearner)
    return module
