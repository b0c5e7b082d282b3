"""How long until something happens: CPU seconds of --help, of a mistyped flag, and of a task until its first step.

    python benchmarks/start.py [--json] [--repeats 3]

Each in processes of its own, as started by hand or by the chain; medians. The task is the first of the digits.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

ROOT = Path(__file__).resolve().parent.parent
DIGITS = """--dataset digits --num_tasks 2 --method mocov2plus --encoder resnet9 --encoder_width 0.25 --queue_size 1024
    --proj_hidden_dim 512 --output_dim 128 --batch_size 64 --max_epochs 1 --online_evaluation True"""
# Runs a task as the chain does and leaves at the end of its first step.
FIRST_STEP = """
import os, sys
from kaizen import task
from kaizen.learner import ContinualLearner
ContinualLearner.on_train_batch_end = lambda *args: os._exit(0)
task.main(sys.argv[1:])
os._exit(1)
"""


def main(argv: list[str]) -> int:
    """Print a table, or with --json one object."""
    parser = argparse.ArgumentParser(description="CPU seconds until something happens")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each kind [3]")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        starts = {
            "help": ([sys.executable, "main_continual.py", "--help"], 0),
            "typo": ([sys.executable, "main_continual.py", "--bacth_size", "3"], 2),
            "first_step": ([sys.executable, "-c", FIRST_STEP, prepared(Path(folder)), "0"], 0),
        }
        seconds = {name: median(cpu_seconds(*start) for _ in range(options.repeats)) for name, start in starts.items()}
    if options.json:
        print(json.dumps({"cpu_seconds": seconds}))
        return 0
    for name, value in seconds.items():
        print(f"{name:<12} {value:5.1f} s")
    return 0


def prepared(base: Path) -> str:
    """An experiment that can start."""
    from kaizen.cli import flags_of, read_args
    from kaizen.experiment import Experiment
    from kaizen.plan import open_data

    args = read_args(DIGITS.split())
    data = open_data(args)
    return str(Experiment.start(base / "run", flags_of(args), data.split.classes, data.task_names).folder)


def cpu_seconds(command: list[str], status: int) -> float:
    """CPU seconds of a process that must end with an exit status."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == status, result.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
