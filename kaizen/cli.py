"""From the command line to checked flags: everything that can be said before any data is opened."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable
from typing import Any

from kaizen.args import (
    TRAINING_USAGE,
    Args,
    Flag,
    UsageError,
    check_value,
    core_flags,
    nearest,
    parse,
    shorten,
    words,
)
from kaizen.data.checks import check_data, task_count
from kaizen.data.datasets import DATASETS, dataset_info
from kaizen.devices import device_count
from kaizen.distillers import (
    CLASSIFIER,
    CLASSIFIER_DISTILLERS,
    FEATURE_DISTILLERS,
    FEATURES,
    SPELLINGS,
    Distiller,
    distiller_flags,
)
from kaizen.methods import METHODS, method_flags, method_named
from kaizen.models.encoders import ENCODERS
from kaizen.optim import check_optimisation

VIEW_FLAGS = (
    "brightness", "contrast", "saturation", "hue", "color_jitter_prob", "gray_scale_prob",
    "gaussian_prob", "solarization_prob", "horizontal_flip_prob", "min_scale", "max_scale",
)  # fmt: skip
REGISTRIES: dict[str, Iterable[str]] = {  # what flags that take a name choose from
    "dataset": DATASETS, "method": METHODS, "encoder": ENCODERS,
    "distiller": FEATURE_DISTILLERS, "distiller_classifier": CLASSIFIER_DISTILLERS,
}  # fmt: skip
# Flags that do nothing without another one.
SWITCHES = {
    "multicrop": ("num_small_crops", "small_crop_size", "small_crop_min_scale", "small_crop_max_scale"),
    "replay": ("replay_proportion", "replay_memory_size", "replay_batch_size", "replay_selection"),
}


def read_args(argv: list[str]) -> Args:
    """Parse and check a command line; `method_flags` is filled up with the defaults of the method and the distillers.

    Raises:
        UsageError: one line that names the flag, its value and the cure.
    """
    return complete(parsed(argv))


def parsed(argv: list[str]) -> Args:
    """Read a command line of which nothing but each flag by itself is checked, and that the devices can be counted."""
    args = parse(argv, _merged(everything_known()), _usage())
    args.devices = device_count(args)
    return args


def _usage() -> str:
    """What --help begins with: the flags that it needs, and what may stand after those that take a name."""
    lines = [f"--{flag}: {', '.join(names)}" for flag, names in REGISTRIES.items()]
    return "\n".join([TRAINING_USAGE, *(textwrap.fill(line, 78, subsequent_indent="    ") for line in lines)])


def complete(args: Args) -> Args:
    """Check parsed flags, and fill `method_flags` up with defaults.

    Raises:
        UsageError: one line that names the flag, its value and the cure.
    """
    method_named(args.method)
    args.distiller = SPELLINGS.get(args.distiller or "", args.distiller)
    own = own_flags(args)
    args.method_flags = {**{item.name: item.default for item in own}, **args.method_flags}
    for item in own:
        args.method_flags[item.name] = _fitted(item, args.method_flags[item.name], args.method)
        check_value(item, args.method_flags[item.name])
    args.held_back, args.num_tasks = args.held_back or None, task_count(args)
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
    """Given flags that do nothing: of other methods and distillers, or without the flag that they need; sorted."""
    known = {item.name for _, item in everything_known()}
    unused = (args.given & known) - {item.name for item in own_flags(args)}
    if args.momentum_classifier and not probes_momentum(args):
        unused |= {"momentum_classifier"}
    for switch, names in SWITCHES.items():
        if not getattr(args, switch):
            unused |= args.given & set(names)
    return sorted(unused)


def probes_momentum(args: Args) -> bool:
    """Is there a probe on a momentum encoder."""
    return args.online_evaluation and args.momentum_classifier and METHODS[args.method].has_momentum


def flags_of(args: Args) -> dict[str, Any]:
    """Every flag that says what is done, as plain values for results and checkpoints; not where it is done."""
    places = ("experiment_dir", "base_experiment_dir", "status", "dry_run")
    core = {item.name: getattr(args, item.name) for item in core_flags() if item.name not in places}
    return {**core, **args.method_flags, "devices": args.devices}


def args_from(flags: dict[str, Any]) -> Args:
    """The Args that `flags_of` was made from. Raises UsageError where a value cannot be one of its flag."""
    for item in core_flags():
        check_kind(item, flags.get(item.name, item.default))
    names = {field.name for field in dataclasses.fields(Args)}
    core = {name: value for name, value in flags.items() if name in names}
    args = Args(**core, method_flags={name: value for name, value in flags.items() if name not in names})
    method_named(args.method)
    for item in own_flags(args):
        check_kind(item, flags.get(item.name, item.default))
    return args


def check_kind(item: Flag, value: Any) -> None:
    """Raise UsageError where a value that was written down, and may be damaged, is not of the flag's kind."""
    given = value if isinstance(value, list) and item.many else [value]
    kinds = (float, int) if item.kind is float else (item.kind,)
    fits = all(type(one) in kinds or (one is None and item.default is None) for one in given)
    if not fits or isinstance(value, list) != (item.many and value is not None):
        raise UsageError(f"--{item.name} {shorten(ascii(value))}: is no such value; the file that says so is damaged")
    check_value(item, value)


def check(args: Args) -> None:
    """Flags that do not go together.

    Raises:
        UsageError: the first one found.
    """
    if args.encoder not in ENCODERS:
        raise UsageError(
            f"--encoder {args.encoder}: choose from {', '.join(ENCODERS)}{nearest(args.encoder, ENCODERS)}"
        )
    if args.task_idx >= args.num_tasks:
        raise UsageError(
            f"--task_idx {args.task_idx}: out of range; the {args.num_tasks} tasks are 0 to {args.num_tasks - 1}"
        )
    check_data(args)
    _check_networks(args)
    _check_views(args)
    check_optimisation(args)
    METHODS[args.method].check_flags(args.method_flags, args.whole(args.batch_size))
    if not args.save_checkpoint:
        raise UsageError("--save_checkpoint False: the next task starts from the checkpoint; leave this flag out")


def _check_networks(args: Args) -> None:
    kind = feature_distiller(args)
    if kind is not None and kind.needs_prototypes and not METHODS[args.method].has_prototypes:
        fit = ", ".join(name for name, method in METHODS.items() if method.has_prototypes)
        raise UsageError(
            f"--distiller {args.distiller}: compares assignments to prototypes, and {args.method} has none; "
            f"use another distiller, or --method {fit}"
        )
    if args.distiller_classifier and not args.no_distill and not args.classifier_training:
        raise UsageError(
            f"--distiller_classifier {args.distiller_classifier}: needs a classifier; use --classifier_training True"
        )
    if not (args.classifier_training or args.online_evaluation or not args.disable_knn_eval or args.no_labels):
        raise UsageError(
            "--classifier_training False: nothing is left to evaluate; use --online_evaluation True "
            "or leave out --disable_knn_eval"
        )


def _check_views(args: Args) -> None:
    _check_crops(args)
    for name in VIEW_FLAGS:
        values = getattr(args, name)
        if len(values) not in (1, args.num_crops):
            raise UsageError(f"--{name} {words(values)}: give one value, or one for each of the {args.num_crops} views")
    for low, high in zip(per_view(args, args.min_scale), per_view(args, args.max_scale), strict=True):
        if low > high:
            raise UsageError(f"--min_scale {low:g}: above --max_scale {high:g}; give a smaller one")
    if args.size is not None and len(args.size) != 1:
        raise UsageError(f"--size {words(args.size)}: give one side in pixels")
    for name in ("mean", "std"):
        values = getattr(args, name)
        if values is not None and len(values) != 3:
            raise UsageError(f"--{name} {words(values)}: give three values, one per colour channel")


def _check_crops(args: Args) -> None:
    multicrop = [name for name, kind in METHODS.items() if kind.takes_multicrop]
    if args.method not in multicrop:
        for name, given in (("multicrop", args.multicrop), ("num_crops", args.num_crops != 2)):
            if given:
                raise UsageError(
                    f"--{name} {getattr(args, name)}: {args.method} takes two views of one size; "
                    f"leave it out or use --method {', '.join(multicrop)}"
                )
    if args.small_crop_min_scale > args.small_crop_max_scale:
        raise UsageError(
            f"--small_crop_min_scale {args.small_crop_min_scale:g}: above --small_crop_max_scale "
            f"{args.small_crop_max_scale:g}; give a smaller one"
        )
    if args.multicrop and small_crop_size(args) >= image_size(args):
        raise UsageError(
            f"--small_crop_size {small_crop_size(args)}: not below the {image_size(args)} pixels of a full crop; "
            "give a smaller one"
        )


def image_size(args: Args) -> int:
    """Side of the images that the encoder sees, in pixels."""
    return args.size[0] if args.size else dataset_info(args.dataset).size


def small_crop_size(args: Args) -> int:
    """Side of the small crops, in pixels; by default near the published 24 of 32, 58 of 96 and 96 of 224."""
    size = image_size(args)
    share = 3 / 4 if size <= 64 else 0.6 if size <= 96 else 3 / 7
    return args.small_crop_size or round(size * share)


def per_view(args: Args, values: list[float]) -> list[float]:
    """One value for each full crop."""
    return values * args.num_crops if len(values) == 1 else values


def _distiller(args: Args, flag: str, name: str | None, table: dict[str, type[Distiller]]) -> type[Distiller] | None:
    if name is not None and name not in table:
        raise UsageError(f"--{flag} {name}: choose from {', '.join(table)}{nearest(name, table)}")
    return None if name is None or args.no_distill else table[name]


def _merged(known: list[tuple[str, Flag]]) -> list[Flag]:
    """One flag per name, which takes what any owner takes; the help text says whose default is what."""
    merged: dict[str, Flag] = {}
    taken = {name for item in core_flags() for name in (item.name, *item.aliases)}
    for owner, item in known:
        before = merged.get(item.name, item)
        if clash := taken & {item.name, *item.aliases}:
            raise UsageError(f"{owner}: --{min(clash)} is a flag of every training already; give its own another name")
        if before.kind is not item.kind:
            kinds = f"{item.kind.__name__}, of another owner {before.kind.__name__}"
            raise UsageError(f"{owner}: --{item.name} is of type {kinds}; give it that type or another name")
        default = words(item.default) if item.many else item.default
        merged[item.name] = dataclasses.replace(
            item,
            help=f"{before.help} [{owner} {default}]",
            default=None,
            aliases=tuple(dict.fromkeys((*before.aliases, *item.aliases))),
            many=before.many or item.many,
            bounds=item.bounds if before.bounds == item.bounds else None,
        )
    return list(merged.values())


def _fitted(item: Flag, value: Any, owner: str) -> Any:
    """The value of a flag that others take several values of."""
    if item.many or not isinstance(value, list):
        return value
    if len(value) > 1:
        raise UsageError(f"--{item.name} {words(value)}: {owner} takes one value; give one")
    return value[0]
