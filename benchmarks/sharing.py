"""Parallel efficiency: a step of several processes, one core each, against one process with the same work per process.

    python benchmarks/sharing.py [--json] [--world 2] [--rounds 5] [--steps 12] [--no_sync_batchnorm]

Rounds take turns, each in processes of its own, which have their libraries from the start. The ratio
`efficiency_<world>` is the median step of one process over the median step of several: 1 where sharing costs nothing.
A part of what is missing is the machine's: `crowding_<world>` is the same for processes that run beside each other
without sharing anything but memory and caches. Beside it, what a step exchanges: how many sums over all processes, and
their bytes.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.command import as_tasks_run, ready_processes
from benchmarks.setting import Setting

WARMUP = 3  # steps that do not count


def main(argv: list[str]) -> int:
    """Print a line for each side, or with --json one object."""
    parser = argparse.ArgumentParser(description="steps that several processes share")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--world", type=int, default=2, help="processes [2]")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side [5]")
    parser.add_argument("--steps", type=int, default=12, help="steps of a turn [12]")
    parser.add_argument("--batch_size", type=int, default=128, help="task images of each process [128]")
    parser.add_argument("--no_sync_batchnorm", action="store_true", help="BatchNorm over the parts")
    options = parser.parse_args(argv)
    found = measure(options.world, options.rounds, options.steps, options.batch_size, not options.no_sync_batchnorm)
    if options.json:
        print(json.dumps({**found, "cores": os.cpu_count()}))
        return 0
    for how, value in found["seconds"].items():
        print(f"{how:<8} {1000 * value:.0f} ms a step, {options.batch_size / value:.0f} task images/s a process")
    print("a step exchanges {sums:.0f} sums, {bytes:,.0f} bytes".format(**found["exchange"]))
    print(", ".join(f"{name} {value:.2f}" for name, value in found["ratios"].items()))
    return 0


def measure(world: int, rounds: int, steps: int, batch_size: int, sync_batchnorm: bool) -> dict[str, Any]:
    """Median seconds of a step of one process, of several without and with sharing; ratios; what a step exchanges."""
    sides = {"alone": (1, 1), "apart": (world, 1), "together": (world, world)}  # processes, and how many share a step
    laps: dict[str, list[float]] = {how: [] for how in sides}
    for _ in range(rounds):
        for how, (count, sharing) in sides.items():
            told = turn(count, sharing, steps, batch_size, sync_batchnorm)
            laps[how] += told["laps"]
    seconds = {how: median(found) for how, found in laps.items()}
    return {
        "ratios": {
            f"efficiency_{world}": seconds["alone"] / seconds["together"],
            f"crowding_{world}": seconds["alone"] / seconds["apart"],
        },
        "seconds": seconds,
        "exchange": {name: told[name] for name in ("sums", "bytes")},
    }


def turn(count: int, world: int, steps: int, batch_size: int, sync_batchnorm: bool) -> dict[str, Any]:
    """Seconds of each step in the first of `count` processes, all or none of which share it, and what it exchanges."""
    from kaizen.meeting import free_port

    processes, port = ready_processes("benchmarks.setting"), free_port()
    receiving, sending = processes.Pipe(duplex=False)
    task = (steps, batch_size, sync_batchnorm)
    seats = [(place if world > 1 else 0, sending if place == 0 else None) for place in range(count)]
    ranks = [processes.Process(target=train, args=(rank, world, port, told, *task)) for rank, told in seats]
    for process in ranks:
        process.start()
    found: dict[str, Any] = receiving.recv()
    for process in ranks:
        process.join()
    return found


def train(rank: int, world: int, port: int, sending: Any, steps: int, batch_size: int, sync_batchnorm: bool) -> None:
    """One process: a task in the product's trainer. Where there is somebody to tell, it tells of its steps."""
    import pytorch_lightning as pl
    import torch
    import torch.distributed as dist

    from kaizen.building import batch_sizes, build_trainer, share_out, training_loaders
    from kaizen.processes import Seat
    from kaizen.sharing import assemble, together

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if world > 1:
        os.environ |= Seat(rank, world, rank, world, 0, "127.0.0.1", port).environment(port)
    setting = Setting(batch_size=batch_size)
    laps: list[float] = []
    sums: list[int] = []  # bytes of each, DDP's own aside
    all_reduce = dist.all_reduce

    def counted(values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        sums.append(values.nbytes)
        return all_reduce(values, *args, **kwargs)

    dist.all_reduce = counted  # type: ignore[assignment]

    class Laps(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            laps.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        sys.stdout = nowhere
        data, learner = setting.data(world * steps), setting.learner()
        trainer = build_trainer(setting.args, Path(folder), "benchmark", setting.task_idx)
        trainer.callbacks.append(Laps())  # type: ignore[attr-defined]
        assemble(trainer)
        loaders = training_loaders(setting.args, data, setting.task_idx, setting.replay(data), rank, world)
        if world > 1:
            share_out(learner, batch_sizes(loaders), rank, world, sync_batchnorm)
        with together(trainer):
            trainer.fit(learner, loaders)
    if sending is not None:
        gradients = sum(each.numel() * 4 for each in learner.parameters() if each.requires_grad)
        sending.send(
            {
                "laps": [after - before for before, after in pairwise(laps[WARMUP:])],
                "sums": len(sums) / len(laps) + 1,  # DDP sums the gradients of a small network at once
                "bytes": sum(sums) / len(laps) + gradients,
            }
        )


if __name__ == "__main__":
    as_tasks_run()
    sys.exit(main(sys.argv[1:]))
