"""Keeps a task from going on with numbers that are none, and counts the steps that fp16 leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from kaizen.args import Args, UsageError
from kaizen.experiment import Experiment

# The flag behind the learning rate of a term, where it is not --lr.
RATES = {
    "classifier": "classifier_lr",
    "online": "online_eval_classifier_lr",
    "momentum_online": "online_eval_classifier_lr",
}


class NotFinite(UsageError):
    """A term or a weight is not finite."""


class FiniteGuard:
    """Remembers for each term of the loss at which step it was first not finite, where the terms are.

    Nothing waits for the device until somebody asks with `check_terms` or `check_weights`.

    Args:
        args: flags of the experiment.

    Attributes:
        last_good: what a task that goes wrong can be taken up from; None where there is nothing yet.
        rates: learning rates of the last step by the name of the parameter group.
    """

    def __init__(self, args: Args) -> None:
        self.args = args
        self.last_good: Path | None = None
        self.rates: dict[str, float] = {}
        self.names: list[str] = []
        self.bad_since: Tensor | None = None  # for each name the 1-based step, int64; 0 = finite up to now

    def look(self, terms: Mapping[str, Tensor], step: int) -> None:
        """Take note of a batch's terms, scalars, always the same ones; `step` is the 1-based step they lead to."""
        values = torch.stack([term.detach() for term in terms.values()])
        if self.bad_since is None:
            self.names, self.bad_since = [*terms], torch.zeros_like(values, dtype=torch.int64)
        # The step is filled in as a number: torch.where would have to send it to the device first.
        self.bad_since.masked_fill_(~values.isfinite() & (self.bad_since == 0), step)

    def first_bad(self) -> tuple[list[str], int] | None:
        """The terms that were the first ones not to be finite, and the step; None if all have always been finite."""
        steps = [] if self.bad_since is None else self.bad_since.tolist()
        first = min(filter(None, steps), default=None)
        if first is None:
            return None
        names = [name for name, step in zip(self.names, steps, strict=True) if step == first]
        return [name for name in names if name != "loss"] or names, first  # the sum goes bad with its terms

    def check_terms(self, epoch: int, cure: str) -> None:
        """Wait for the device, once, and look whether all terms have always been finite.

        Args:
            epoch: of the task, 0-based. Whoever looks at each epoch's end never finds a fault of an earlier one.
            cure: what the method knows of a loss of its own that is not finite, or nothing.

        Raises:
            NotFinite: they have not.
        """
        if (found := self.first_bad()) is None:
            return
        names, step = found
        flag = RATES.get(names[0], "lr")
        base = getattr(self.args, flag)
        rate = self.rates.get(names[0], self.rates.get("encoder", base))
        what = f"the loss term {names[0]} is" if len(names) == 1 else f"the loss terms {', '.join(names)} are"
        raise NotFinite(
            f"--{flag} {base:g}: {what} not finite since step {step}, in epoch {epoch + 1} of {self.args.max_epochs}, "
            f"at the learning rate {rate:g}; last good checkpoint: {self.last_good or 'none'}; "
            f"{cure if cure and 'ssl' in names else f'use a smaller --{flag}'}"
        )

    def check_weights(self, state: Mapping[str, Tensor]) -> None:
        """Wait for the device, once, and look whether weights and buffers are finite.

        Raises:
            NotFinite: they are not.
        """
        floats = {name: value for name, value in state.items() if value.is_floating_point()}
        finite = torch.stack([value.isfinite().all() for value in floats.values()]).tolist()
        bad = [name for name, good in zip(floats, finite, strict=True) if not good]
        if bad:
            which = f"{bad[0]} and {len(bad) - 1} more are" if len(bad) > 1 else f"{bad[0]} is"
            raise NotFinite(
                f"--lr {self.args.lr:g}: {which} not finite after the last step, though the loss was; "
                f"last good checkpoint: {self.last_good or 'none'}; use a smaller --lr"
            )


class StepCount:
    """The steps of an optimiser that really happen: under fp16 the scaler skips those with an infinite gradient.

    Lightning's `global_step` counts both. Whether the optimiser was called tells them apart without waiting for the
    device. It would not with a fused optimiser, which the scaler always calls; under fp16 none is fused.

    Attributes:
        skipped: how many steps of the task were skipped.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self._moved = False

    def watch(self, optimizer: Optimizer) -> Optimizer:
        """From now on, the steps are those of this optimiser."""
        optimizer.register_step_post_hook(self._note)
        return optimizer

    def _note(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._moved = True  # no count: LARS calls the step of SGD, which tells of itself too

    def took_place(self) -> bool:
        """Called once after each step: did the weights move."""
        moved, self._moved = self._moved, False
        self.skipped += not moved
        return moved


def last_good(experiment: Experiment, task_idx: int) -> Path | None:
    """The checkpoint that task `task_idx` can be taken up from: the end of the task before, or None."""
    before = experiment.checkpoint(task_idx - 1)
    return before if before.exists() else None
