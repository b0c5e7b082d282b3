"""The plan of an experiment in lines for people."""

from __future__ import annotations

from pathlib import Path

from kaizen.args import Args, UsageError, shorten
from kaizen.cli import image_size
from kaizen.data.checks import used_domains
from kaizen.data.datasets import dataset_info
from kaizen.data.images import LARGEST_KEPT, FolderImages
from kaizen.data.loaders import full_batches
from kaizen.data.tasks import split_classes
from kaizen.optim import scaled_lr
from kaizen.plan import Data, active_terms, batch_in_words, num_replayed, replayed, scarcest


def data_notices(args: Args, data: Data) -> list[str]:
    """What a user should know of the data before training starts."""
    return [line for line in (_enlarged(args, data), _never_replayed(args, data)) if line is not None]


def _enlarged(args: Args, data: Data) -> str | None:
    if args.size is not None or not isinstance(data.train, FolderImages):
        return None
    try:
        side = max(data.train.first_size)
    except UsageError:  # training will say that the first one cannot be read
        return None
    if side > LARGEST_KEPT or side >= image_size(args):
        return None
    grown = f"from {side} to {image_size(args)} pixels"
    return f"images such as the first one are enlarged {grown}; --size {side} keeps their size"


def _never_replayed(args: Args, data: Data) -> str | None:
    if args.split_strategy == "data":
        return None
    last = args.num_tasks - 1
    counts = [count for task in replayed(args, data, last) for count in task]
    if 0 not in counts:
        return None
    kind = "classes" if args.split_strategy == "class" else "classes in their domains"
    return (
        f"{scarcest(args, data, last)}: {counts.count(0)} of {len(counts)} {kind} are too small for it to replay "
        "any of their images; give a larger one, or --replay_selection balanced"
    )


def describe(args: Args, data: Data | None, folder: Path | None) -> list[str]:
    """The plan in lines, for --dry_run.

    Args:
        args: checked flags.
        data: None where the data are not on this machine: what needs counting is left out.
        folder: where the experiment goes; None for a new folder named after its start.
    """
    where = folder or Path(args.base_experiment_dir) / f"<time>-{args.name}"
    lines = [
        f"method         {args.method}, encoder {args.encoder}, images of {image_size(args)} pixels",
        f"data           {args.dataset}, {args.split_strategy} split, {args.num_tasks} tasks, seed {args.split_seed}",
        f"learning rate  {scaled_lr(args):g} ({args.lr:g} x {batch_in_words(args)} / 256), {args.scheduler}; "
        f"classifier {args.classifier_lr:g}",
        f"files          {where}/",
    ]
    if args.no_labels:
        lines.append("judged         not at all, without labels; python -m kaizen.evaluate judges checkpoints")
    return lines + [line for task in range(args.num_tasks) for line in _describe_task(args, data, task)]


def _describe_task(args: Args, data: Data | None, task: int) -> list[str]:
    lines = [f"task {task}", f"  terms        {', '.join(active_terms(args, task))}"]
    kind = "domain" if args.split_strategy == "domain" else "classes"
    if data is None:
        if name := _name_without_data(args, task):
            lines.append(f"  {kind:<13}{shorten(name)}")
        return [*lines, f"  epochs       {args.max_epochs} in batches of {batch_in_words(args)}"]
    images = len(data.split.train[task])
    labels = int((data.visible_targets[data.split.train[task]] >= 0).sum())
    replay = num_replayed(args, data, task)
    batches = ((images, args.batch_size), (replay, args.replay_batch_size))
    steps = max(full_batches(count, args.whole(batch_size)) for count, batch_size in batches)
    lines += [
        f"  {kind:<13}{shorten(data.task_names[task])}",
        f"  images       {images} to train, {len(data.split.test[task])} to test, {replay} replayed",
    ]
    if labels < images:
        lines.append(f"  labels       {labels} of {images} visible in training")
    return [*lines, f"  steps        {args.max_epochs} epochs x {steps} = {args.max_epochs * steps}"]


def _name_without_data(args: Args, task: int) -> str | None:
    """What can be said of a task whose data are not on this machine."""
    if args.split_strategy == "domain":
        return used_domains(args)[task]
    known = dataset_info(args.dataset).num_classes
    if known is None or args.split_strategy == "data":
        return None
    order = args.class_order or [str(number) for number in split_classes(known, 1, args.split_seed)[0]]
    places = split_classes(known, args.num_tasks, args.split_seed, args.classes_per_task, range(known))
    return ", ".join(order[place] for place in places[task])
