"""From the flags of a task to what trains it: learner, views, loaders and Lightning's trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from kaizen.args import Args
from kaizen.cli import (
    classifier_distiller,
    feature_distiller,
    image_size,
    per_view,
    probes_momentum,
    small_crop_size,
)
from kaizen.data.images import RandomCrop
from kaizen.data.loaders import Batch, training_loader
from kaizen.data.views import ReadyViews, ViewOptions, Views, ViewTransform
from kaizen.devices import device_count, gpu_indices, leads, uses_cuda
from kaizen.distillers import CLASSIFIER, FEATURES, Distiller, build_distiller
from kaizen.learner import ContinualLearner
from kaizen.loggers import build_loggers
from kaizen.methods import build_method
from kaizen.models.encoders import build_encoder
from kaizen.models.heads import mlp
from kaizen.networks import evaluation_view
from kaizen.plan import Data, active_terms, channel_statistics, probe_batch_size, probe_indices
from kaizen.precision import weight_type
from kaizen.progress import Progress
from kaizen.ranks import Part, synchronised
from kaizen.samples import Samples
from kaizen.saving import Saving
from kaizen.sharing import sharing_strategy

STREAMS = ("task", "replay", "online")  # each loader draws numbers of its own, by its place here


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

    dtype = weight_type(args.precision)
    views, probe_view = view_makers(args) if args.augment_on == "device" else (ReadyViews(dtype), nn.Identity())
    return ContinualLearner(
        args,
        method,
        classifier,
        probes,
        distiller("distill_features", feature_distiller(args), FEATURES, method.output_dim),
        distiller("distill_classifier", classifier_distiller(args), CLASSIFIER, num_classes),
        views=views,
        probe_view=probe_view,
        eval_view=evaluation_view(args),
    ).to(dtype)


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


def training_loaders(
    args: Args, data: Data, task_idx: int, replay: torch.Tensor, rank: int = 0, world: int = 1
) -> dict[str, DataLoader[Batch]]:
    """Task, replay and probe images; Lightning cycles the shorter ones until the longest is through.

    Args:
        args, data, task_idx: the task.
        replay: indices of the training images to replay.
        rank, world: the number of this process, and how many share each batch.
    """
    crops = [RandomCrop(view.size, view.min_scale, view.max_scale) for view in view_options(args)]
    views, probe_view = view_makers(args) if args.augment_on == "workers" else (None, None)

    def loader(
        name: str,
        indices: torch.Tensor,
        batch_size: int,
        crops: list[RandomCrop] = crops,
        transform: nn.Module | None = views,
        limit: int | None = None,
        targets: torch.Tensor = data.visible_targets,
    ) -> DataLoader[Batch]:
        return training_loader(
            data.train,
            indices,
            crops,
            batch_size,
            args.num_workers,
            seed=args.seed * 31 + task_idx * 7 + STREAMS.index(name),
            limit=limit,
            targets=targets,
            transform=transform,
            rank=rank,
            world=world,
        )

    loaders = {"task": loader("task", data.split.train[task_idx], args.whole(args.batch_size))}
    if len(replay):
        loaders["replay"] = loader("replay", replay, args.whole(args.replay_batch_size))
    if args.online_evaluation:
        probe = probe_indices(args, data, task_idx)
        one_crop = [RandomCrop(image_size(args), 0.08, 1.0)]
        steps = max(map(len, loaders.values()))  # probes follow; they never make an epoch longer
        probe_batch = probe_batch_size(args, len(probe), steps)
        loaders["online"] = loader("online", probe, probe_batch, one_crop, probe_view, steps, data.train.targets)
    return loaders


def batch_sizes(loaders: Mapping[str, DataLoader[Batch]]) -> dict[str, int]:
    """Images in the whole batch of each of `training_loaders`."""
    return {name: loader.sampler.batch_size for name, loader in loaders.items()}  # type: ignore[attr-defined]


def share_out(learner: ContinualLearner, sizes: Mapping[str, int], rank: int, world: int, sync_batchnorm: bool) -> None:
    """Of each batch, from now on only the part of one of several processes comes to a learner.

    Args:
        learner: on its device.
        sizes: images in the whole batch of each loader.
        rank, world: the number of this process, and how many there are.
        sync_batchnorm: the networks normalise with the statistics of the whole batch. Predictors of the distillers see
            it anyway.
    """
    joined = [sizes[name] for name in ("task", "replay") if name in sizes]
    learner.shares["training"] = learner.method.share = Part.of(joined, rank, world, sync_batchnorm, learner.device)
    learner.shares["online"] = Part.of([sizes.get("online", 0)], rank, world, sync_batchnorm, learner.device)
    for name in ("method", "classifier", "probes", "frozen") if sync_batchnorm else ():
        if (module := getattr(learner, name)) is not None:
            setattr(learner, name, synchronised(module, learner.device))


def build_trainer(
    args: Args, folder: Path, name: str, task_idx: int, keep: int | None = 0, saving: Saving | None = None
) -> pl.Trainer:
    """Lightning's trainer on the GPUs that --gpus names, or on the CPU. Only the leading process logs and shows.

    Args:
        args: the experiment's flags.
        folder: of the task.
        name: of the experiment.
        task_idx: the task.
        keep: rows that stay in the file of logged values; None for all.
        saving: of checkpoints inside the task, if there are any.
    """
    shown: list[pl.Callback] = [Samples(folder, image_size(args)), Progress(f"task {task_idx}", args.max_epochs)]
    return _trainer(
        args,
        device_count(args),
        max_epochs=args.max_epochs,
        accumulate_grad_batches=args.accumulate_grad_batches,
        check_val_every_n_epoch=args.check_val_every_n_epoch,
        num_sanity_val_steps=0,
        logger=build_loggers(args, folder, name, task_idx, keep) if leads(args) else False,
        callbacks=[*([saving] if saving else []), *(shown if leads(args) else [])],
    )


def build_judge(args: Args) -> pl.Trainer:
    """Lightning's trainer for looking at test images in one process, on the first of the devices."""
    return _trainer(args, 1, logger=False)


def _trainer(args: Args, devices: int, **options: Any) -> pl.Trainer:
    cuda, here = uses_cuda(args), gpu_indices(args) if devices > 1 else gpu_indices(args)[:1]
    names = {"16": "16-mixed" if cuda else "32-true", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}
    return pl.Trainer(
        accelerator="gpu" if cuda else "cpu",
        devices=here if cuda else len(here),
        num_nodes=devices // len(here),
        strategy=sharing_strategy() if devices > 1 else "auto",
        use_distributed_sampler=False,  # kaizen.data.loaders shares out each batch
        precision=names[args.precision],  # type: ignore[arg-type]
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
