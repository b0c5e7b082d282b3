"""Does it matter where views are made: the same training with --augment_on device and workers, over several seeds.

    python benchmarks/augment_on.py [--json] [--data_dir cifar10] [--seeds 5 6 7] [--epochs 1]

Trains two tasks of the digits, or of the image folders that --data_dir names, with each seed and in both places, two
loader processes in the second. Shows mean and standard deviation over the seeds of the last logged loss and of the
final accuracies, and the seconds of training.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("device", "workers")
RECIPE = """--num_tasks 2 --encoder resnet9 --encoder_width 0.25
    --method mocov2plus --proj_hidden_dim 512 --output_dim 128 --queue_size 1024 --temperature 0.2
    --lr 0.05 --classifier_lr 0.02 --online_eval_classifier_lr 0.02 --weight_decay 1e-5 --scheduler cosine
    --min_scale 0.2 --brightness 0.4 --contrast 0.4 --saturation 0.2 --hue 0.1 --solarization_prob 0 0.2
    --classifier_layers 1000 --distiller contrastive --distiller_classifier soft_label
    --classifier_distill_lamb 2 --classifier_distill_no_predictor True
    --replay True --replay_proportion 0.01 --replay_batch_size 32
    --online_evaluation True --online_eval_batchnorm frozen --num_workers 2"""
DIGITS = "--dataset digits --batch_size 64"
FOLDERS = "--dataset custom --size 16 --batch_size 256 --mean 0.4914 0.4822 0.4465 --std 0.2470 0.2435 0.2616"


def main(argv: list[str]) -> int:
    """Print a table, or with --json one object."""
    parser = argparse.ArgumentParser(description="views made on the device and in loader processes")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--data_dir", help="folder with train/<class>/ and val/<class>/ [the digits]")
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 6, 7], help="two or more [5 6 7]")
    parser.add_argument("--epochs", type=int, default=1, help="of each of the two tasks [1]")
    options = parser.parse_args(argv)
    data = f"{FOLDERS} --data_dir {options.data_dir}" if options.data_dir else DIGITS
    found: dict[str, list[dict[str, float]]] = {place: [] for place in PLACES}
    for seed in options.seeds:
        for place in PLACES:  # in turns, as the machine may change its pace
            flags = f"{data} {RECIPE} --max_epochs {options.epochs} --seed {seed} --augment_on {place}"
            found[place].append(train(flags.split()))
    table = {name: {place: summary(found[place], name) for place in PLACES} for name in found["device"][0]}
    if options.json:
        print(
            json.dumps({"seeds": options.seeds, "epochs": options.epochs, "runs": found, "mean_and_deviation": table})
        )
        return 0
    print(f"{'':<22}" + "".join(f"{place:>22}" for place in PLACES))
    for name, sides in table.items():
        print(f"{name:<22}" + "".join(f"{average:>14.3f} ± {spread:.3f}" for average, spread in sides.values()))
    return 0


def summary(runs: list[dict[str, float]], name: str) -> tuple[float, float]:
    """Mean and standard deviation over the seeds."""
    values = [run[name] for run in runs]
    return mean(values), stdev(values)


def train(flags: list[str]) -> dict[str, float]:
    """Run an experiment and read what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        place = ["--base_experiment_dir", folder, "--experiment_dir", "run"]
        command = [sys.executable, "main_continual.py", *place, *flags]
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        results: dict[str, Any] = json.loads(Path(folder, "run", "results.json").read_text())
        with Path(folder, "run", "task1", "metrics.csv").open() as file:
            losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]
    finals = {f"{head} final": found["final_accuracy"] for head, found in results["heads"].items()}
    return {"last loss": losses[-1], **finals, "seconds": sum(results["seconds_per_task"])}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
