"""The study: recipes x arms x seeds on real CIFAR-10, in pieces that can be stopped and taken up.

    DATA_DIR=cifar10 python bash_files/study_cifar10_cpu/study.py [--slots 2] [--only simclr] [--until 3600]

Each run is a `job_launcher.py --script RECIPE --seeds N --set ...`, one thread for each. Finished runs are added to
`runs.csv` beside this file, those at other scales to `scale.csv`, and are not run again; a stopped one goes on where it
was. `python -m kaizen.compare bash_files/study_cifar10_cpu/runs.csv` shows what there is.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from kaizen.files import atomic_write_text  # noqa: E402
from kaizen.relay import Child, Relay  # noqa: E402
from kaizen.runs_csv import read_rows  # noqa: E402

SEEDS = (5, 6, 7)
NO_SOFT_LABELS = ("classifier_distill_lamb=0",)
# What each arm changes of its recipe, which is Kaizen. CaSSLe with replay is Kaizen without classifier distillation.
ARMS = {
    "Kaizen": (),
    "CaSSLe + replay": NO_SOFT_LABELS,
    "CaSSLe": (*NO_SOFT_LABELS, "replay=False"),
    "no distillation + replay": ("no_distill=True",),
    "no distillation": ("no_distill=True", "replay=False"),
    "joint": ("num_tasks=1", "no_distill=True", "replay=False"),
}
FEW = ("Kaizen", "CaSSLe + replay", "no distillation + replay")
# How the answer moves with training and with images, and how much of a number the published probe makes.
SCALES = {"3 epochs": ("max_epochs=3",), "30 epochs": ("max_epochs=30",), "1,000 images a class": ()}
FEWER = 1_000  # images of each class in the last of them
OTHERS = {
    **{f"{arm}, {scale}": (*ARMS[arm], *flags) for scale, flags in SCALES.items() for arm in FEW},
    "Kaizen, 30 epochs, weight 2": (*SCALES["30 epochs"], "classifier_distill_lamb=2"),  # the published weight
    "Kaizen, probe with --online_eval_batchnorm update": ("online_eval_batchnorm=update",),
}
Piece = tuple[str, str, int]
PIECES: list[Piece] = [
    *((method, arm, seed) for seed in SEEDS for method in ("mocov2plus", "simclr") for arm in ARMS),
    *((method, arm, seed) for seed in SEEDS for method in ("byol", "vicreg") for arm in FEW),
    *(("mocov2plus", arm, seed) for seed in SEEDS for arm in OTHERS),
]


def main(argv: list[str]) -> int:
    """Returns 1 where a run has failed."""
    parser = argparse.ArgumentParser(description="run what is missing of the study")
    parser.add_argument("--slots", type=int, default=2, help="runs at a time, each with one thread [2]")
    parser.add_argument("--only", default="", help="regular expression: runs whose `method arm seed` has a match")
    parser.add_argument("--until", type=float, default=float("inf"), help="seconds after which no run begins")
    parser.add_argument("--folder", default="experiments/study_cifar10_cpu", help="where the experiments go")
    options = parser.parse_args(argv)
    if not Path(os.environ.get("DATA_DIR", ""), "train").is_dir():
        parser.error("DATA_DIR names no folder with train/ and val/; write DATA_DIR=/data/cifar10 before the command")
    if options.slots < 1:
        parser.error(f"--slots {options.slots}: give at least 1")
    try:
        wanted = re.compile(options.only)
    except re.error as error:
        parser.error(f"--only {options.only}: is no regular expression ({error})")
    files = {rows_of(piece) for piece in PIECES}
    done = {(run.method, run.name, run.seeds[0]) for path in files if path.exists() for run in read_rows(path)}
    pieces = [piece for piece in PIECES if piece not in done and wanted.search(" ".join(map(str, piece)))]
    base = (ROOT / options.folder).resolve()
    base.mkdir(parents=True, exist_ok=True)
    well = work(deque(pieces), base, options.slots, time.monotonic() + options.until)
    return int(not well)


def work(waiting: deque[Piece], base: Path, slots: int, last: float) -> bool:
    """Run pieces, some at a time, and keep their rows; a signal is passed on, and keeps the others from beginning."""
    relay, well = Relay(), True
    busy: dict[Child, tuple[Piece, float]] = {}
    while True:
        while waiting and len(busy) < slots and not relay.received and time.monotonic() < last:
            piece = waiting.popleft()
            busy[start(relay, piece, base)] = piece, time.monotonic()
        if not busy:
            return well and not relay.received
        child, status = relay.wait()
        piece, begun = busy.pop(child)
        minutes = (time.monotonic() - begun) / 60
        print(f"{', '.join(map(str, piece))}: exit status {status} after {minutes:.0f} minutes", flush=True)
        well = status == 0 and keep(piece, base) and well


def rows_of(piece: Piece) -> Path:
    """Where its row is kept."""
    return HERE / ("scale.csv" if piece[1] in OTHERS else "runs.csv")


def data_of(piece: Piece, base: Path) -> dict[str, str]:
    """The environment of a run; where it sees fewer images, they are linked into a folder of their own."""
    if str(FEWER) not in piece[1].replace(",", ""):
        return dict(os.environ)
    data, fewer = Path(os.environ["DATA_DIR"]).resolve(), base / f"images_{FEWER}"
    for split, most in (("train", FEWER), ("val", None)):
        for folder in (data / split).iterdir():
            (fewer / split / folder.name).mkdir(parents=True, exist_ok=True)
            for image in sorted(folder.iterdir())[:most]:
                with suppress(FileExistsError):
                    (fewer / split / folder.name / image.name).symlink_to(image)
    return {**os.environ, "DATA_DIR": str(fewer)}


def folder_of(piece: Piece) -> str:
    """Of its experiment, without the seed that the launcher adds."""
    method, arm, _ = piece
    return f"{method}-{re.sub('[^a-z0-9]+', '-', arm.lower())}"


def start(relay: Relay, piece: Piece, base: Path) -> Child:
    """Start one piece, or go on with it; its output goes into a file beside its folder."""
    method, arm, seed = piece
    command = [sys.executable, str(ROOT / "job_launcher.py"), "--script", str(HERE / f"{method}.sh")]
    command += ["--base_experiment_dir", str(base), "--experiment_dir", folder_of(piece), "--seeds", str(seed)]
    command += ["--set", f"name={arm}", *(ARMS | OTHERS)[arm]]
    environment = {**data_of(piece, base), "OMP_NUM_THREADS": "1"}
    return relay.start(command, environment, base / f"{folder_of(piece)}-seed{seed}.log")


def keep(piece: Piece, base: Path) -> bool:
    """Add a finished run to the rows that are kept, and compare all of them."""
    rows, finished = rows_of(piece), base / f"{folder_of(piece)}-seed{piece[2]}"
    out = base / f"comparison_{rows.stem}"
    places = [str(place) for place in (rows, finished) if place.exists()]
    command = [sys.executable, "-m", "kaizen.compare", *places, "--out", str(out)]
    status = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL).returncode
    if status == 0:
        atomic_write_text(rows, (out / "runs.csv").read_text(encoding="utf-8"))
    return status == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
