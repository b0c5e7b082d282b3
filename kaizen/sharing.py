"""Training in several processes, each with a device and a part of every batch: how they come together and part.

The engine is DDP on torch.distributed as Lightning runs it. Lightning starts the other processes of a machine where
torchrun or srun have not; they do nothing but train, while the leading one remembers, judges and writes.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytorch_lightning as pl
import torch.distributed as dist
from pytorch_lightning.plugins.environments import (  # type: ignore[attr-defined]
    LightningEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.strategies import DDPStrategy

from kaizen.processes import seat
from kaizen.signals import exit_status

PATIENCE = timedelta(hours=1)  # what the leading process may do alone while the others wait for it
LAST_WORDS = 3.0  # seconds for a process that took the others with it to say why, before Lightning ends them all


class Abandoned(Exception):
    """Another process that shares the steps has ended, and says itself why.

    Attributes:
        status: the exit status for this process.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def sharing_strategy() -> DDPStrategy:
    """Lightning's DDP. What is computed from whole batches is the same everywhere, so no buffer needs to be sent."""
    environment = TorchElasticEnvironment() if seat() else LightningEnvironment()
    return DDPStrategy(cluster_environment=environment, broadcast_buffers=False, timeout=PATIENCE)


def assemble(trainer: pl.Trainer) -> None:
    """Start the other processes of this machine, if nobody has, and wait until all have come.

    Raises:
        Abandoned: one of the others has ended before.
    """
    launcher = trainer.strategy.launcher
    if trainer.world_size > 1 and launcher is not None:
        with _missing_others(trainer):
            launcher.launch(trainer.strategy.setup_environment)
            trainer.strategy.barrier()


@contextmanager
def together(trainer: pl.Trainer) -> Iterator[None]:
    """While the block runs, the processes share steps; after it each is alone again.

    Raises:
        Abandoned: one of the others has ended before.
    """
    if trainer.world_size == 1:
        yield
        return
    with _missing_others(trainer):
        yield
        trainer.strategy.barrier()
    dist.destroy_process_group()


@contextmanager
def _missing_others(trainer: pl.Trainer) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not _is_of_network(error):
            raise
        raise Abandoned(_status_of_others(trainer)) from error


def _is_of_network(error: RuntimeError) -> bool:
    """Has a collective failed for want of a partner."""
    return isinstance(error, dist.DistError) or any(name in str(error) for name in ("gloo", "NCCL", "Connection"))


def _status_of_others(trainer: pl.Trainer) -> int:
    """The exit status of a process that Lightning has started here and that failed; 1 if there is none."""
    for process in getattr(trainer.strategy.launcher, "procs", ()):
        try:
            status = process.wait(LAST_WORDS)
        except subprocess.TimeoutExpired:
            continue
        if status:
            return exit_status(status)
    return 1
