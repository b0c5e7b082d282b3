"""Sides that take turns, the ratios of their times, and the memory that one needs alone."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

import main_continual
from benchmarks.clock import Clock, Lap, typical
from benchmarks.product import Product
from benchmarks.reference import Reference
from benchmarks.setting import Setting
from kaizen.data.images import MemoryImages

EPOCH_IMAGES = 10_000  # an epoch trains on as many images as it judges: CIFAR-100 in five tasks
# Neither views nor networks nor losses: what a step costs beyond its mathematics.
BOOKKEEPING = ("optimizer", "average", "queue", "logging", "loop")
REFERENCE = "reference"
MODES = ("frozen", "update")


class Side(Protocol):
    """Something that trains."""

    clock: Clock

    def step(self) -> Lap:
        """Train one more step."""

    def validate(self, images: Tensor) -> Lap:
        """Judge uint8 test images with every head."""

    def run(self) -> None:
        """Train all steps at once."""

    def close(self) -> None:
        """After the last step."""


@dataclass(frozen=True)
class Found:
    """Medians of one side: a step, a look at as many test images as a batch has, and an epoch in seconds."""

    step: Lap
    validation: Lap
    epoch: float

    @property
    def bookkeeping(self) -> float:
        """Share of the step that is neither views nor networks nor losses."""
        return sum(self.step.parts.get(name, 0.0) for name in BOOKKEEPING) / self.step.seconds


def quieten() -> None:
    """Leave out Lightning's hints, as a task does."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")


def take_turns(settings: dict[str, Setting], warmup: int, repeats: int) -> dict[str, Found]:
    """Measure several sides in one process, step by step in turns.

    Args:
        settings: by the side's name; the one called "reference" is the reference.
        warmup: steps of each side that do not count.
        repeats: steps of each side that do.
    """
    datas = {name: setting.data(warmup + repeats) for name, setting in settings.items()}
    sides: dict[str, Side] = {
        name: (Reference if name == REFERENCE else Product)(setting, datas[name]) for name, setting in settings.items()
    }
    steps: dict[str, list[Lap]] = {name: [] for name in sides}
    looks: dict[str, list[Lap]] = {name: [] for name in sides}
    for turn in range(warmup + repeats):
        for name in list(sides) if turn % 2 else reversed(list(sides)):  # nobody always follows the same one
            side = sides[name]
            steps[name].append(side.step())
            test = datas[name].test
            assert isinstance(test, MemoryImages)
            looks[name].append(side.validate(test.images[: settings[name].batch_size]))
    for side in sides.values():
        side.close()
    return {
        name: summary(setting, steps[name][warmup:], looks[name][warmup:], len(datas[name].test))
        for name, setting in settings.items()
    }


def summary(setting: Setting, steps: list[Lap], looks: list[Lap], test_images: int) -> Found:
    """Medians, and the epoch that they add up to."""
    step, look = typical(steps), typical(looks)
    looked_at = min(setting.batch_size, test_images)
    epoch = EPOCH_IMAGES // setting.batch_size * step.seconds + EPOCH_IMAGES / looked_at * look.seconds
    return Found(step, look, epoch)


def compare(setting: Setting, warmup: int, repeats: int) -> dict[str, Found]:
    """Both modes of the probe, and the reference where the method has one."""
    names = (*MODES, REFERENCE) if setting.method == "mocov2plus" else MODES
    return take_turns({name: in_mode(setting, name) for name in names}, warmup, repeats)


def in_mode(setting: Setting, side: str) -> Setting:
    """The setting with the side's mode of the probe; the reference always updates."""
    return replace(setting, batchnorm="frozen" if side == "frozen" else "update")


def ratios_of(name: str, found: dict[str, Found]) -> dict[str, float]:
    """Reference / ours for steps and epochs."""
    if REFERENCE not in found:
        return {}
    reference, ratios = found[REFERENCE], {}
    for mode in (mode for mode in MODES if mode in found):
        ratios[f"step_{name}_{mode}"] = reference.step.seconds / found[mode].step.seconds
        ratios[f"epoch_{name}_{mode}"] = reference.epoch / found[mode].epoch
    return ratios


def peak_of(setting: Setting, side: str, steps: int) -> tuple[int, int]:
    """Peak resident bytes of a process that does nothing but a few steps of one side; those of its libraries alone.

    Ours runs with the environment that tasks get; the reference without it, which is smaller.
    """
    ours = main_continual.environment_of(setting.encoder)
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    if side != REFERENCE:
        environment |= ours
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    call = f"from benchmarks.measure import *; report_peak(Setting(**{asdict(setting)!r}), {side!r}, {steps})"
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", call]
    result = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    peak, libraries = map(int, result.stdout.split()[-2:])
    return peak, libraries


def report_peak(setting: Setting, side: str, steps: int) -> None:
    """Train a few steps and print the peak of this process in bytes, and what it was before; Linux alone tells it."""
    libraries = peak_bytes()
    trained: Side = (Reference if side == REFERENCE else Product)(setting, setting.data(steps))
    trained.run()
    print(peak_bytes(), libraries)


def peak_bytes() -> int:
    """The most that this process has held until now."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
