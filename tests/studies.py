"""Folders of made-up experiments to compare, written as the training writes them."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from kaizen.args import core_flags
from kaizen.files import write_json

ARMS: dict[str, dict[str, Any]] = {
    "kaizen": {"replay": True, "no_distill": False, "feature_extractor_distill_lamb": 1.0},
    "no_replay": {"replay": False, "no_distill": False, "feature_extractor_distill_lamb": 1.0},
    "no_distill": {"replay": True, "no_distill": True},
    "finetune": {"replay": False, "no_distill": True},
}
OWN: dict[str, dict[str, Any]] = {"simclr": {"temperature": 0.2}, "byol": {"pred_hidden_dim": 8}}


def matrix_of(seed: int | str, level: float, num_tasks: int) -> list[list[float]]:
    """Accuracies that fade: a task is learned at about 0.2 + `level`."""
    noise = Random(seed)
    rows = [
        [0.0 if j > i else (0.2 + level) * 0.85 ** (i - j) + noise.uniform(-0.04, 0.04) for j in range(num_tasks)]
        for i in range(num_tasks)
    ]
    return [[min(1.0, max(0.0, value)) for value in row] for row in rows]


def make_run(
    folder: Path,
    method: str = "simclr",
    seed: int = 5,
    num_tasks: int = 3,
    done: int | None = None,
    heads: tuple[str, ...] = ("classifier", "knn"),
    level: float = 0.3,
    start: str = "2026-01-02T03:04:05.000+00:00",
    **flags: Any,
) -> Path:
    """Write one experiment; `flags` are those that are not as by default."""
    known = {item.name: item.default for item in core_flags()}
    given = {"seed": seed, "split_seed": seed, "num_tasks": num_tasks, "dataset": "digits", "method": method}
    all_flags = {**known, **OWN.get(method, {}), **given, **flags}
    about = {
        "name": all_flags["name"],
        "flags": all_flags,
        "tasks": [[2 * task, 2 * task + 1] for task in range(num_tasks)],
        "task_names": [f"{2 * task}, {2 * task + 1}" for task in range(num_tasks)],
        "seeds": {"seed": all_flags["seed"], "split_seed": all_flags["split_seed"]},
        "versions": {"torch": "2"},
        "skipped_images": [],
    }
    folder.mkdir(parents=True)
    write_json(folder / "experiment.json", about)
    matrices = {head: matrix_of(f"{method} {flags} {seed} {head}", level, num_tasks) for head in heads}
    for task in range(num_tasks if done is None else done):
        place = folder / f"task{task}"
        place.mkdir()
        rows = {head: matrix[task] for head, matrix in matrices.items()}
        baseline = {"classifier": [0.1] * num_tasks} if task == 0 and "classifier" in heads else None
        write_json(place / "accuracy.json", {"heads": rows, "baseline": baseline, "seconds": 1.0})
        ended = {"state": "done", "max_epochs": all_flags["max_epochs"], "exit_status": 0, "signal": None}
        times = {"start": start, "end": start, "seconds": 1.0, "starts": 1, "versions": {}}
        write_json(place / "state.json", {**ended, **times})
    return folder


def make_study(
    folder: Path,
    methods: tuple[str, ...] = ("simclr", "byol"),
    arms: tuple[str, ...] = ("kaizen", "finetune"),
    seeds: tuple[int, ...] = (5, 6, 7),
    named: bool = False,
    **more: Any,
) -> Path:
    """Write an experiment for each method, arm and seed; named: --name says the arm."""
    for i, method in enumerate(methods):
        for j, arm in enumerate(arms):
            for seed in seeds:
                flags = {**ARMS.get(arm, {}), **more, **({"name": arm} if named else {})}
                make_run(folder / f"{method}-{arm}-seed{seed}", method, seed, level=0.6 - 0.05 * i - 0.1 * j, **flags)
    return folder
