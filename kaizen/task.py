"""One task: where everything is built, trained and judged, in a process of its own."""

from __future__ import annotations

import logging
import signal
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import nn
from torch.utils.data import DataLoader

from kaizen.args import Args, UsageError
from kaizen.checkpoint import OPTIONAL, load_task, new_parts, restore, save_task
from kaizen.cli import (
    args_from,
    classifier_distiller,
    feature_distiller,
    image_size,
    per_view,
    probes_momentum,
    small_crop_size,
)
from kaizen.compiling import compile_networks
from kaizen.data.images import ImageSet, RandomCrop
from kaizen.data.loaders import EVALUATION_BATCH, Batch, evaluation_loader, training_loader
from kaizen.data.views import EvalTransform, ReadyViews, ViewOptions, Views, ViewTransform
from kaizen.devices import gpu_index, uses_cuda
from kaizen.distillers import CLASSIFIER, FEATURES, Distiller, build_distiller
from kaizen.embedding import draw_embedding
from kaizen.experiment import Experiment
from kaizen.features import Features, extract_features
from kaizen.guard import last_good
from kaizen.knn import knn_correct
from kaizen.learner import ContinualLearner
from kaizen.loggers import build_loggers, log_results
from kaizen.logs import mean_by_task
from kaizen.memory import remember
from kaizen.methods import build_method
from kaizen.models.encoders import build_encoder
from kaizen.models.heads import mlp
from kaizen.plan import Data, active_terms, channel_statistics, open_data, probe_batch_size, probe_indices
from kaizen.progress import Progress
from kaizen.report import draw_plots, write


def run_task(experiment: Experiment, task_idx: int) -> None:
    """Train one task from the end of the one before, judge it on all tasks and write down the results.

    Raises:
        UsageError: the data or the checkpoint of the task before are missing or unfit.
    """
    args = args_from(experiment.flags)
    data = open_data(args)
    experiment.check_images(data.skipped.names)
    pl.seed_everything(args.seed + task_idx, workers=True, verbose=False)
    learner = build_learner(args, data.num_classes, task_idx)
    learner.num_images, learner.test_tasks = len(data.train), data.split.test
    take_up(learner, args, experiment, task_idx)
    learner.guard.last_good = last_good(experiment, task_idx)
    if args.compile:
        compile_networks(learner)
    folder = experiment.task_folder(task_idx)
    trainer = build_trainer(args, folder, experiment.name, task_idx)
    device = trainer.strategy.root_device
    if args.augment_on == "device" and device.type == "cuda":
        data = replace(data, train=kept_on(device, data.train, free=torch.cuda.mem_get_info(device)[0]))
    test = None
    if not args.no_labels:
        everything = torch.arange(len(data.test))
        test = evaluation_loader(data.test, everything, image_size(args), EVALUATION_BATCH, args.num_workers)
    unjudged = task_idx == 0 or not experiment.done(task_idx - 1)
    before = judge(trainer, learner, data, test, max(0, task_idx - 1)) if unjudged else None
    if before is not None and task_idx > 0:
        experiment.finish_task(task_idx - 1, before, None, 0.0)  # what --pretrained_model brings along

    learner.to(device)
    replay = remember(experiment, learner, data, task_idx)
    started = time.monotonic()
    judged = test if learner.classifier is not None or learner.probes else None  # k nearest neighbours vote at the end
    trainer.fit(learner, training_loaders(args, data, task_idx, replay), judged)
    seconds = time.monotonic() - started
    learner.check_finite()
    accuracy = judge(trainer, learner, data, test, task_idx)
    if args.auto_umap and test is not None:
        draw_embedding(test_features(learner, data), data, args.seed, experiment.folder, task_idx)
    save_task(learner, experiment.checkpoint(task_idx), task_idx, experiment.flags)
    experiment.finish_task(task_idx, accuracy, before if task_idx == 0 else None, round(seconds, 1))
    results = write(experiment.folder)
    if results["tasks_done"] == results["num_tasks"]:
        draw_plots(results, experiment.folder)
    log_results(trainer.loggers, results, experiment.folder)


def kept_on(device: torch.device, images: ImageSet, free: int) -> ImageSet:
    """Images in the memory of a device, so that none have to get there in training, if it has the room.

    Args:
        device: where views are made.
        images: those in files stay there.
        free: memory of the device, in bytes; three quarters of it are left to training.
    """
    return images.to(device) if images.nbytes <= free // 4 else images


def build_learner(args: Args, num_classes: int, task_idx: int) -> ContinualLearner:
    """The networks, heads and views of one task, with fresh weights."""
    encoder, feature_dim = build_encoder(
        args.encoder, image_size(args), args.stem_padding, args.encoder_width, args.recompute
    )
    method = build_method(args.method, encoder, feature_dim, args.method_flags)
    classifier = mlp([feature_dim, *args.classifier_layers, num_classes]) if args.classifier_training else None
    probes = nn.ModuleDict()
    for name, wanted in (("online", args.online_evaluation), ("momentum_online", probes_momentum(args))):
        if wanted:
            probes[name] = mlp([feature_dim, *args.online_eval_classifier_layers, num_classes])
    terms = active_terms(args, task_idx)

    def distiller(term: str, kind: type[Distiller] | None, prefixes: tuple[str, ...], dim: int) -> Distiller | None:
        if kind is None or term not in terms:
            return None
        return build_distiller(kind, prefixes, dim, args.method_flags, method.teaching_prototypes)

    views, probe_view = view_makers(args) if args.augment_on == "device" else (ReadyViews(), nn.Identity())
    return ContinualLearner(
        args,
        method,
        classifier,
        probes,
        distiller("distill_features", feature_distiller(args), FEATURES, method.output_dim),
        distiller("distill_classifier", classifier_distiller(args), CLASSIFIER, num_classes),
        views=views,
        probe_view=probe_view,
        eval_view=EvalTransform(image_size(args), *channel_statistics(args)),
    )


def view_makers(args: Args) -> tuple[nn.Module, nn.Module]:
    """What makes the training views of uint8 images, and the one view that probes train on."""
    mean, std = channel_statistics(args)
    return Views(view_options(args)), ViewTransform(ViewOptions(image_size(args), 0, 0, 0, 0, mean, std, gray_prob=0))


def view_options(args: Args) -> list[ViewOptions]:
    """What each view may do to an image: the full crops, then the small ones, which do as the first full one does."""
    mean, std = channel_statistics(args)
    columns = {
        "brightness": args.brightness,
        "contrast": args.contrast,
        "saturation": args.saturation,
        "hue": args.hue,
        "jitter_prob": args.color_jitter_prob,
        "gray_prob": args.gray_scale_prob,
        "blur_prob": args.gaussian_prob,
        "solarize_prob": args.solarization_prob,
        "min_scale": args.min_scale,
        "max_scale": args.max_scale,
        "hflip_prob": args.horizontal_flip_prob,
    }
    rows = zip(*(per_view(args, values) for values in columns.values()), strict=True)
    full = [ViewOptions(image_size(args), mean=mean, std=std, **dict(zip(columns, row, strict=True))) for row in rows]
    small = replace(
        full[0],
        size=small_crop_size(args),
        min_scale=args.small_crop_min_scale,
        max_scale=args.small_crop_max_scale,
    )
    return full + [small] * (args.num_small_crops if args.multicrop else 0)


def take_up(learner: ContinualLearner, args: Args, experiment: Experiment, task_idx: int) -> None:
    """Load the weights of the task before, or of --pretrained_model, and keep a frozen copy from the second task on."""
    before = experiment.checkpoint(task_idx - 1)
    if task_idx > 0 and (before.exists() or not args.pretrained_model):
        restore(learner, load_task(before, "--experiment_dir"), before, "--experiment_dir", new_parts(task_idx))
    elif args.pretrained_model:
        path = Path(args.pretrained_model)
        anew = restore(learner, load_task(path, "--pretrained_model"), path, "--pretrained_model", OPTIONAL)
        if anew:
            print(f"--pretrained_model {path}: not taken over: {', '.join(anew)}")
    if task_idx > 0:
        learner.keep_teacher()


def training_loaders(args: Args, data: Data, task_idx: int, replay: torch.Tensor) -> dict[str, DataLoader[Batch]]:
    """Task, replay and probe images; Lightning cycles the shorter ones until the longest is through.

    Args:
        args, data, task_idx: the task.
        replay: indices of the training images to replay.
    """
    crops = [RandomCrop(view.size, view.min_scale, view.max_scale) for view in view_options(args)]
    views, probe_view = view_makers(args) if args.augment_on == "workers" else (None, None)

    def loader(
        indices: torch.Tensor,
        crops: list[RandomCrop],
        transform: nn.Module | None,
        batch_size: int,
        stream: int,
        limit: int | None = None,
        targets: torch.Tensor = data.visible_targets,
    ) -> DataLoader[Batch]:
        seed = args.seed * 31 + task_idx * 7 + stream
        workers = args.num_workers
        return training_loader(data.train, indices, crops, batch_size, workers, seed, limit, targets, transform)

    loaders = {"task": loader(data.split.train[task_idx], crops, views, args.batch_size, 0)}
    if len(replay):
        loaders["replay"] = loader(replay, crops, views, args.replay_batch_size, 1)
    if args.online_evaluation:
        probe = probe_indices(args, data, task_idx)
        one_crop = [RandomCrop(image_size(args), 0.08, 1.0)]
        steps = max(map(len, loaders.values()))  # probes follow; they never make an epoch longer
        probe_batch = probe_batch_size(args, len(probe), steps)
        loaders["online"] = loader(probe, one_crop, probe_view, probe_batch, 2, steps, data.train.targets)
    return loaders


def build_trainer(args: Args, folder: Path, name: str, task_idx: int) -> pl.Trainer:
    """Lightning's trainer on the GPU that --gpus names, or on the CPU."""
    cuda = uses_cuda(args)
    precision = {"16": "16-mixed" if cuda else "32-true", "bf16": "bf16-mixed", "32": "32-true"}[args.precision]
    return pl.Trainer(
        accelerator="gpu" if cuda else "cpu",
        devices=[gpu_index(args)] if cuda else 1,
        precision=precision,  # type: ignore[arg-type]
        max_epochs=args.max_epochs,
        accumulate_grad_batches=args.accumulate_grad_batches,
        check_val_every_n_epoch=args.check_val_every_n_epoch,
        num_sanity_val_steps=0,
        logger=build_loggers(args, folder, name, task_idx),
        callbacks=[Progress(f"task {task_idx}", args.max_epochs)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def judge(
    trainer: pl.Trainer, learner: ContinualLearner, data: Data, test: DataLoader[Batch] | None, task_idx: int
) -> dict[str, list[float]]:
    """Accuracy in 0-1 of every head on every task's test images; no head where there are none."""
    args = learner.args
    if test is None:
        return {}
    if learner.looked_after != trainer.global_step:  # else the last epoch has just ended with such a look
        trainer.validate(learner, test, verbose=False)
    learner.to(trainer.strategy.root_device)  # Lightning has put it back on the CPU
    accuracy = learner.accuracy_by_task()
    if not args.disable_knn_eval:
        voters = evaluation_loader(
            data.train,
            probe_indices(args, data, task_idx),
            image_size(args),
            EVALUATION_BATCH,
            args.num_workers,
        )
        bank = extract_features(learner.method.encoder, learner.eval_view, voters, learner.device)
        correct = knn_correct(bank, test_features(learner, data), data.num_classes, args.knn_k)
        accuracy["knn"] = mean_by_task(correct, data.split.test)
    return accuracy


def test_features(learner: ContinualLearner, data: Data) -> Features:
    """What the encoder said of all test images when the learner last looked at them."""
    everything = torch.arange(len(data.test), device=learner.device)
    return Features(torch.cat(learner.test_feats), data.test.targets.to(learner.device), everything)


def main(argv: list[str]) -> int:
    """`python -m kaizen.task FOLDER TASK`."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)  # its hints are about code, not about runs
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
    try:
        run_task(Experiment.open(Path(argv[0])), int(argv[1]))
    except UsageError as error:
        reason = str(error).splitlines()[-1]  # a loader process puts its traceback before it
        print(f"error: {reason.removeprefix('kaizen.args.UsageError: ')}", file=sys.stderr)
        return 2
    except SIGTERMException:  # Lightning's own way out, whose exit status would be 0
        return 128 + signal.SIGTERM
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
