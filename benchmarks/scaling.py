"""How the time of a step and an epoch grows with the task index, the replay batch and the batch.

    python benchmarks/scaling.py [--json] [--only task|replay|batch] [--encoder resnet9] [--quick]

Of our side alone. The steps of a sweep take turns in one process; medians. `late_task` is the time of a step in task
9 of 10 over one in task 1 with the clean probe, `late_task_update` the same with the published one, whose images grow
with the tasks. An epoch is put together from steps and looks at test images, 10,000 images each.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.command import answer, as_tasks_run, step_parser

SWEEPS = {"task": "task_idx", "replay": "replay_batch_size", "batch": "batch_size"}
TASKS = 10
EARLY, LATE = 1, 9


def main(argv: list[str]) -> int:
    """Print tables, or with --json one object."""
    return answer(read_options(argv), measure, show)


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = step_parser("steps and epochs over task index, replay and batch size", tuple(SWEEPS))
    parser.add_argument("--encoder", default="resnet9", help="backbone [resnet9]")
    return parser.parse_args(argv)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Ratios, and the points of each sweep."""
    import torch

    from benchmarks import measure as m
    from benchmarks.setting import Setting

    m.quieten()
    torch.set_num_threads(options.threads)
    base = Setting(encoder=options.encoder, num_tasks=TASKS)
    if options.quick:
        base = replace(base, batch_size=8, replay_batch_size=4, size=16)
    ratios: dict[str, float] = {}
    details: dict[str, Any] = {}
    for sweep, field in SWEEPS.items():
        if options.only not in (None, sweep):
            continue
        for mode in m.MODES if sweep == "task" else ("frozen",):
            points = values_of(sweep, getattr(base, field))
            changes: list[dict[str, Any]] = [{field: value, "batchnorm": mode} for value in points]
            settings = {str(change[field]): replace(base, **change) for change in changes}
            found = m.take_turns(settings, options.warmup, options.repeats)
            details[f"{sweep}, {mode}"] = {
                value: {"step_seconds": point.step.seconds, "epoch_seconds": point.epoch}
                for value, point in found.items()
            }
            if sweep == "task":
                name = "late_task" if mode == "frozen" else f"late_task_{mode}"
                ratios[name] = found[str(LATE)].step.seconds / found[str(EARLY)].step.seconds
    return {"ratios": ratios, "details": details, "threads": options.threads, "repeats": options.repeats}


def values_of(sweep: str, base: int) -> list[int]:
    """Where a sweep looks."""
    return [0, EARLY, 5, LATE] if sweep == "task" else [base // 4, base, base * 2]


def show(result: dict[str, Any]) -> None:
    """Tables for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for sweep, points in result["details"].items():
        table = Table(sweep, "step, ms", "epoch, s", title=f"over {sweep}")
        for value, point in points.items():
            table.add_row(value, f"{1e3 * point['step_seconds']:.1f}", f"{point['epoch_seconds']:.1f}")
        console.print(table)
    for name, value in result["ratios"].items():
        console.print(f"{name} {value:.3f}")


if __name__ == "__main__":
    as_tasks_run()
    sys.exit(main(sys.argv[1:]))
