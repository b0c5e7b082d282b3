"""Real runs of the digits recipe, killed at random points and started again, must end as runs that never were.

    python tests/torture.py [--kills 51] [--seed 0] [--methods mocov2plus byol swav] [--processes 1] [--folder DIR]

Every method is trained undisturbed once; then it is started, killed (SIGKILL for all its processes; SIGTERM or SIGINT
for the one that was started, or every other time for all, as SLURM and a terminal do) and started again until it ends,
in new folders until its share of the kills is used up. With several --processes, that share each step, every other
SIGKILL is for one of them alone.
Weights, results and logged values must be the same to the last bit. Prints a line per kill; exits 1 at a difference.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from kaizen.checkpoint import load_task  # noqa: E402
from kaizen.files import read_json  # noqa: E402

TASKS = 2
HOW = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PATIENCE = 600  # seconds: longer is a hang
OWN = {  # a queue, momentum and prototypes
    "mocov2plus": "--proj_hidden_dim 256 --output_dim 64 --queue_size 512 --momentum_classifier",
    "byol": "--proj_hidden_dim 128 --output_dim 64 --pred_hidden_dim 128 --distiller predictive",
    "swav": "--proj_hidden_dim 128 --output_dim 64 --num_prototypes 60 --queue_size 192 --freeze_prototypes_epochs 1",
    "deepclusterv2": "--proj_hidden_dim 128 --output_dim 64 --num_prototypes 30 40",
}
# How views are made, which changes them; how often something is saved, which must change nothing.
VARIANTS = (("", ""), ("", "--checkpoint_every_n_steps 3"), ("--augment_on workers --num_workers 2", ""))


def main(argv: list[str]) -> int:
    """Returns 0 where nothing was lost."""
    parser = argparse.ArgumentParser(description="kill runs of the digits recipe and compare their ends")
    parser.add_argument("--kills", type=int, default=51, help="in all [51]")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and signals [0]")
    parser.add_argument("--methods", nargs="+", choices=tuple(OWN), default=["mocov2plus", "byol", "swav"])
    parser.add_argument("--processes", type=int, default=1, help="that share each step [1]")
    parser.add_argument("--folder", type=Path, help="where the runs go; a temporary one by default")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else runs would ignore it where this does, as with `&`
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        base = options.folder or Path(temporary)
        for number, method in enumerate(options.methods):
            share = options.kills * (number + 1) // len(options.methods) - options.kills * number // len(
                options.methods
            )
            if not torment(method, share, chance, base, options.processes):
                return 1
    print(f"{options.kills} kills over {len(options.methods)} methods: nothing lost, every end is the undisturbed one")
    return 0


def torment(method: str, kills: int, chance: random.Random, base: Path, processes: int) -> bool:
    """Use up a method's share of the kills; False at the first end that differs."""
    left, attempt = kills, 0
    while left > 0:
        views, often = VARIANTS[attempt % len(VARIANTS)]
        command = [*command_of(method, base), *views.split(), "--gpus", ",".join(map(str, range(processes)))]
        whole = base / f"{method}-whole{'-workers' if views else ''}"
        began = time.monotonic()
        if not whole.exists() and (status := run(command, whole)) != 0:
            print(f"{method}: the undisturbed run ended with {status}; see {whole}.log")
            return False
        duration = max(20.0, time.monotonic() - began)
        folder = base / f"{method}-{attempt}"
        used = kill_until_it_ends([*command, *often.split()], folder, left, chance, duration, processes > 1)
        if used is None:
            return False
        left, attempt = left - used, attempt + 1
        if differences := differing(whole, folder):
            print(f"{folder} differs from {whole}: {', '.join(differences[:5])}, {len(differences)} in all")
            return False
        print(f"{method} {views} {often}: {used} kills, and the end is the undisturbed one", flush=True)
    return True


def kill_until_it_ends(
    command: list[str], folder: Path, most: int, chance: random.Random, duration: float, shared: bool
) -> int | None:
    """How many kills one run took, at most `most`; None where it ended in another way."""
    for used in range(most + 1):
        moment = (chance.uniform(0, duration), chance.choice(HOW)) if used < most else None
        status = run(command, folder, moment, other=used % 2 == 1, shared=shared)
        if status == 0:
            return used
        if moment is None or status not in (128 + moment[1], -moment[1]):
            print(f"{folder}: ended with {status} by itself; see {folder}.log")
            return None
        print(f"{folder.name}: {moment[1].name} after {moment[0]:.1f} s", flush=True)
    return None


def command_of(method: str, base: Path) -> list[str]:
    """The quickstart's flags, with two short tasks and the method's own heads."""
    script = (ROOT / "bash_files" / "quickstart_digits.sh").read_text()
    flags = script.partition("main_continual.py")[2].replace("\\\n", " ")
    for name in ("proj_hidden_dim", "output_dim", "queue_size", "temperature", "momentum_classifier"):
        flags = re.sub(rf"--{name}( [^-\s]\S*)?", "", flags)
    momentum = "--base_tau_momentum" in flags and method not in ("mocov2plus", "byol")
    for name in ("base_tau_momentum", "final_tau_momentum") if momentum else ():
        flags = re.sub(rf"--{name} \S+", "", flags)
    changed = f"--method {method} --max_epochs 5 --warmup_epochs 1 --num_tasks {TASKS} --log_every_n_steps 3 "
    changed += f"--check_val_every_n_epoch 2 --base_experiment_dir {base} {OWN[method]}"
    return [sys.executable, "main_continual.py", *flags.split(), *changed.split()]


def run(
    command: list[str],
    folder: Path,
    moment: tuple[float, signal.Signals] | None = None,
    other: bool = False,
    shared: bool = False,
) -> int:
    """Run a command in an experiment's folder, at some moment with a signal in one way or the other; its status."""
    with Path(f"{folder}.log").open("a") as out:
        command = [*command, "--experiment_dir", folder.name]
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
        try:
            return process.wait(timeout=moment[0] if moment else PATIENCE)
        except subprocess.TimeoutExpired:
            if moment is None:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        dies = moment[1] == signal.SIGKILL
        if dies and other and shared and (training := processes_of(folder)):
            os.kill(training[-1], signal.SIGKILL)
        elif dies or other:
            os.killpg(process.pid, moment[1])  # the power is gone, for all processes at once; or all are told
        else:
            process.send_signal(moment[1])
        return process.wait(timeout=PATIENCE)


def processes_of(folder: Path) -> list[int]:
    """The processes that train a task in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            words = path.read_text().split("\0")
            if "kaizen.task" in words and words[words.index("kaizen.task") + 1].endswith(folder.name):
                found.append(int(path.parent.name))
    return sorted(found)


def differing(one: Path, two: Path) -> list[str]:
    """What is not the same at the end of two runs."""
    found = []
    for task in range(TASKS):
        states = [load_task(folder / f"task{task}" / "final.ckpt", "--folder")["state"] for folder in (one, two)]
        names = states[0].keys() | states[1].keys()
        found += [f"task{task} {n}" for n in names if not same(states[0].get(n), states[1].get(n))]
        logs = [(folder / f"task{task}" / "metrics.csv").read_text() for folder in (one, two)]
        found += [f"task{task}/metrics.csv"] * (logs[0] != logs[1])
    results = [without_times(read_json(folder / "results.json")) for folder in (one, two)]
    return found + ["results.json"] * (results[0] != results[1])


def same(one: torch.Tensor | None, two: torch.Tensor | None) -> bool:
    """To the last bit."""
    return one is not None and two is not None and torch.equal(one, two)


def without_times(results: dict[str, Any]) -> dict[str, Any]:
    """Results but for what two runs never share: the seconds they took, their names, and where and how they ran."""
    return {
        name: value for name, value in results.items() if name in ("heads", "task_names", "tasks_done", "num_tasks")
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
