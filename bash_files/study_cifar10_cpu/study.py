"""The study: recipes x arms x seeds on real CIFAR-10, in pieces that can be stopped and taken up.

    DATA_DIR=cifar10 python bash_files/study_cifar10_cpu/study.py [--slots 2] [--only simclr] [--until 3600]

Each run is a `job_launcher.py --script RECIPE --seeds N --set ...`, one thread for each. Runs that are in `runs.csv`
beside this file are not run again: finished ones are added to it as they end, and a stopped one goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from kaizen.runs_csv import read_rows  # noqa: E402

ROWS = HERE / "runs.csv"
SEEDS = (5, 6, 7)
NO_SOFT_LABELS = ("classifier_distill_lamb=0",)
# What each arm changes of its recipe, which is Kaizen. CaSSLe with replay is Kaizen without its soft labels.
ARMS = {
    "Kaizen": (),
    "CaSSLe + replay": NO_SOFT_LABELS,
    "CaSSLe": (*NO_SOFT_LABELS, "replay=False"),
    "no distillation + replay": ("no_distill=True",),
    "no distillation": ("no_distill=True", "replay=False"),
    "joint": ("num_tasks=1", "no_distill=True", "replay=False"),
}
FEW = ("Kaizen", "CaSSLe + replay", "no distillation + replay")
Piece = tuple[str, str, int]
PIECES: list[Piece] = [
    *((method, arm, seed) for seed in SEEDS for method in ("mocov2plus", "simclr") for arm in ARMS),
    *((method, arm, seed) for seed in SEEDS for method in ("byol", "vicreg") for arm in FEW),
]


def main(argv: list[str]) -> int:
    """Returns 1 where a run has failed."""
    parser = argparse.ArgumentParser(description="run what is missing of the study")
    parser.add_argument("--slots", type=int, default=2, help="runs at a time, each with one thread [2]")
    parser.add_argument("--only", default="", help="regular expression: runs whose `method arm seed` has a match")
    parser.add_argument("--until", type=float, default=float("inf"), help="seconds after which no run begins")
    parser.add_argument("--folder", default="experiments/study_cifar10_cpu", help="where the experiments go")
    options = parser.parse_args(argv)
    done = {(run.method, run.name, run.seeds[0]) for run in read_rows(ROWS)} if ROWS.exists() else set()
    pieces = [piece for piece in PIECES if piece not in done and re.search(options.only, " ".join(map(str, piece)))]
    last = time.monotonic() + options.until
    lock = threading.Lock()

    def work(piece: Piece) -> bool:
        return time.monotonic() > last or (run(piece, options.folder) and keep(piece, options.folder, lock))

    with ThreadPoolExecutor(options.slots) as slots:
        return int(not all(slots.map(work, pieces)))


def folder_of(piece: Piece) -> str:
    """Of its experiment, without the seed that the launcher adds."""
    method, arm, _ = piece
    return f"{method}-{re.sub('[^a-z]+', '-', arm.lower())}"


def run(piece: Piece, base: str) -> bool:
    """Run one piece, or go on with it; its output goes into a file beside its folder."""
    method, arm, seed = piece
    command = [sys.executable, "job_launcher.py", "--script", str(HERE.relative_to(ROOT) / f"{method}.sh")]
    command += ["--base_experiment_dir", base, "--experiment_dir", folder_of(piece), "--seeds", str(seed)]
    command += ["--set", f"name={arm}", *ARMS[arm]]
    Path(base).mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with (Path(base) / f"{folder_of(piece)}-seed{seed}.log").open("a") as log:
        one = {**os.environ, "OMP_NUM_THREADS": "1"}
        status = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=one).returncode
    minutes = (time.monotonic() - begun) / 60
    print(f"{method}, {arm}, seed {seed}: exit status {status} after {minutes:.0f} minutes", flush=True)
    return status == 0


def keep(piece: Piece, base: str, lock: threading.Lock) -> bool:
    """Add a finished run to the rows that are kept, and compare all of them."""
    finished, out = Path(base) / f"{folder_of(piece)}-seed{piece[2]}", Path(base) / "comparison"
    with lock:
        places = [str(place) for place in (ROWS, finished) if place.exists()]
        command = [sys.executable, "-m", "kaizen.compare", *places, "--out", str(out)]
        status = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL).returncode
        if status == 0:
            shutil.copy(out / "runs.csv", ROWS.with_suffix(".tmp"))
            os.replace(ROWS.with_suffix(".tmp"), ROWS)
    return status == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
