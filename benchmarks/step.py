"""How long is a training step, part by part, and how long beside one in the published code's order of work.

    python benchmarks/step.py [--json] [--only small|resnet18|memory] [--quick]
    python benchmarks/step.py --encoder resnet18 --method byol --task_idx 2

Ratios are reference / ours, from medians; both sides take turns in one process. `small` has the networks, batches and
view size of bash_files/mocov2plus_cifar10_small_cpu.sh, `resnet18` the published networks with batches of 32 + 8.

Part of the ratios is work left out, not work done faster. The reference sends the probe's images, one batch for each
task seen, through the momentum encoder too, probe or none, as published; ours only with --momentum_probe. In `frozen`
mode our probe sees one batch of images, whatever the task.

`memory` and `bookkeeping` are shares: of the reference's peak memory, and of our step. An epoch is put together from
steps and looks at test images, 10,000 images each. All images are random.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.command import answer, as_tasks_run, step_parser

if TYPE_CHECKING:
    from benchmarks.measure import Found
    from benchmarks.setting import Setting

OWN = ("encoder", "method", "task_idx", "batch_size", "replay_batch_size", "size", "momentum_probe")
MEMORY_STEPS = 3
ALL = ("small", "resnet18", "memory")


def main(argv: list[str]) -> int:
    """Print tables, or with --json one object. Each part has a process of its own, as tasks of its encoder have."""
    options = read_options(argv)
    if options.only is None and not given_flags(options):
        return answer(options, lambda _: together([part(name, argv) for name in ALL]), show)
    as_tasks_run("resnet18" if options.only == "resnet18" else options.encoder or "resnet9")
    return answer(options, measure, show)


def part(name: str, argv: list[str]) -> dict[str, Any]:
    """What one part alone answers."""
    command = [sys.executable, __file__, *argv, "--json", "--only", name]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def together(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The ratios and details of all parts."""
    merged = {key: {k: v for result in results for k, v in result[key].items()} for key in ("ratios", "details")}
    return {**results[0], **merged}


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = step_parser("a training step, by part, against the published order of work", ALL)
    parser.add_argument("--compile", action="store_true", help="our side compiles its encoders and views")
    own = parser.add_argument_group("a step of your own, instead of the parts")
    own.add_argument("--encoder", help="backbone")
    own.add_argument("--method", help="self-supervised method; mocov2plus alone has a reference")
    own.add_argument("--task_idx", type=int, help="task, from 0 to 4")
    own.add_argument("--batch_size", type=int, help="task images per step")
    own.add_argument("--replay_batch_size", type=int, help="replay images per step")
    own.add_argument("--size", type=int, help="side of the views in pixels")
    own.add_argument("--momentum_probe", action="store_true", default=None, help="a probe on the momentum encoder too")
    own.add_argument("--online_eval_batchnorm", choices=("frozen", "update"), help="show this mode of the probe alone")
    return parser.parse_args(argv)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Ratios, and what they are made of."""
    import torch

    from benchmarks import measure as m

    m.quieten()
    torch.set_num_threads(options.threads)
    ratios: dict[str, float] = {}
    details: dict[str, Any] = {}
    for name, setting in chosen_settings(options).items():
        if name == "memory":
            ratios |= memory(setting, details)
            continue
        found = m.compare(setting, options.warmup, options.repeats)
        if options.online_eval_batchnorm:
            found = {
                side: value for side, value in found.items() if side in (options.online_eval_batchnorm, m.REFERENCE)
            }
        ratios |= m.ratios_of(name, found)
        if name == "small":
            ratios["bookkeeping"] = found["frozen"].bookkeeping
        details[name] = {side: described(value) for side, value in found.items()}
    return {"ratios": ratios, "details": details, "threads": options.threads, "repeats": options.repeats}


def given_flags(options: argparse.Namespace) -> dict[str, Any]:
    """The flags of a step of one's own."""
    values = {name: getattr(options, name) for name in (*OWN, "online_eval_batchnorm")}
    return {name: value for name, value in values.items() if value is not None}


def chosen_settings(options: argparse.Namespace) -> dict[str, Setting]:
    """Which steps are measured, by the name of the part."""
    from benchmarks.setting import Setting

    if given_flags(options):
        own = {name: value for name, value in given_flags(options).items() if name in OWN}
        return {"own": Setting(**own, compile=options.compile)}
    large = Setting(encoder="resnet18", batch_size=32, replay_batch_size=8)
    small = Setting(size=16)  # as in bash_files/mocov2plus_cifar10_small_cpu.sh
    if options.quick:
        small = Setting(batch_size=8, replay_batch_size=4, size=16)
        large = Setting(encoder="resnet18", batch_size=4, replay_batch_size=2, size=8)
    settings = {"small": small, "resnet18": large, "memory": large}
    chosen = {name: setting for name, setting in settings.items() if options.only in (None, name)}
    return {name: replace(setting, compile=options.compile) for name, setting in chosen.items()}


def memory(setting: Setting, details: dict[str, Any]) -> dict[str, float]:
    """Peak memory as a share of the reference's, each side in a process of its own."""
    from benchmarks import measure as m

    peaks = {side: m.peak_of(m.in_mode(setting, side), side, MEMORY_STEPS) for side in (*m.MODES, m.REFERENCE)}
    details["memory"] = {side: {"peak_bytes": peak, "libraries_bytes": base} for side, (peak, base) in peaks.items()}
    whole = {side: peak for side, (peak, _) in peaks.items()}
    own = {side: peak - base for side, (peak, base) in peaks.items()}
    return {
        "memory_resnet18": whole["update"] / whole[m.REFERENCE],
        "memory_resnet18_frozen": whole["frozen"] / whole[m.REFERENCE],
        "memory_resnet18_without_libraries": own["update"] / own[m.REFERENCE],
        "memory_resnet18_frozen_without_libraries": own["frozen"] / own[m.REFERENCE],
    }


def described(found: Found) -> dict[str, Any]:
    """For JSON: seconds of a step, of its parts, of a look at a batch of test images and of an epoch."""
    return {
        **asdict(found.step),
        "validation_seconds": found.validation.seconds,
        "epoch_seconds": found.epoch,
        "bookkeeping": found.bookkeeping,
    }


def show(result: dict[str, Any]) -> None:
    """Tables for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for name, sides in result["details"].items():
        table = Table("milliseconds" if name != "memory" else "MB", *sides, title=name)
        for label, values in rows(name, sides).items():
            table.add_row(label, *(f"{value:.1f}" for value in values))
        console.print(table)
    table = Table("ratio", "value", title="ratios")
    for name, value in result["ratios"].items():
        table.add_row(name, f"{value:.3f}")
    console.print(table)


def rows(name: str, sides: dict[str, Any]) -> dict[str, list[float]]:
    """Label -> one value for each side."""
    if name == "memory":
        keys = {"peak": "peak_bytes", "libraries": "libraries_bytes"}
        return {label: [side[key] / 1e6 for side in sides.values()] for label, key in keys.items()}
    labels = dict.fromkeys(part for side in sides.values() for part in side["parts"])
    table = {part: [1e3 * side["parts"].get(part, 0.0) for side in sides.values()] for part in labels}
    for label, key in (("step", "seconds"), ("step, CPU", "cpu_seconds"), ("epoch", "epoch_seconds")):
        table[label] = [1e3 * side[key] for side in sides.values()]
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
