r"""What a step, an epoch and a whole experiment take: a model with few numbers, fitted to measured steps.

    python benchmarks/cost.py --measure costs.json          fit it here; some minutes, alone on the machine
    python benchmarks/cost.py --costs costs.json [--tasks 5 10 100] [--devices 1 2 8 64] [--images 50000] \
        [--epochs 500] [--per_sum 2e-5] [--per_byte 1e-10] [--crowding 1] [--times 1]

A part of a step takes `fixed + slope x n` seconds for the n images of a device, task and replay together; from the
second task on there is the frozen network. Where several devices have one memory, as the cores of a machine, all parts
take `crowding` times as long. What w devices exchange takes
`sums x ceil(log2 w) x per_sum + bytes x 2 (w - 1) / w x per_byte` (a ring over all devices). An epoch is steps and
looks at the test images; a task is a start, epochs, and the features of the seen training images for the nearest
neighbours. Predictions for other devices say how many times as fast as the measured one they are (`--times`), what
their network takes for a sum and for a byte, and that each has a memory of its own (`--crowding 1`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.clock import typical
from benchmarks.command import as_tasks_run, ready_processes
from benchmarks.setting import CLASSES, TEST_IMAGES_PER_CLASS, Setting

if TYPE_CHECKING:
    from multiprocessing.pool import Pool

    from benchmarks.measure import Found

BATCHES, HELD_OUT = (64, 128, 256), 192
SHARED, SHARED_HELD_OUT = 128, 64
REPLAY = Setting.replay_batch_size
LATE = 9
START = 15.0  # seconds of two starts of Python: a task's process, and judging after it (benchmarks/start.py)


@dataclass(frozen=True)
class Line:
    """`fixed + slope x n` seconds."""

    fixed: float
    slope: float

    def at(self, images: int) -> float:
        """Seconds for so many images."""
        return self.fixed + self.slope * images


@dataclass(frozen=True)
class Costs:
    """The numbers of the model, in seconds.

    Attributes:
        parts: of a step with the clean probe, over a device's images of the task and the replay.
        look: to judge one test image with every head.
        sums, bytes: that a step of several devices exchanges.
        per_sum, per_byte: what that takes.
        crowding: how many times as long the parts take where several devices have one memory.
    """

    parts: Mapping[str, Line]
    look: float
    sums: float
    bytes: float
    per_sum: float
    per_byte: float
    crowding: float

    def step(self, images: int, task: int = 1, devices: int = 1) -> float:
        """Seconds of a step, with `images` of task and replay on each device."""
        parts = sum(line.at(images) for name, line in self.parts.items() if task > 0 or name != "frozen")
        return parts * (self.crowding if devices > 1 else 1.0) + self.exchange(devices)

    def exchange(self, devices: int) -> float:
        """Seconds that devices wait for each other in a step, beyond what overlaps."""
        if devices == 1:
            return 0.0
        ring = 2 * (devices - 1) / devices
        return self.sums * math.ceil(math.log2(devices)) * self.per_sum + self.bytes * ring * self.per_byte

    def experiment(self, plan: Plan, devices: int = 1) -> dict[str, float]:
        """Seconds of a whole experiment, by what they go to."""
        per_task = plan.images // plan.tasks
        steps = per_task // (plan.batch * devices) * plan.epochs
        later = plan.tasks - 1
        training = steps * (self.step(plan.batch, 0, devices) + later * self.step(plan.batch + plan.replay, 1, devices))
        looks = plan.tasks * (plan.epochs // plan.look_every) * plan.test_images / devices
        # After each task the leading device alone judges the test images and looks at all seen training images.
        judged = plan.tasks * plan.test_images + per_task * plan.tasks * (plan.tasks + 1) / 2
        return {
            "training": training,
            "looks": looks * self.look,
            "judging": judged * self.look,
            "starts": plan.tasks * START,
        }


@dataclass(frozen=True)
class Plan:
    """An experiment: images of training and test, tasks, epochs of each, and images of a step on each device."""

    images: int
    test_images: int
    tasks: int
    epochs: int
    batch: int
    replay: int
    look_every: int = 1


def fit_line(points: Mapping[int, float]) -> Line:
    """Least squares through images -> seconds; what is fixed is not below 0."""
    import numpy as np

    images, seconds = np.array([*points], float), np.array([*points.values()])
    slope, fixed = np.polyfit(images, seconds, 1)
    if fixed < 0:
        slope, fixed = float(images @ seconds / (images @ images)), 0.0
    return Line(float(fixed), float(slope))


def fit_exchange(with_sync: Mapping[str, Any], without: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds for a sum and for a byte between two devices, from steps with many sums and with few; not below 0."""
    rows = [(each["exchange"]["sums"], each["exchange"]["bytes"]) for each in (with_sync, without)]
    extra = [each["seconds"]["together"] - each["seconds"]["apart"] for each in (with_sync, without)]
    (sums, bytes_), (fewer, fewer_bytes) = rows
    determinant = sums * fewer_bytes - fewer * bytes_
    per_sum = (extra[0] * fewer_bytes - extra[1] * bytes_) / determinant
    per_byte = (sums * extra[1] - fewer * extra[0]) / determinant
    if per_byte < 0:
        return max(0.0, extra[0] / sums), 0.0
    return max(0.0, per_sum), per_byte


def measure(rounds: int) -> dict[str, Any]:
    """Fit the model, and hold it against what was not fitted."""
    from benchmarks import sharing

    together = {batch: sharing.measure(2, rounds, 8, batch, True) for batch in (SHARED, SHARED_HELD_OUT)}
    apart = sharing.measure(2, rounds, 8, SHARED, False)
    base = Setting(num_tasks=LATE + 1)
    settings = {f"{batch}": replace(base, batch_size=batch) for batch in (*BATCHES, HELD_OUT)}
    settings |= {"late": replace(base, task_idx=LATE), "first": replace(base, task_idx=0)}
    with one_by_one() as pool:
        turns = [{name: pool.apply(alone, (each,)) for name, each in settings.items()} for _ in range(rounds)]
    steps = {name: typical([found[name].step for found in turns]) for name in settings}
    looks = {name: typical([found[name].validation for found in turns]) for name in settings}
    names = steps[str(BATCHES[0])].parts
    parts = {name: fit_line({b + REPLAY: steps[str(b)].parts[name] for b in BATCHES}) for name in names}
    looked_at = sum(min(batch, CLASSES * TEST_IMAGES_PER_CLASS) for batch in BATCHES)
    look = sum(looks[str(batch)].seconds for batch in BATCHES) / looked_at
    per_sum, per_byte = fit_exchange(together[SHARED], apart)
    exchange, crowding = together[SHARED]["exchange"], 1 / together[SHARED]["ratios"]["crowding_2"]
    costs = Costs(parts, look, exchange["sums"], exchange["bytes"], per_sum, per_byte, crowding)
    images = base.batch_size + REPLAY
    shared = together[SHARED_HELD_OUT]["seconds"]
    pairs = {
        f"batch {HELD_OUT} + {REPLAY}": (costs.step(HELD_OUT + REPLAY), steps[str(HELD_OUT)].seconds),
        "first task": (costs.step(base.batch_size, 0), steps["first"].seconds),
        f"task {LATE} of {LATE + 1}": (costs.step(images), steps["late"].seconds),
        f"1 process, batch {SHARED_HELD_OUT} + {REPLAY}": (costs.step(SHARED_HELD_OUT + REPLAY), shared["alone"]),
        f"2 processes, batch {SHARED_HELD_OUT} + {REPLAY} each": (
            costs.step(SHARED_HELD_OUT + REPLAY, devices=2),
            shared["together"],
        ),
    }
    checks = {name: {"predicted": predicted, "measured": seen} for name, (predicted, seen) in pairs.items()}
    return {"costs": asdict(costs), "checks": checks}


def one_by_one() -> Pool:
    """For each call a process of its own: a second learner in one is slower."""
    return ready_processes("benchmarks.measure").Pool(1, maxtasksperchild=1)


def alone(setting: Setting) -> Found:
    """A few steps of one kind, in one thread."""
    import torch

    from benchmarks import measure as m

    m.quieten()
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        return m.take_turns({"own": setting}, 2, 4)["own"]


def read_costs(path: str) -> Costs:
    """Those that `--measure` wrote."""
    found = json.loads(Path(path).read_text())["costs"]
    return Costs(**{**found, "parts": {name: Line(**line) for name, line in found["parts"].items()}})


def faster(costs: Costs, times: float, **others: float | None) -> Costs:
    """The same on devices so many times as fast, with others of the exchange and crowding where they are given."""
    parts = {name: Line(line.fixed / times, line.slope / times) for name, line in costs.parts.items()}
    known: dict[str, Any] = {name: value for name, value in others.items() if value is not None}
    return replace(costs, parts=parts, look=costs.look / times, **known)


def main(argv: list[str]) -> int:
    """Write a fitted model, or print what one predicts."""
    parser = argparse.ArgumentParser(description="a model of what steps and experiments take")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--measure", metavar="FILE", help="fit the model here and write it")
    what.add_argument("--costs", metavar="FILE", help="a fitted model")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each kind of step [3]")
    parser.add_argument("--tasks", type=int, nargs="+", default=[5, 10, 100], help="[5 10 100]")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 8, 64], help="[1 2 8 64]")
    parser.add_argument("--images", type=int, default=50_000, help="training images [50000]")
    parser.add_argument("--test_images", type=int, default=10_000, help="[10000]")
    parser.add_argument("--epochs", type=int, default=500, help="of each task [500]")
    parser.add_argument("--look_every", type=int, default=1, help="--check_val_every_n_epoch [1]")
    parser.add_argument("--batch", type=int, default=256, help="images of a step, over all devices [256]")
    parser.add_argument("--times", type=float, default=1.0, help="how many times as fast each device is [1]")
    parser.add_argument("--per_sum", type=float, help="seconds for a sum between two devices [as measured]")
    parser.add_argument("--per_byte", type=float, help="seconds for a byte [as measured]")
    parser.add_argument("--crowding", type=float, help="1 where each device has its own memory [as measured]")
    options = parser.parse_args(argv)
    if options.measure:
        result = measure(options.rounds)
        Path(options.measure).write_text(json.dumps(result, indent=2) + "\n")
        for name, check in result["checks"].items():
            print(f"{name:<34} predicted {check['predicted']:.3f} s, measured {check['measured']:.3f} s")
        return 0
    others = {name: getattr(options, name) for name in ("per_sum", "per_byte", "crowding")}
    show(options, faster(read_costs(options.costs), options.times, **others))
    return 0


def show(options: argparse.Namespace, costs: Costs) -> None:
    """A table: hours of an experiment, and what they go to."""
    print("| tasks | devices | step, ms | hours | training | looks | judging | starts | against 1 device |")
    print("|---|---|---|---|---|---|---|---|---|")
    for tasks in options.tasks:
        whole = Plan(
            options.images, options.test_images, tasks, options.epochs, options.batch, REPLAY, options.look_every
        )
        alone = sum(costs.experiment(whole).values())
        for devices in options.devices:
            batch, replay = max(1, options.batch // devices), max(1, REPLAY // devices)
            spent = costs.experiment(replace(whole, batch=batch, replay=replay), devices)
            total = sum(spent.values())
            shares = " | ".join(f"{100 * seconds / total:.0f} %" for seconds in spent.values())
            step = 1000 * costs.step(batch + replay, 1, devices)
            print(f"| {tasks} | {devices} | {step:.1f} | {total / 3600:.2f} | {shares} | {alone / total:.1f} x |")


if __name__ == "__main__":
    as_tasks_run()
    sys.exit(main(sys.argv[1:]))
