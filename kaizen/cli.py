"""From the command line to checked flags: everything that can be said before any data is opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch

from kaizen.args import Args, Flag, UsageError, check_value, core_flags, nearest, parse
from kaizen.data.datasets import dataset_info
from kaizen.distillers import (
    CLASSIFIER,
    CLASSIFIER_DISTILLERS,
    FEATURE_DISTILLERS,
    FEATURES,
    Distiller,
    distiller_flags,
)
from kaizen.methods import METHODS, method_flags, method_named
from kaizen.models.encoders import ENCODERS

VIEW_FLAGS = (
    "brightness", "contrast", "saturation", "hue", "color_jitter_prob", "gray_scale_prob",
    "gaussian_prob", "solarization_prob", "horizontal_flip_prob", "min_scale", "max_scale",
)  # fmt: skip
NUM_VIEWS = 2


def read_args(argv: list[str]) -> Args:
    """Parse and check a command line; `method_flags` is filled up with the defaults of the method and the distillers.

    Raises:
        UsageError: one line that names the flag, its value and the cure.
    """
    return complete(parse(argv, _merged(everything_known())))


def complete(args: Args) -> Args:
    """Check parsed flags, and fill `method_flags` up with defaults.

    Raises:
        UsageError: one line that names the flag, its value and the cure.
    """
    method_named(args.method)
    args.method_flags = {**_defaults(own_flags(args)), **args.method_flags}
    for item in own_flags(args):
        check_value(item, args.method_flags[item.name])
    check(args)
    return args


def everything_known() -> list[tuple[str, Flag]]:
    """(owner, flag) for every flag of every method and distiller."""
    known = [(name, item) for name in METHODS for item in method_flags(name)]
    for prefixes, table in ((FEATURES, FEATURE_DISTILLERS), (CLASSIFIER, CLASSIFIER_DISTILLERS)):
        known += [(name, item) for name, kind in table.items() for item in distiller_flags(kind, prefixes)]
    return known


def own_flags(args: Args) -> list[Flag]:
    """The flags of the chosen method and distillers."""
    flags = method_flags(args.method)
    if (kind := feature_distiller(args)) is not None:
        flags += distiller_flags(kind, FEATURES)
    if (kind := classifier_distiller(args)) is not None:
        flags += distiller_flags(kind, CLASSIFIER)
    return flags


def feature_distiller(args: Args) -> type[Distiller] | None:
    """The class that --distiller names. Raises UsageError for an unknown name."""
    return _distiller(args, "distiller", args.distiller, FEATURE_DISTILLERS)


def classifier_distiller(args: Args) -> type[Distiller] | None:
    """The class that --distiller_classifier names. Raises UsageError for an unknown name."""
    return _distiller(args, "distiller_classifier", args.distiller_classifier, CLASSIFIER_DISTILLERS)


def unused_flags(args: Args) -> list[str]:
    """Given flags that some method or distiller knows and the chosen ones do not use, sorted."""
    known = {item.name for _, item in everything_known()}
    unused = (args.given & known) - {item.name for item in own_flags(args)}
    if args.momentum_classifier and not probes_momentum(args):
        unused |= {"momentum_classifier"}
    return sorted(unused)


def probes_momentum(args: Args) -> bool:
    """Is there a probe on a momentum encoder."""
    has_momentum = any(item.name == "base_tau_momentum" for item in method_flags(args.method))
    return args.online_evaluation and args.momentum_classifier and has_momentum


def flags_of(args: Args) -> dict[str, Any]:
    """Every flag that says what is done, as plain values for results and checkpoints; not where it is done."""
    places = ("experiment_dir", "base_experiment_dir", "dry_run")
    core = {item.name: getattr(args, item.name) for item in core_flags() if item.name not in places}
    return {**core, **args.method_flags}


def args_from(flags: dict[str, Any]) -> Args:
    """The Args that `flags_of` was made from."""
    names = {field.name for field in dataclasses.fields(Args)}
    core = {name: value for name, value in flags.items() if name in names}
    return Args(**core, method_flags={name: value for name, value in flags.items() if name not in names})


def check(args: Args) -> None:
    """Flags that do not go together.

    Raises:
        UsageError: the first one found.
    """
    info = dataset_info(args.dataset)
    if args.encoder not in ENCODERS:
        raise UsageError(
            f"--encoder {args.encoder}: choose from {', '.join(ENCODERS)}{nearest(args.encoder, ENCODERS)}"
        )
    if args.task_idx >= args.num_tasks:
        raise UsageError(
            f"--task_idx {args.task_idx}: out of range; the {args.num_tasks} tasks are 0 to {args.num_tasks - 1}"
        )
    if info.num_classes is not None:
        check_classes(args, info.num_classes)
    _check_networks(args)
    _check_views(args)
    _check_optimisation(args)
    gpu_index(args)


def check_classes(args: Args, num_classes: int) -> None:
    """Raises UsageError where the classes cannot be shared out equally."""
    if args.split_strategy == "class" and num_classes % args.num_tasks:
        fits = [n for n in range(1, num_classes + 1) if num_classes % n == 0]
        raise UsageError(
            f"--num_tasks {args.num_tasks}: does not divide the {num_classes} classes of {args.dataset}; "
            f"use one of {', '.join(map(str, fits))}"
        )


def _check_networks(args: Args) -> None:
    if args.distiller_classifier and not args.no_distill and not args.classifier_training:
        raise UsageError(
            f"--distiller_classifier {args.distiller_classifier}: needs a classifier; use --classifier_training True"
        )
    if not (args.classifier_training or args.online_evaluation or not args.disable_knn_eval):
        raise UsageError(
            "--classifier_training False: nothing is left to evaluate; use --online_evaluation True "
            "or leave out --disable_knn_eval"
        )


def _check_views(args: Args) -> None:
    for name in VIEW_FLAGS:
        values = getattr(args, name)
        if len(values) not in (1, NUM_VIEWS):
            raise UsageError(f"--{name} {_words(values)}: give one value, or one for each of the {NUM_VIEWS} views")
    for low, high in zip(per_view(args.min_scale), per_view(args.max_scale), strict=True):
        if low > high:
            raise UsageError(f"--min_scale {low:g}: above --max_scale {high:g}; give a smaller one")
    if args.size is not None and len(args.size) != 1:
        raise UsageError(f"--size {_words(args.size)}: give one side in pixels")
    for name in ("mean", "std"):
        values = getattr(args, name)
        if values is not None and len(values) != 3:
            raise UsageError(f"--{name} {_words(values)}: give three values, one per colour channel")


def _check_optimisation(args: Args) -> None:
    if args.lars and args.optimizer != "sgd":
        raise UsageError(f"--lars with --optimizer {args.optimizer}: LARS adapts SGD; use --optimizer sgd")
    if args.scheduler == "step" and not args.lr_decay_steps:
        raise UsageError("--scheduler step: give the epochs at which the rate drops, e.g. --lr_decay_steps 60 80")


def gpu_index(args: Args) -> int:
    """The GPU that --gpus names, the first one without it. Raises UsageError where it names none, or several."""
    parts = [part for part in ("0" if args.gpus is None else args.gpus).split(",") if part]
    if not parts or not all(part.isdecimal() for part in parts):
        raise UsageError(f"--gpus {args.gpus}: give the index of a GPU, e.g. --gpus 0")
    if len(parts) > 1:
        raise UsageError(f"--gpus {args.gpus}: one task trains on one GPU; give one index, e.g. --gpus {parts[0]}")
    index, count = int(parts[0]), torch.cuda.device_count()
    if count and index >= count:
        raise UsageError(f"--gpus {args.gpus}: this machine has {count}; give an index from 0 to {count - 1}")
    return index


def per_view(values: list[float]) -> list[float]:
    """One value for each view."""
    return values * NUM_VIEWS if len(values) == 1 else values


def _distiller(args: Args, flag: str, name: str | None, table: dict[str, type[Distiller]]) -> type[Distiller] | None:
    if name is not None and name not in table:
        raise UsageError(f"--{flag} {name}: choose from {', '.join(table)}{nearest(name, table)}")
    return None if name is None or args.no_distill else table[name]


def _defaults(flags: Iterable[Flag]) -> dict[str, Any]:
    return {item.name: item.default for item in flags}


def _merged(known: list[tuple[str, Flag]]) -> list[Flag]:
    """One flag per name; where owners differ in the default, the help text says whose is what."""
    merged: dict[str, Flag] = {}
    for owner, item in known:
        text = f"{item.help} [{owner} {item.default}]"
        if item.name in merged:
            text = f"{merged[item.name].help} [{owner} {item.default}]"
        merged[item.name] = dataclasses.replace(item, help=text, default=None)
    return list(merged.values())


def _words(values: Iterable[object]) -> str:
    return " ".join(map(str, values))
