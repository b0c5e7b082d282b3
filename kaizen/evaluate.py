"""Judge what was trained: every task's model of an experiment, or one checkpoint, also of the published code.

python -m kaizen.evaluate --experiment experiments/NAME --protocol linear
python -m kaizen.evaluate --pretrained_feature_extractor MODEL.ckpt --dataset cifar100 --num_tasks 5 --lr 3.0
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from kaizen.args import Args, DataMissing, UsageError
from kaizen.building import build_learner
from kaizen.checkpoint import load_task
from kaizen.cli import args_from
from kaizen.commands import status_of
from kaizen.dashboards import log_checkpoint, log_evaluation
from kaizen.devices import check_devices
from kaizen.disk import disk_told
from kaizen.experiment import Experiment
from kaizen.files import read_json, write_json
from kaizen.judge import Judge, Weights
from kaizen.logs import mean_by_task
from kaizen.metrics import has_baseline
from kaizen.notices import held_back_notice
from kaizen.page.report import write_report
from kaizen.plan import Data, load_data
from kaizen.protocols import (
    EvaluationFlags,
    Protocol,
    build_protocol,
    of_checkpoint,
    of_experiment,
    read_request,
    unused_flags,
)
from kaizen.report import collect, draw_plots, show, show_one, write
from kaizen.task import take_up
from kaizen.wandb_run import check_wandb


def main(argv: list[str]) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    return status_of(run, argv)


def run(argv: list[str]) -> None:
    """Read the flags, then judge the one or the other."""
    asked, args = read_request(argv)
    if unused := unused_flags(asked, args):
        print(f"warning: not used by an evaluation: {', '.join('--' + name for name in unused)}")
    if not args.dry_run:
        check_wandb(args)
    if asked.experiment is not None:
        evaluate_experiment(asked, args)
    else:
        evaluate_checkpoint(asked, args)


def announce(model: Args, *lines: str) -> None:
    """Say what is judged, and how; and on what, where that is not the test images."""
    print(*lines, *([held_back_notice(model.held_back)] if model.held_back is not None else []), sep="\n", flush=True)


# An experiment.


def evaluate_experiment(asked: EvaluationFlags, args: Args) -> None:
    """Judge the end of each task, write the rows into the experiment, and show all its results.

    Raises:
        UsageError: the experiment, a checkpoint or the data are missing or unfit.
    """
    folder = Path(asked.experiment or "")
    if not (folder / "experiment.json").is_file():
        raise UsageError(f"--experiment {folder}: holds no experiment.json; give the folder of an experiment")
    experiment = Experiment.open(folder)
    model, results = of_experiment(experiment.flags, args), collect(folder)
    protocol = build_protocol(asked, args, model, model.method)
    tasks = chosen_tasks(experiment, model, asked.tasks, results["tasks_done"])
    announce(model, f"experiment {folder}, task {', '.join(map(str, tasks))}", str(protocol))
    if args.dry_run:
        return
    check_devices(model)
    check_settings(experiment, protocol, set(range(results["tasks_done"])) - set(tasks))
    data = load_data(model)
    if data.split.classes != results["tasks"]:
        raise UsageError(f"--data_dir {model.data_dir}: its tasks are not those of {folder}; use the same data")
    experiment.check_images(data.skipped.names)
    data.skipped.tell()
    judge = Judge(model, data, protocol)
    with disk_told(f"--experiment {folder}", folder):
        for task in tasks:
            judge_task(experiment, judge, task)
        results = write(folder)
        draw_plots(results, folder)
        page = write_report(folder)
    show(results)
    log_evaluation(args, model, folder, {"protocol": protocol.name, **protocol.settings()}, results)
    print(f"results in {folder}/results.json, results.csv and plots/; open {page}")


def chosen_tasks(experiment: Experiment, model: Args, wanted: list[int] | None, finished: int) -> list[int]:
    """The tasks to judge after: those asked for, or all that are finished and have a model.

    Raises:
        UsageError: a task that is asked for is not there, or none is.
    """
    for task in wanted or []:
        if task >= finished:
            raise UsageError(
                f"--tasks {task}: is not finished in {experiment.folder}; give some of 0 to {finished - 1}"
            )
    tasks = sorted(set(range(finished) if wanted is None else wanted))
    without = [task for task in tasks if not model_after(experiment, model, task).is_file()]
    if without and (wanted is not None or without == tasks):
        raise UsageError(f"--experiment {experiment.folder}: the checkpoint of task {without[0]} is missing")
    for task in without:
        print(f"task {task} has no checkpoint and is left out")
    return [task for task in tasks if task not in without]


def model_after(experiment: Experiment, model: Args, task: int) -> Path:
    """The checkpoint of a task; that of the one before an experiment's first task may come from elsewhere."""
    path = experiment.checkpoint(task)
    if not path.exists() and model.pretrained_model and task == model.task_idx - 1:
        return Path(model.pretrained_model)
    return path


def check_settings(experiment: Experiment, protocol: Protocol, others: set[int]) -> None:
    """Raises UsageError where the rows of other tasks were made with other settings: they would share no matrix."""
    for task in sorted(others):
        path = experiment.evaluation(task, protocol.head)
        if not path.exists():
            continue
        before, now = read_json(path)["settings"], protocol.settings()
        if differing := [name for name in now if before.get(name) != now[name]]:
            listed = ", ".join(f"--{name} {before.get(name)}" for name in differing)
            raise UsageError(
                f"--tasks: task {task} was evaluated with {listed}; use the same, or evaluate all tasks without --tasks"
            )


def judge_task(experiment: Experiment, judge: Judge, task: int) -> None:
    """Judge the end of a task, with the first one also the untrained network where it has a baseline; keep the rows."""
    path = model_after(experiment, judge.args, task)
    kept = experiment.task_folder(task) / "features"
    rows = accuracies(judge, Weights.load(path, "--experiment", kept), task, f"task {task}")
    baseline: dict[str, list[float]] = {}
    comparable = has_baseline(judge.protocol.name, judge.protocol.labels)
    if task == 0 and comparable and experiment.checkpoint(0).exists():
        baseline = accuracies(judge, untrained(experiment, judge), 0, "untrained")
    before = read_json(experiment.accuracy(task))["heads"]
    for head, row in rows.items():
        experiment.write_evaluation(task, head, row, baseline.get(head), judge.protocol.settings())
        gap = max((abs(a - b) for a, b in zip(row, before.get(head, ()), strict=False)), default=None)
        note = "" if gap is None else f"  (the training found {'the same' if gap == 0 else f'up to {gap:.4f} else'})"
        print(f"task {task}: {head} {' '.join(f'{value:.3f}' for value in row)}{note}", flush=True)


def untrained(experiment: Experiment, judge: Judge) -> Weights:
    """The network that the first task started from, made as in its training."""
    args = args_from(experiment.flags)
    pl.seed_everything(args.seed, workers=True, verbose=False)
    learner = build_learner(args, judge.data.num_classes, 0)
    take_up(learner, args, experiment, 0)
    kept = experiment.task_folder(0) / "features" / "untrained"
    key = f"untrained, seed {args.seed}, {args.pretrained_model}"
    return Weights(learner.state_dict(), key, experiment.folder, "--experiment", kept)


def accuracies(judge: Judge, weights: Weights, task: int, title: str) -> dict[str, list[float]]:
    """Head -> accuracy in 0-1 on the test images of each task."""
    found = judge.correct(weights, task, title)
    return {head: mean_by_task(correct, judge.data.split.test) for head, correct in found.items()}


# One checkpoint.


def evaluate_checkpoint(asked: EvaluationFlags, args: Args) -> None:
    """Judge one model, print its accuracies and, with --out, write them to a file.

    Raises:
        UsageError: the checkpoint or the data are missing or unfit.
    """
    if asked.tasks is not None:
        raise UsageError("--tasks: goes with --experiment; of one checkpoint, --task_idx names its task")
    path, flag = asked.checkpoint(args)
    out = None if asked.out is None else Path(asked.out)
    if out is not None and out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; name a folder")
    flags: dict[str, Any] = {}
    if args.dry_run and not path.is_file():
        print(f"not checked: {flag} {path}: not on this machine")
    else:
        checkpoint = load_task(path, flag)
        flags = {**checkpoint["flags"], "task_idx": checkpoint["task_idx"]} if checkpoint["flags"] else {}
    model = of_checkpoint(flags, args)
    protocol = build_protocol(asked, args, model, args.method or flags.get("method", ""))
    announce(
        model,
        f"checkpoint     {path}, encoder {model.encoder}",
        f"data           {model.dataset}, {model.split_strategy} split, {model.num_tasks} tasks",
        f"protocol       {protocol}",
    )
    data = open_if_there(model)
    if args.dry_run or data is None:
        return
    check_devices(model)
    judge = Judge(model, data, protocol)
    kept = None if out is None else out / "features"
    with disk_told(f"--out {out}", out or Path.cwd()):
        found = judge.correct(Weights.load(path, flag, kept), model.task_idx, path.name)
        results = {head: summary(correct, data) for head, correct in found.items()}
        for head, result in results.items():
            show_one(head, result["accuracy_by_task"], result["accuracy_over_images"], data.task_names)
            if out is not None:
                about = {"checkpoint": str(path), "settings": protocol.settings(), "task_names": data.task_names}
                write_json(out / f"{head}.json", {"head": head, **result, **about})
    settings = {"protocol": protocol.name, "checkpoint": str(path), **protocol.settings()}
    log_checkpoint(args, model, out or Path.cwd(), settings, results)


def summary(correct: Tensor, data: Data) -> dict[str, Any]:
    """Accuracies in 0-1: on each task, their mean, and over all test images, whatever task they belong to."""
    row = mean_by_task(correct, data.split.test)
    images = torch.cat(data.split.test).unique()
    return {
        "accuracy_by_task": row,
        "mean_accuracy_over_tasks": fmean(row),
        "accuracy_over_images": float(correct[images].float().mean()),
    }


def open_if_there(model: Args) -> Data | None:
    """The data; None in a dry run without them."""
    try:
        data = load_data(model)
        data.skipped.tell()
        return data
    except DataMissing as error:
        if not model.dry_run:
            raise
        print(f"not checked: {error}")
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
