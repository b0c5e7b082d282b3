"""Our side: the product's learner in the product's trainer, one step at a time."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from benchmarks.clock import Clock, Lap
from benchmarks.setting import Setting
from kaizen.building import build_trainer, training_loaders
from kaizen.compiling import compile_networks
from kaizen.learner import ContinualLearner
from kaizen.plan import Data


class Product(pl.Callback):
    """A task in training that stops after each step and waits to be asked for the next one.

    The trainer runs in a thread of its own, so that several sides can take turns in one process. A lap goes from one
    end of a batch to the next: loaders, Lightning's own work and the logger's are in it.

    Args:
        setting: the kind of step.
        data: whose tasks have as many steps as will be asked for.
    """

    def __init__(self, setting: Setting, data: Data) -> None:
        self.setting, self.data = setting, data
        self.learner = setting.learner()
        if setting.compile:
            compile_networks(self.learner)
        self.clock = Clock()
        self._turn, self._ready = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._fit, daemon=True)
        self._lap: Lap | None = None
        self._closed = False
        self._error: BaseException | None = None

    def step(self) -> Lap:
        """Train one more step."""
        self._turn.release()
        if self._thread.ident is None:
            self._thread.start()
        self._ready.acquire()
        self._raise()
        assert self._lap is not None, "no steps left"
        return self._lap

    def validate(self, images: Tensor) -> Lap:
        """Judge uint8 test images with every head, as a validation step does."""
        self.learner.eval()
        self.clock.start()
        with torch.no_grad():
            self.learner.look(self.learner.eval_view(images))
        lap = self.clock.lap()
        self.learner.train()
        return lap

    def run(self) -> None:
        """Train all steps without stopping, in the caller's thread as a task does."""
        self._closed = True
        self._turn.release()
        self._fit()
        self._raise()

    def close(self) -> None:
        """Let the trainer finish its task without waiting any more."""
        self._closed = True
        self._turn.release()
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Hand over the lap and wait. Lightning calls this before the learner's own hook, which falls into the next."""
        if self._closed:
            return
        self._lap = self.clock.lap()
        self._ready.release()
        self._turn.acquire()
        self.clock.start()

    def _fit(self) -> None:
        self._turn.acquire()
        try:
            with tempfile.TemporaryDirectory() as folder:
                trainer = build_trainer(self.learner.args, Path(folder), "benchmark", self.setting.task_idx)
                trainer.callbacks.append(self)  # type: ignore[attr-defined]
                watch(self.clock, self.learner)
                replay = self.setting.replay(self.data)
                loaders = training_loaders(self.learner.args, self.data, self.setting.task_idx, replay)
                self.clock.start()
                trainer.fit(self.learner, loaders)
        except BaseException as error:  # it belongs to whoever waits for the step
            self._error = error
        self._lap = None
        self._ready.release()


def watch(clock: Clock, learner: ContinualLearner) -> None:
    """Time the parts of a learner's step."""
    method = learner.method
    parts: list[tuple[Any, str, str]] = [
        (learner.views, "forward", "views"),
        (learner.probe_view, "forward", "views"),
        (method, "forward", "student"),
        (learner, "training_step", "losses"),
        (learner, "probe_terms", "probe"),
        (learner, "backward", "backward"),
        (learner, "optimizer_step", "optimizer"),
        (learner, "update_momentum", "average"),
        (method, "after_batch", "queue"),
        (learner, "statistics", "logging"),
        (learner.meter, "add", "logging"),
        (learner, "log_values", "logging"),
    ]
    if learner.frozen is not None:
        parts.append((learner.frozen, "forward", "frozen"))
    if method.momentum is not None:
        parts.append((method.momentum, "forward", "momentum"))
    for owner, name, part in parts:
        clock.watch(owner, name, part)
