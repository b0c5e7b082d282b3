"""One task: where everything is built, trained and judged, in a process of its own."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from contextlib import ExitStack, redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from kaizen.args import Args, UsageError
from kaizen.building import (
    batch_sizes,
    build_judge,
    build_learner,
    build_trainer,
    share_out,
    training_loaders,
)
from kaizen.checkpoint import OPTIONAL, load_task, new_parts, restore, save_task
from kaizen.cli import args_from, image_size
from kaizen.commands import reason_of
from kaizen.compiling import compile_networks
from kaizen.data.images import ImageSet
from kaizen.data.loaders import EVALUATION_BATCH, Batch, evaluation_loader
from kaizen.devices import leads, memory_told
from kaizen.disk import disk_told
from kaizen.embedding import draw_embedding
from kaizen.experiment import Experiment
from kaizen.features import Features, features_by_batch
from kaizen.guard import NotFinite, last_good
from kaizen.knn import knn_correct
from kaizen.learner import ContinualLearner
from kaizen.loggers import log_task
from kaizen.logs import mean_by_task
from kaizen.memory import remember, remembered
from kaizen.metrics import has_baseline
from kaizen.page.report import write_report
from kaizen.plan import Data, open_data, probe_indices
from kaizen.precision import evaluation_precision, float32
from kaizen.ranks import share_of
from kaizen.report import draw_plots, write
from kaizen.saving import Saved, Saving, Stop, Stopped
from kaizen.sharing import Abandoned, assemble, together
from kaizen.states import note
from kaizen.trained_on import TrainedOn


def run_task(experiment: Experiment, task_idx: int, stop: Stop | None = None) -> None:
    """Train one task from the end of the one before, judge it on all tasks and write down the results.

    A task that was stopped goes on from the newest checkpoint inside it; one that is trained is judged.

    Args:
        experiment: the folder and the flags.
        task_idx: the task.
        stop: what asks for the end before that.

    Raises:
        UsageError: the data or the checkpoint of the task before are missing or unfit.
        Stopped: `stop` has asked for it; what is trained is saved.
    """
    args, stop = args_from(experiment.flags), stop or Stop()
    data = open_data(args)
    experiment.check_images(data.skipped.names)
    pl.seed_everything(args.seed + task_idx, workers=True, verbose=False)
    learner = build_learner(args, data.num_classes, task_idx)
    learner.task_idx, learner.num_images, learner.test_tasks = task_idx, len(data.train), data.split.test
    folder, end = experiment.make_task_folder(task_idx), experiment.checkpoint(task_idx)
    take_up(learner, args, experiment, task_idx)
    saved = Saved(folder / "progress")
    trained = end.exists()
    saving = Saving(saved, stop, args.checkpoint_every_n_steps, None if trained else saved.newest())
    keep = None if trained else saving.rows
    trainer = build_trainer(args, folder, experiment.name, task_idx, keep, saving)
    judging = build_judge(args) if trainer.world_size > 1 else trainer
    learner.guard.last_good = saving.path or last_good(experiment, task_idx)
    device = trainer.strategy.root_device
    if args.augment_on == "device" and device.type == "cuda":
        data = replace(data, train=kept_on(device, data.train, free=torch.cuda.mem_get_info(device)[0]))
    test = None if args.no_labels else test_images(args, data)
    if not trainer.is_global_zero:
        if not trained:
            train(trainer, learner, experiment, data, test, task_idx, saving)
        return
    baseline = judge_before(judging, learner, experiment, data, test, task_idx)
    if trained:
        seconds = take_up_end(learner, end)
        saved.clear()
    else:
        seconds = train(trainer, learner, experiment, data, test, task_idx, saving)
    stop.obey()
    accuracy = judge(judging, learner, data, test, task_idx)
    if args.auto_umap and test is not None:
        draw_embedding(test_features(learner, data), data, args.seed, experiment.folder, task_idx)
    experiment.finish_task(task_idx, accuracy, baseline, round(seconds, 1))
    results = write(experiment.folder)
    if results["tasks_done"] == results["num_tasks"]:
        draw_plots(results, experiment.folder)
    write_report(experiment.folder)
    log_task(trainer.loggers, args, experiment.folder, results, task_idx)


def judge_before(
    trainer: pl.Trainer,
    learner: ContinualLearner,
    experiment: Experiment,
    data: Data,
    test: DataLoader[Batch] | None,
    task_idx: int,
) -> dict[str, list[float]] | None:
    """Judge what the task starts from, where nobody has.

    That is the untrained network of the first task, or what --pretrained_model brings along, which is written down as
    the end of the task before.

    Returns:
        For the first task head -> accuracy in 0-1 on the test images of each task: the baseline. Else None.
    """
    if task_idx > 0 and experiment.done(task_idx - 1):
        return None
    source = learner.args.online_evaluation_training_data_source
    if task_idx > 0:
        experiment.finish_task(task_idx - 1, judge(trainer, learner, data, test, task_idx - 1), None, 0.0)
        return None
    found = judge(trainer, learner, data, test, 0, has_baseline("knn", source))
    return {head: row for head, row in found.items() if has_baseline(head, source)}


def train(
    trainer: pl.Trainer,
    learner: ContinualLearner,
    experiment: Experiment,
    data: Data,
    test: DataLoader[Batch] | None,
    task_idx: int,
    saving: Saving,
) -> float:
    """Train to the end of the task, from where it was stopped if it was, and save that end.

    Returns:
        Seconds of training.
    """
    args = learner.args
    learner.to(trainer.strategy.root_device)
    replay = remember(experiment, learner, data, task_idx) if trainer.is_global_zero else None
    assemble(trainer)
    if replay is None:
        replay = remembered(experiment, args, data, task_idx)
    rank, world = trainer.global_rank, trainer.world_size
    loaders = training_loaders(args, data, task_idx, replay, rank, world)
    if world > 1:
        share_out(learner, batch_sizes(loaders), rank, world, args.sync_batchnorm)
    saving.go_on(loaders)
    if args.compile:
        compile_networks(learner)
    judged = test if learner.classifier is not None or learner.probes else None  # k nearest neighbours vote at the end
    if judged is not None and world > 1:
        judged = test_images(args, data, share_of(len(data.test), rank, world))
    with saving.stop.awaited_by_training():
        with together(trainer):
            trainer.fit(learner, loaders, judged, ckpt_path=saving.path, weights_only=True)
        learner.check_finite()
        if world > 1:
            learner.looked_after = -1  # of the test images, this process has seen a part
        if trainer.is_global_zero:
            about = TrainedOn.of(data, task_idx)
            save_task(learner, experiment.checkpoint(task_idx), task_idx, experiment.flags, saving.seconds, about)
            saving.saved.clear()
    return saving.seconds


def test_images(args: Args, data: Data, part: slice = slice(None)) -> DataLoader[Batch]:
    """The test images, or those of a part, in order."""
    chosen = torch.arange(len(data.test))[part]
    return evaluation_loader(data.test, chosen, image_size(args), EVALUATION_BATCH, args.num_workers)


def kept_on(device: torch.device, images: ImageSet, free: int) -> ImageSet:
    """Images in the memory of a device, so that none have to get there in training, if it has the room.

    Args:
        device: where views are made.
        images: those in files stay there.
        free: memory of the device, in bytes; three quarters of it are left to training.
    """
    return images.to(device) if images.nbytes <= free // 4 else images


def take_up(learner: ContinualLearner, args: Args, experiment: Experiment, task_idx: int) -> None:
    """Load the weights of the task before, or of --pretrained_model, and keep a frozen copy from the second task on."""
    before = experiment.checkpoint(task_idx - 1)
    if task_idx > 0 and (before.exists() or not args.pretrained_model):
        restore(learner, load_task(before, "--experiment_dir"), before, "--experiment_dir", new_parts(task_idx))
    elif args.pretrained_model:
        path = Path(args.pretrained_model)
        anew = restore(learner, load_task(path, "--pretrained_model"), path, "--pretrained_model", OPTIONAL)
        if anew:
            note(experiment.make_task_folder(task_idx), f"--pretrained_model {path}: not taken over: {', '.join(anew)}")
    if task_idx > 0:
        learner.keep_teacher()


def take_up_end(learner: ContinualLearner, path: Path) -> float:
    """Load the end of the task itself, which was stopped before it was judged; the seconds that it was trained for."""
    checkpoint = load_task(path, "--experiment_dir")
    restore(learner, checkpoint, path, "--experiment_dir", ())
    learner.looked_after = -1
    return float(checkpoint.get("seconds", 0.0))


def judge(
    trainer: pl.Trainer,
    learner: ContinualLearner,
    data: Data,
    test: DataLoader[Batch] | None,
    task_idx: int,
    voting: bool = True,
) -> dict[str, list[float]]:
    """Accuracy in 0-1 of every head on every task's test images, k nearest neighbours among them if `voting`.

    No head where there are no test images.
    """
    args = learner.args
    if test is None:
        return {}
    if learner.looked_after != trainer.global_step:  # else the last epoch has just ended with such a look
        trainer.validate(learner, test, verbose=False)
    learner.to(trainer.strategy.root_device)  # Lightning has put it back on the CPU
    accuracy = learner.accuracy_by_task()
    if voting and not args.disable_knn_eval:
        voters = evaluation_loader(
            data.train,
            probe_indices(args, data, task_idx),
            image_size(args),
            EVALUATION_BATCH,
            args.num_workers,
        )
        with evaluation_precision(args.precision, learner.device):  # as the test images were seen
            bank = features_by_batch(learner.method.encoder, learner.eval_view, voters, learner.device)
            correct = knn_correct(bank, test_features(learner, data), data.num_classes, args.knn_k)
        accuracy["knn"] = mean_by_task(correct, data.split.test)
    return accuracy


def test_features(learner: ContinualLearner, data: Data) -> Features:
    """What the encoder said of all test images when the learner last looked at them."""
    everything = torch.arange(len(data.test), device=learner.device)
    return Features(float32(torch.cat(learner.test_feats)), data.test.targets.to(learner.device), everything)


def main(argv: list[str]) -> int:
    """`python -m kaizen.task FOLDER TASK`."""
    for name in ("pytorch_lightning", "lightning_fabric"):  # whose hints are about code, not about runs
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
    stop, first = Stop(), True
    try:
        folder = Path(argv[0])
        with stop.listening(), disk_told(f"--experiment_dir {folder.name}", folder), ExitStack() as silence:
            experiment = Experiment.open(folder)
            args = args_from(experiment.flags)
            if not (first := leads(args)):
                nowhere = silence.enter_context(Path(os.devnull).open("w"))
                silence.enter_context(redirect_stdout(nowhere))  # the leading process says the same
            with memory_told(args):
                run_task(experiment, int(argv[1]), stop)
    except Abandoned as abandoned:
        if first:  # the other may have had no time to say why
            print(f"a process that shared the steps has ended: exit status {abandoned.status}", file=sys.stderr)
        return abandoned.status
    except UsageError as error:
        if isinstance(error, NotFinite) and not first:  # all find it in the same step
            return 2
        print(f"error: {reason_of(error)}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        return stopped.status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
