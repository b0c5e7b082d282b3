"""The plan of an experiment: what will be trained on what, for how long, and where it goes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from kaizen.args import Args, UsageError, shorten
from kaizen.cli import classifier_distiller, feature_distiller, probes_momentum
from kaizen.data.checks import check_classes, check_labels
from kaizen.data.datasets import dataset_info
from kaizen.data.held_back import hold_back
from kaizen.data.identity import identity
from kaizen.data.images import ImageSet, see_alike
from kaizen.data.readable import Skipped, without_bad
from kaizen.data.replay import Counts, replay_counts
from kaizen.data.tasks import TaskSplit, class_order, make_split, split_domains, visible_labels
from kaizen.distillers import CLASSIFIER, FEATURES


@dataclass(frozen=True)
class Data:
    """The opened data of an experiment.

    Attributes:
        skipped: images that are left out of both sets, as they cannot be read.
        visible_targets: the labels of the training images that training sees, (N,); the others are -1 there.
            Probes, k nearest neighbours and accuracies judge with all labels, `train.targets`.
    """

    train: ImageSet
    test: ImageSet
    num_classes: int
    split: TaskSplit
    visible_targets: Tensor
    skipped: Skipped = field(default_factory=Skipped)

    @property
    def identities(self) -> dict[str, str]:
        """Which images each set has, in which order."""
        return {"training": identity(self.train), "test": identity(self.test)}

    @property
    def task_names(self) -> list[str]:
        """For people: the class names of each task, its domain, or its number."""
        if self.split.strategy == "data":
            return [f"part {i}" for i in range(len(self.split))]
        if self.split.strategy == "domain":
            return self.train.domain_names[: len(self.split)]
        return [", ".join(self.train.class_names[c] for c in classes) for classes in self.split.classes]


def open_data(args: Args) -> Data:
    """Open the data of a training.

    Raises:
        UsageError: the data are missing or unfit for these flags.
    """
    data = load_data(args)
    _check_batches(args, data)
    return data


def load_data(args: Args) -> Data:
    """Open the data set and split it into tasks, for whatever use.

    Raises:
        UsageError: the data are missing, or leave a task without images.
    """
    info = dataset_info(args.dataset)
    train, test = info.open(args)
    skipped = Skipped()
    if args.skip_bad_images:
        train, test, skipped = without_bad(train, test, Path(args.data_dir))
    if args.held_back is not None:
        train, test = hold_back(train, args.held_back, args.split_seed)
    see_alike(train, test)
    num_classes = info.num_classes or len(train.class_names)
    check_classes(args, num_classes, train.class_names)
    check_labels(args, train, "training", num_classes)
    check_labels(args, test, "test", num_classes)
    split = _split(args, train, test, num_classes)
    visible = train.targets
    if args.semi_supervised is not None:
        visible = visible_labels(train.targets, split.train, args.semi_supervised, args.seed)
    data = Data(train, test, num_classes, split, visible, skipped)
    _check_tasks(args, data)
    return data


def _split(args: Args, train: ImageSet, test: ImageSet, num_classes: int) -> TaskSplit:
    if args.split_strategy == "domain":
        assert train.domains is not None and test.domains is not None
        return split_domains(train.domains, test.domains, num_classes, args.num_tasks)
    if args.num_tasks > len(train.targets):  # before as many are made
        raise UsageError(
            f"--num_tasks {args.num_tasks}: there are {len(train.targets)} training images; use fewer tasks"
        )
    return make_split(
        args.split_strategy,
        train.targets,
        test.targets,
        num_classes,
        args.num_tasks,
        args.split_seed,
        args.classes_per_task,
        class_order(args.class_order, train.class_names) if args.class_order else None,
    )


def channel_statistics(args: Args) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the channels, in 0-1."""
    info = dataset_info(args.dataset)
    return tuple(args.mean or info.mean), tuple(args.std or info.std)


def replay_limits(args: Args) -> tuple[float, int | None]:
    """The proportion and the memory size that bound the replay; 1 % where none is given."""
    if args.replay_proportion is not None:
        return args.replay_proportion, args.replay_memory_size
    return (0.01 if args.replay_memory_size is None else 1.0), args.replay_memory_size


def replayed(args: Args, data: Data, task_idx: int) -> Counts:
    """How many images task `task_idx` replays of each past task, class by class; none without --replay."""
    if not args.replay:
        return []
    return replay_counts(data.split, data.train.targets, task_idx, *replay_limits(args), args.replay_selection)


def num_replayed(args: Args, data: Data, task_idx: int) -> int:
    """How many images task `task_idx` replays."""
    return sum(map(sum, replayed(args, data, task_idx)))


def probe_indices(args: Args, data: Data, task_idx: int) -> Tensor:
    """The labelled training images that probes learn from and k nearest neighbours vote with in task `task_idx`."""
    return labelled_images(data, args.online_evaluation_training_data_source, task_idx)


def labelled_images(data: Data, source: str, task_idx: int) -> Tensor:
    """The labelled training images of "all_tasks", "seen_tasks" or the "current_task", seen from task `task_idx`."""
    first, last = {
        "all_tasks": (0, len(data.split)),
        "seen_tasks": (0, task_idx + 1),
        "current_task": (task_idx, task_idx + 1),
    }[source]
    indices = torch.cat(data.split.train[first:last])
    return indices[data.train.targets[indices] >= 0]


def probe_batch_size(args: Args, num_probe_images: int, task_steps: int) -> int:
    """Published ("update"): all probe images in one epoch of the task. "frozen": the task batch, whatever the task."""
    if args.online_eval_batch_size is not None:
        return min(args.whole(args.online_eval_batch_size), num_probe_images)
    if args.online_eval_batchnorm == "frozen":
        return min(args.whole(args.batch_size), num_probe_images)
    return min(num_probe_images, max(2, -(-num_probe_images // task_steps)))  # BatchNorm needs two


def active_terms(args: Args, task_idx: int) -> list[str]:
    """The terms of the loss in task `task_idx`, as they are logged."""
    terms = ["ssl"]
    if args.classifier_training:
        terms.append("classifier")
    for name, kind, prefix in (
        ("distill_features", feature_distiller(args), FEATURES[0]),
        ("distill_classifier", classifier_distiller(args), CLASSIFIER[0]),
    ):
        if task_idx > 0 and kind is not None and args.method_flags[f"{prefix}lamb"] > 0:
            terms.append(name)
    if args.online_evaluation:
        terms.append("online")
    if probes_momentum(args):
        terms.append("momentum_online")
    return terms


def batch_in_words(args: Args) -> str:
    """The images of a step, on one device or on several."""
    return f"{args.batch_size} x {args.devices} devices" if args.devices > 1 else str(args.batch_size)


def _smallest_task(data: Data) -> tuple[int, int]:
    """The task with the fewest training images, and how many it has."""
    sizes = list(map(len, data.split.train))
    return sizes.index(min(sizes)), min(sizes)


def _check_tasks(args: Args, data: Data) -> None:
    smallest, images = _smallest_task(data)
    if images < 2:
        raise UsageError(
            f"--num_tasks {args.num_tasks}: leaves {images} training images to task {smallest}; use fewer tasks"
        )
    empty = [i for i, indices in enumerate(data.split.test) if len(indices) == 0]
    if empty and not args.no_labels:
        raise UsageError(
            f"--data_dir {args.data_dir}: no test images for task {empty[0]} ({shorten(data.task_names[empty[0]])}); "
            "every task needs some"
        )


def _check_batches(args: Args, data: Data) -> None:
    smallest, images = _smallest_task(data)
    if args.whole(args.batch_size) > images:
        raise UsageError(
            f"--batch_size {batch_in_words(args)}: task {smallest} has only {images} training images; "
            f"use at most {images // args.devices}"
        )
    for task in range(max(1, args.task_idx), args.num_tasks if args.replay else 0):
        if num_replayed(args, data, task) == 0:
            given = scarcest(args, data, task)
            raise UsageError(f"{given}: selects no image for task {task}; give a larger one or --replay False")


def scarcest(args: Args, data: Data, task: int) -> str:
    """The flag, with its value, for which no image is left to replay."""
    size, share = args.replay_memory_size, args.replay_proportion
    unlimited = replace(args, replay_memory_size=None)
    if size is None or (share is not None and num_replayed(unlimited, data, task) == 0):
        return f"--replay_proportion {replay_limits(args)[0]}"
    return f"--replay_memory_size {size}"
