"""Flags of data sets and tasks: what follows from them, and which of them do not go together."""

from __future__ import annotations

from collections.abc import Sequence

from kaizen.args import Args, UsageError, nearest, words
from kaizen.data.datasets import dataset_info
from kaizen.data.images import ImageSet
from kaizen.data.tasks import class_order


def task_count(args: Args) -> int:
    """The number of tasks: of --num_tasks, and where it was not given, of the classes or domains named.

    Raises:
        UsageError: an unknown data set or domain, or another number was given.
    """
    domains, given = used_domains(args), "num_tasks" in args.given
    if args.split_strategy == "domain":
        if given and args.num_tasks > len(domains):
            raise UsageError(
                f"--num_tasks {args.num_tasks}: a task is a domain, and there {'is' if args.domain else 'are'} only "
                f"{', '.join(domains)}; use at most {len(domains)}"
            )
        return args.num_tasks if given else len(domains)
    sizes = args.classes_per_task
    if sizes and given and args.num_tasks != len(sizes):
        raise UsageError(
            f"--num_tasks {args.num_tasks}: --classes_per_task {words(sizes)} makes {len(sizes)} tasks; "
            "leave one of the two out"
        )
    return len(sizes) if sizes else args.num_tasks


def used_domains(args: Args) -> tuple[str, ...]:
    """The domains whose images are opened, in the order of the tasks; none where the data set has no domains.

    Raises:
        UsageError: an unknown data set or domain, or domains are asked for where there are none.
    """
    domains = dataset_info(args.dataset).domains
    if not domains and args.domain:
        raise UsageError(f"--domain {args.domain}: {args.dataset} has no domains; leave it out")
    if not domains and args.split_strategy == "domain":
        raise UsageError(f"--split_strategy domain: {args.dataset} has no domains; use class or data")
    if args.domain and args.domain not in domains:
        raise UsageError(f"--domain {args.domain}: choose from {', '.join(domains)}{nearest(args.domain, domains)}")
    return (args.domain,) if args.domain else domains


def check_data(args: Args) -> None:
    """Raises UsageError where flags of the data set and the split do not go together."""
    info = dataset_info(args.dataset)
    for name in ("classes_per_task", "class_order"):
        if (given := getattr(args, name)) and args.split_strategy != "class":
            raise UsageError(
                f"--{name} {words(given)}: only a class split has it, not --split_strategy {args.split_strategy}; "
                "leave one of the two out"
            )
    if args.no_labels:
        _check_no_labels(args)
    elif info.num_classes is not None:
        check_classes(args, info.num_classes)


def check_labels(args: Args, images: ImageSet, kind: str, num_classes: int) -> None:
    """Raises UsageError where a label is neither that of a class nor -1, of an unlabelled image."""
    if not len(images):
        return
    low, high = (int(value) for value in images.targets.aminmax())
    if low < -1 or high >= num_classes:
        raise UsageError(
            f"--dataset {args.dataset}: a {kind} image has the label {low if low < -1 else high}, and there are "
            f"{num_classes} classes; number them from 0, and give unlabelled images -1"
        )


def check_classes(args: Args, num_classes: int, names: Sequence[str] | None = None) -> None:
    """Whether the classes can be shared out as asked.

    Args:
        args: flags.
        num_classes: number of classes.
        names: of the classes; without them --class_order is judged where it gives numbers.

    Raises:
        UsageError: they cannot.
    """
    if args.split_strategy != "class":
        return
    sizes = args.classes_per_task
    if sizes and sum(sizes) != num_classes:
        raise UsageError(
            f"--classes_per_task {words(sizes)}: sum to {sum(sizes)}, not to the {num_classes} classes of "
            f"{args.dataset}; give sizes that do"
        )
    if not sizes and num_classes % args.num_tasks:
        fits = [n for n in range(1, num_classes + 1) if num_classes % n == 0]
        raise UsageError(
            f"--num_tasks {args.num_tasks}: does not divide the {num_classes} classes of {args.dataset}; "
            f"use one of {', '.join(map(str, fits))}{_unequal(num_classes, args.num_tasks)}"
        )
    if (order := args.class_order) is None:
        return
    if names is None and all(word.isdecimal() for word in order):
        names = [str(number) for number in range(num_classes)]
    if names is not None:
        class_order(order, names)
    elif len(order) != num_classes:
        raise UsageError(f"--class_order: names {len(order)} of the {num_classes} classes; give each class once")


def _check_no_labels(args: Args) -> None:
    if args.dataset != "custom":
        raise UsageError(f"--no_labels: {args.dataset} has labels; leave it out, or use --dataset custom")
    supervised = args.method_flags.get("supervised", False)
    for wrong, problem in (
        (args.split_strategy != "data", "there are no classes to split by; use --split_strategy data"),
        (args.classifier_training, "a classifier needs labels; use --classifier_training False"),
        (args.online_evaluation, "probes need labels; use --online_evaluation False"),
        (not args.disable_knn_eval, "k nearest neighbours need labels; use --disable_knn_eval"),
        (args.auto_umap, "there are no test images to draw; leave out --auto_umap"),
        (supervised, "--supervised True needs labels; use --supervised False"),
        (args.held_back is not None, f"--held_back {args.held_back} holds back labelled images; leave it out"),
        (args.semi_supervised is not None, f"--semi_supervised {args.semi_supervised} needs labels; leave it out"),
    ):
        if wrong:
            raise UsageError(f"--no_labels: {problem}")


def _unequal(num_classes: int, num_tasks: int) -> str:
    """The cure of classes that do not divide, with the sizes nearest to equal."""
    if num_tasks > num_classes:
        return ""
    part, rest = divmod(num_classes, num_tasks)
    sizes = [part + 1] * rest + [part] * (num_tasks - rest)
    return f", or give --classes_per_task {words(sizes if num_tasks <= 10 else [*sizes[:2], '...'])}"
