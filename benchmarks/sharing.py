"""Parallel efficiency: a step of several processes, one core each, against one process with the same work per process.

    python benchmarks/sharing.py [--json] [--world 2] [--rounds 5] [--steps 12] [--no_sync_batchnorm]

Rounds of both sides take turns, each in processes of its own, which have their libraries from the start. The ratio
`efficiency_<world>` is the median step of one process over the median step of several: 1 where sharing costs nothing.
Where the machine has fewer free cores than processes, that is what it shows.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.command import as_tasks_run
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
    laps: dict[int, list[float]] = {1: [], options.world: []}
    for _ in range(options.rounds):
        for world, found in laps.items():
            found += turn(options, world)
    seconds = {world: median(found) for world, found in laps.items()}
    ratios = {f"efficiency_{options.world}": seconds[1] / seconds[options.world]}
    if options.json:
        print(json.dumps({"ratios": ratios, "seconds": seconds, "cores": os.cpu_count()}))
        return 0
    for world, value in seconds.items():
        print(f"{world} processes: {1000 * value:.0f} ms a step, {options.batch_size / value:.0f} task images/s each")
    print(f"efficiency {ratios[f'efficiency_{options.world}']:.2f}")
    return 0


def turn(options: argparse.Namespace, world: int) -> list[float]:
    """Seconds of each step in the first of `world` processes."""
    from kaizen.meeting import free_port

    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["kaizen.task", "benchmarks.setting"])
    port = free_port()
    receiving, sending = processes.Pipe(duplex=False)
    ranks = [processes.Process(target=train, args=(options, rank, world, port, sending)) for rank in range(world)]
    for process in ranks:
        process.start()
    found: list[float] = receiving.recv()
    for process in ranks:
        process.join()
    return found


def train(options: argparse.Namespace, rank: int, world: int, port: int, sending: Any) -> None:
    """One process: a task in the product's trainer."""
    import pytorch_lightning as pl
    import torch

    from kaizen.building import batch_sizes, build_trainer, share_out, training_loaders
    from kaizen.processes import Seat
    from kaizen.sharing import assemble, together

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if world > 1:
        os.environ |= Seat(rank, world, rank, world, 0, "127.0.0.1", port).environment(port)
    setting = Setting(batch_size=options.batch_size)
    laps: list[float] = []

    class Laps(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            laps.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        sys.stdout = nowhere
        data, learner = setting.data(world * options.steps), setting.learner()
        trainer = build_trainer(setting.args, Path(folder), "benchmark", setting.task_idx)
        trainer.callbacks.append(Laps())  # type: ignore[attr-defined]
        assemble(trainer)
        loaders = training_loaders(setting.args, data, setting.task_idx, setting.replay(data), rank, world)
        if world > 1:
            share_out(learner, batch_sizes(loaders), rank, world, not options.no_sync_batchnorm)
        with together(trainer):
            trainer.fit(learner, loaders)
    if rank == 0:
        sending.send([after - before for before, after in zip(laps[WARMUP:], laps[WARMUP + 1 :], strict=False)])


if __name__ == "__main__":
    as_tasks_run()
    sys.exit(main(sys.argv[1:]))
