"""Every flag of an experiment, once: its type, default, range and help; and the parser made from them.

The flags that belong to one SSL method or one distiller are parameters of that class and are read
from its signature with `flags_of_signature`, so that adding a method never touches this file.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import math
import types
import typing
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NoReturn


class UsageError(Exception):
    """Bad input. The message is one line: the flag, its value and the cure. The programs exit with status 2."""


class NotReady(UsageError):
    """What keeps a real run from starting here; a dry run says `not checked: ...` and goes on."""


class DataMissing(NotReady):
    """The data are not on this machine."""


@dataclass(frozen=True)
class Range:
    """Inclusive bounds of a number; `open_low` makes the lower one exclusive."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and value <= self.high

    def __str__(self) -> str:
        left = f"above {self.low:g}" if self.open_low else f"at least {self.low:g}"
        if self.high == math.inf:
            return left
        return f"{left} and at most {self.high:g}"


@dataclass(frozen=True)
class Alias:
    """A second spelling of a flag, in the published scripts for instance."""

    name: str


POSITIVE = Range(0, open_low=True)
NOT_NEGATIVE = Range(0)
COUNT = Range(1)
BATCH = Range(2)  # BatchNorm has no statistics of one image
FRACTION = Range(0, 1)
LARGEST = 2**63 - 1  # of whole numbers, as tensors hold them
SEED = Range(0, 1e9)  # generators take no more than 32 bits


@dataclass(frozen=True)
class Flag:
    """One command-line flag."""

    name: str
    kind: type  # bool, int, float or str
    default: Any
    help: str
    theme: str
    many: bool = False
    choices: tuple[str, ...] = ()
    bounds: Range | None = None
    aliases: tuple[str, ...] = ()
    free: bool = False  # may change when an experiment goes on: paths, workers, logging, devices


def flag(
    default: Any,
    text: str,
    theme: str,
    *,
    choices: tuple[str, ...] = (),
    bounds: Range | None = None,
    aliases: tuple[str, ...] = (),
    free: bool = False,
) -> Any:
    """A dataclass field that is also a command-line flag."""
    about = {
        "help": text,
        "theme": theme,
        "choices": choices,
        "bounds": bounds,
        "aliases": aliases,
        "free": free,
    }
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=about)
    return field(default=default, metadata=about)


RUN, TASKS, DATA, VIEWS = "experiment", "tasks and replay", "data", "augmentation"
NETS, OPTIM, DISTILL, EVAL, LOG = "networks", "optimisation", "distillation", "evaluation", "logging"
PUBLISHED = "of the published scripts, with nothing to do here"


@dataclass
class Args:
    """The typed flags of one experiment.

    `method_flags` holds what belongs to the method and the distillers, `given` what the command line names. `devices`
    is how many shared each step when the experiment began, which says how large a whole batch is; it stays when it
    goes on with more or fewer.
    """

    name: str = flag("kaizen", "name of the experiment", RUN, free=True)
    experiment_dir: str | None = flag(
        None, "folder below --base_experiment_dir; an existing one goes on where it stopped", RUN, free=True
    )
    base_experiment_dir: str = flag("experiments", "where experiment folders are made", RUN, free=True)
    status: str | None = flag(
        None, "folder of an experiment: show how far its tasks are, and stop; needs no other flag", RUN, free=True
    )
    dry_run: bool = flag(False, "check every flag, print the plan and stop", RUN, free=True)
    seed: int = flag(5, "seed of weights, batches and views", RUN, bounds=SEED)
    gpus: str | None = flag(
        None, "index of the GPU to use, e.g. 0, or of several that share each step, e.g. 0,1, each in a process of its "
        "own with a batch of --batch_size; without CUDA the processes run on the CPU", RUN, free=True,
    )  # fmt: skip
    num_nodes: int = flag(
        1, "machines that share each step; each starts the same command, with MASTER_ADDR, MASTER_PORT and NODE_RANK "
        "set; torchrun and srun say it themselves", RUN, bounds=COUNT, free=True,
    )  # fmt: skip
    sync_batchnorm: bool = flag(False, "several devices: BatchNorm with the statistics of the whole batch", RUN)
    accelerator: str = flag(
        "auto", "gpu: refuse without CUDA; cpu: leave CUDA alone; auto, and ddp of the published scripts: CUDA or CPU",
        RUN, choices=("auto", "gpu", "cpu", "ddp"), free=True,
    )  # fmt: skip
    precision: str = flag("32", "16 is fp16 mixed on CUDA, 64 double", RUN, choices=("16", "bf16", "32", "64"))
    compile: bool = flag(False, "compile encoders and views; pays off beyond some thousand steps a task", RUN)
    recompute: bool = flag(
        True, "ResNet-18 and -50 make maps again in the backward pass: less memory for some of the time", RUN, free=True
    )

    dataset: str = flag("", "name of the data set", DATA)
    data_dir: str = flag("datasets", "folder of the data", DATA, free=True)
    image_cache: str | None = flag(
        None, "folder where small images in files are kept decoded, from task to task and run to run; none: nowhere "
        "[kaizen in $XDG_CACHE_HOME or ~/.cache]", DATA, free=True,
    )  # fmt: skip
    skip_bad_images: bool = flag(
        False, "leave out images in files that cannot be read, instead of stopping at the first; reads all once", DATA
    )
    train_dir: str | None = flag(None, "image folders: training images below --data_dir [train]", DATA)
    val_dir: str | None = flag(None, "image folders: test images below --data_dir [val]", DATA)
    domain: str | None = flag(None, "domainnet: use the images of this domain alone", DATA)
    no_labels: bool = flag(False, "custom: training images without class folders, and no test images", DATA)
    semi_supervised: float | None = flag(
        None, "fraction of the labels of each class that training sees; judging uses all", DATA,
        bounds=Range(0, 1, open_low=True),
    )  # fmt: skip
    held_back: float | None = flag(
        None, "fraction of each class's training images to judge on, unseen in training, instead of the test images: "
        "for choosing flags; 0 for none", DATA, bounds=FRACTION,
    )  # fmt: skip
    size: list[int] | None = flag(None, "side of the images the encoder sees, in pixels", DATA, bounds=Range(4))
    mean: list[float] | None = flag(None, "custom: channel means in 0-1", DATA, bounds=FRACTION)
    std: list[float] | None = flag(None, "custom: channel standard deviations in 0-1", DATA, bounds=POSITIVE)
    batch_size: int = flag(128, "task images per step, on each device", DATA, bounds=BATCH)
    num_workers: int = flag(
        4, "loader processes, for images decoded on the fly and --augment_on workers", DATA, bounds=NOT_NEGATIVE,
        free=True,
    )  # fmt: skip

    split_strategy: str = flag("class", "how the data become tasks", TASKS, choices=("class", "data", "domain"))
    num_tasks: int = flag(2, "number of tasks; a domain split has one per domain if not given", TASKS, bounds=COUNT)
    classes_per_task: list[int] | None = flag(None, "class split: classes of each task", TASKS, bounds=COUNT)
    class_order: list[str] | None = flag(
        None, "class split: all classes, by number or name, instead of a random order", TASKS
    )
    task_idx: int = flag(0, "task to start from", TASKS, bounds=NOT_NEGATIVE, free=True)
    split_seed: int = flag(5, "seed of the class order or the data split", TASKS, bounds=SEED)
    replay: bool = flag(False, "mix stored images of past tasks into every batch", TASKS)
    replay_proportion: float | None = flag(
        None, "fraction of each past class (data split: task) that is kept [0.01 without a memory size]", TASKS,
        bounds=Range(0, 1, open_low=True),
    )  # fmt: skip
    replay_memory_size: int | None = flag(
        None,
        "total number of images kept, shared equally",
        TASKS,
        bounds=COUNT,
        aliases=("memory_size", "replay_memory_bank_size"),
    )
    replay_batch_size: int = flag(32, "replay images per step, on each device", TASKS, bounds=COUNT)
    replay_selection: str = flag(
        "first", "images that are kept: the first (published), random ones, those whose mean feature is nearest to "
        "that of their class, or random ones in equal shares of one total for all classes seen", TASKS,
        choices=("first", "random", "herding", "balanced"),
    )  # fmt: skip

    augment_on: str = flag(
        "device", "where views are made: in batches on the device, which was faster wherever measured, or by loader "
        "processes on the CPU, for a weak GPU beside many cores", VIEWS, choices=("device", "workers"),
    )  # fmt: skip
    brightness: list[float] = flag([0.4], "jitter strength, one value or one per view", VIEWS, bounds=NOT_NEGATIVE)
    contrast: list[float] = flag([0.4], "jitter strength", VIEWS, bounds=NOT_NEGATIVE)
    saturation: list[float] = flag([0.2], "jitter strength", VIEWS, bounds=NOT_NEGATIVE)
    hue: list[float] = flag([0.1], "jitter strength", VIEWS, bounds=Range(0, 0.5))
    color_jitter_prob: list[float] = flag([0.8], "probability of jitter", VIEWS, bounds=FRACTION)
    gray_scale_prob: list[float] = flag([0.2], "probability of grayscale", VIEWS, bounds=FRACTION)
    gaussian_prob: list[float] = flag([0.5], "probability of blur", VIEWS, bounds=FRACTION)
    solarization_prob: list[float] = flag([0.0], "probability of solarisation", VIEWS, bounds=FRACTION)
    horizontal_flip_prob: list[float] = flag([0.5], "probability of a mirror image", VIEWS, bounds=FRACTION)
    min_scale: list[float] = flag([0.08], "least area of a crop", VIEWS, bounds=Range(0, 1, open_low=True))
    max_scale: list[float] = flag([1.0], "largest area of a crop", VIEWS, bounds=Range(0, 1, open_low=True))
    multicrop: bool = flag(False, "small crops beside the full ones; 0.14 is the published --min_scale then", VIEWS)
    num_crops: int = flag(2, "full crops of each image", VIEWS, bounds=Range(2, 100))
    num_small_crops: int = flag(6, "multicrop: small crops of each image", VIEWS, bounds=Range(0, 100))
    small_crop_size: int | None = flag(
        None, "side of a small crop in pixels [up to 64 pixels 3/4 of --size, up to 96 0.6, else 3/7]", VIEWS,
        bounds=Range(4),
    )  # fmt: skip
    small_crop_min_scale: float = flag(0.05, "least area of a small crop", VIEWS, bounds=Range(0, 1, open_low=True))
    small_crop_max_scale: float = flag(0.14, "largest area of a small crop", VIEWS, bounds=Range(0, 1, open_low=True))

    method: str = flag("", "self-supervised method", NETS)
    encoder: str = flag("resnet18", "backbone", NETS)
    # Below: with fewer than 16 channels (8 on CPUs without AVX-512), strided 1x1 convolutions of torch 2.14 in
    # channels_last write beyond their memory.
    encoder_width: float = flag(1.0, "resnet9: multiplier of the channels", NETS, bounds=Range(0.25))
    stem_padding: int = flag(
        2, "padding of the 3x3 stem for small images; 2 is the published one", NETS, bounds=NOT_NEGATIVE
    )
    pretrained_model: str | None = flag(None, "checkpoint to start from", NETS, free=True)
    classifier_training: bool = flag(True, "train a classifier over all classes along with the features", NETS)
    classifier_layers: list[int] = flag([], "hidden widths of the classifier", NETS, bounds=COUNT)
    classifier_stop_gradient: bool = flag(True, "the classifier's terms leave the encoder alone", NETS)
    classifier_loss_weight: float = flag(1.0, "weight of the cross-entropy", NETS, bounds=NOT_NEGATIVE)

    optimizer: str = flag("sgd", "optimiser", OPTIM, choices=("sgd", "adam", "adamw"))
    lr: float = flag(
        0.3,
        "learning rate for a batch of 256; scaled by batch_size x devices / 256",
        OPTIM,
        bounds=NOT_NEGATIVE,
    )
    classifier_lr: float = flag(0.3, "learning rate of the classifier, not scaled", OPTIM, bounds=NOT_NEGATIVE)
    weight_decay: float = flag(1e-4, "weight decay; 0 for classifiers", OPTIM, bounds=NOT_NEGATIVE)
    lars: bool = flag(False, "layer-wise adaptive rates (LARS)", OPTIM)
    eta_lars: float = flag(1e-3, "trust coefficient of LARS", OPTIM, bounds=POSITIVE)
    grad_clip_lars: bool = flag(False, "never let LARS raise a layer's rate above lr", OPTIM)
    exclude_bias_n_norm: bool = flag(False, "LARS and its weight decay skip biases and norms", OPTIM)
    scheduler: str = flag(
        "reduce", "learning rate over epochs", OPTIM,
        choices=("none", "step", "cosine", "warmup_cosine", "exponential", "reduce"),
    )  # fmt: skip
    lr_decay_steps: list[int] = flag([], "step: epochs at which the rate drops", OPTIM, bounds=NOT_NEGATIVE)
    lr_gamma: float | None = flag(
        None, "factor of step [0.1], exponential [0.95] and reduce [0.1]", OPTIM, bounds=POSITIVE
    )
    min_lr: float = flag(0.0, "rate at the end of the cosine", OPTIM, bounds=NOT_NEGATIVE)
    warmup_start_lr: float = flag(0.003, "rate of the first epoch of warmup_cosine", OPTIM, bounds=NOT_NEGATIVE)
    warmup_epochs: int = flag(10, "epochs of the linear warm-up", OPTIM, bounds=NOT_NEGATIVE)
    max_epochs: int = flag(100, "epochs per task", OPTIM, bounds=COUNT)
    accumulate_grad_batches: int = flag(1, "batches per optimiser step", OPTIM, bounds=COUNT)

    distiller: str | None = flag(None, "feature distiller", DISTILL)
    distiller_classifier: str | None = flag(None, "classifier distiller", DISTILL)
    no_distill: bool = flag(False, "switch both distillers off", DISTILL)
    frozen_batchnorm: str = flag(
        "batch",
        "statistics of the frozen model: of the batch (published) or running",
        DISTILL,
        choices=("batch", "running"),
    )

    online_evaluation: bool = flag(False, "train probes on detached features along the way", EVAL)
    online_evaluation_training_data_source: str = flag(
        "seen_tasks",
        "labels the probes learn from",
        EVAL,
        choices=("all_tasks", "seen_tasks", "current_task"),
    )
    online_eval_classifier_lr: float = flag(0.1, "learning rate of the probes, not scaled", EVAL, bounds=NOT_NEGATIVE)
    online_eval_classifier_layers: list[int] = flag([], "hidden widths of the probes", EVAL, bounds=COUNT)
    online_eval_batchnorm: str = flag(
        "update", "do probe images enter the encoder's BatchNorm statistics (published) or not", EVAL,
        choices=("update", "frozen"),
    )  # fmt: skip
    online_eval_batch_size: int | None = flag(
        None, "probe images per step [update: all in one epoch; frozen: --batch_size]", EVAL, bounds=BATCH
    )
    momentum_classifier: bool = flag(False, "a probe on the momentum encoder too", EVAL)
    disable_knn_eval: bool = flag(False, "no k-nearest-neighbour accuracy after each task", EVAL)
    knn_k: int = flag(20, "neighbours", EVAL, bounds=COUNT)
    auto_umap: bool = flag(False, "draw the test images' features after each task (UMAP, or else t-SNE)", EVAL)
    check_val_every_n_epoch: int = flag(1, "epochs between looks at the test images", EVAL, bounds=COUNT, free=True)

    wandb: bool = flag(False, "log to Weights & Biases", LOG, free=True)
    checkpoint_every_n_steps: int | None = flag(
        None, "steps between checkpoints inside an epoch; a stopped run goes on from them [one an epoch]",
        LOG, bounds=COUNT, free=True,
    )  # fmt: skip
    project: str = flag("kaizen", "WandB project", LOG, free=True)
    entity: str | None = flag(None, "WandB user or team", LOG, free=True)
    offline: bool = flag(False, "WandB without network or login", LOG, free=True)
    log_every_n_steps: int = flag(10, "steps between logged values", LOG, bounds=COUNT, free=True)

    distiller_library: str = flag(
        "factory", "both values mean the same", PUBLISHED, choices=("factory", "default"), free=True
    )
    dali: bool = flag(
        False,
        "images are decoded in loader processes, views are made where --augment_on says",
        PUBLISHED,
        free=True,
    )
    save_checkpoint: bool = flag(True, "the end of every task is always kept", PUBLISHED, free=True)

    method_flags: dict[str, Any] = field(default_factory=dict)
    given: frozenset[str] = frozenset()
    devices: int = 1

    def whole(self, batch_size: int) -> int:
        """A batch of every device -> the whole batch of a step."""
        return batch_size * self.devices


def core_flags() -> list[Flag]:
    """The flags that are fields of `Args`."""
    return flags_of_fields(Args)


def flags_of_fields(owner: type[Any]) -> list[Flag]:
    """The flags that are fields of a dataclass, made with `flag`."""
    hints = typing.get_type_hints(owner)
    flags = []
    for entry in dataclasses.fields(owner):
        if entry.metadata:
            kind, many = _kind(hints[entry.name])
            flags.append(Flag(entry.name, kind, _default(entry), many=many, **entry.metadata))
    return flags


def flags_of_signature(function: Callable[..., Any], theme: str, prefixes: tuple[str, ...] = ("",)) -> list[Flag]:
    """The flags that a method or distiller takes: its keyword-only parameters.

    Args:
        function: its parameters look like `name: Annotated[float, "help", Range(0), Alias("other_name")] = 0.1`.
        theme: the heading in --help.
        prefixes: what stands before each name; the first one is the flag's own, the others make aliases.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    flags = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        if parameter.default is parameter.empty:
            raise UsageError(f"{function.__qualname__}: --{parameter.name} has no default; give it one")
        hint: Any = hints[parameter.name]
        notes: list[Any] = []
        if typing.get_origin(hint) is Annotated:
            hint, *notes = typing.get_args(hint)
        text = next((n for n in notes if isinstance(n, str)), "")
        bounds = next((n for n in notes if isinstance(n, Range)), None)
        spellings = [parameter.name, *(n.name for n in notes if isinstance(n, Alias))]
        name, *aliases = [prefix + spelling for prefix in prefixes for spelling in spellings]
        kind, many = _kind(hint)
        flags.append(Flag(name, kind, parameter.default, text, theme, many, bounds=bounds, aliases=tuple(aliases)))
    return flags


TRAINING_USAGE = "main_continual.py --dataset NAME --method NAME --flag value ... [--dry_run]"


def parse(argv: Sequence[str], extra: Iterable[Flag] = (), usage: str = TRAINING_USAGE) -> Args:
    """Command line -> Args.

    Args:
        argv: the arguments without the program's name.
        extra: the flags of methods and distillers; what is given of them lands in `Args.method_flags`.
        usage: the first line of --help.

    Raises:
        UsageError: an unknown or abbreviated flag, a value of the wrong type, outside its range or choices.
    """
    others = list(extra)
    values = parse_values(argv, [*core_flags(), *others], usage)
    given = frozenset(values)
    method_flags = {item.name: values.pop(item.name) for item in others if item.name in values}
    return Args(**values, method_flags=method_flags, given=given)


def parse_values(argv: Sequence[str], flags: Sequence[Flag], usage: str) -> dict[str, Any]:
    """Command line -> the values of those flags that are given, each checked by itself. Raises UsageError."""
    parser = _Parser(usage=usage, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    themes: dict[str, Any] = {}
    for item in flags:
        group = themes.setdefault(item.theme, None) or parser.add_argument_group(item.theme)
        themes[item.theme] = group
        _add(group, item)
    check_words(argv)
    found, unknown = parser.parse_known_args(list(argv))
    if unknown:
        raise UsageError(_unknown(unknown[0], [name for item in flags for name in (item.name, *item.aliases)]))
    values = vars(found)
    for item in flags:
        if item.name in values:
            check_value(item, values[item.name])
    return values


def check_words(argv: Sequence[str]) -> None:
    """Raise UsageError where an argument holds what no line of text can: a line break, another control character."""
    name = "--"
    for word in argv:
        name = word if word.startswith("--") else name
        if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in word):
            raise UsageError(f"{shorten(ascii(name))} {shorten(ascii(word))}: holds a control character; leave it out")


def check_value(item: Flag, value: Any) -> None:
    """Raise UsageError where a value lies outside the flag's choices or bounds."""
    for one in value if isinstance(value, list) else [value]:
        if one is None:
            continue
        if item.choices and one not in item.choices:
            hint = nearest(str(one), item.choices)
            raise UsageError(f"--{item.name} {one}: choose from {', '.join(item.choices)}{hint}")
        if item.bounds is not None and one not in item.bounds:
            raise UsageError(f"--{item.name} {one}: must be {item.bounds}")


def words(values: Iterable[object]) -> str:
    """Several values of a flag, as they are given."""
    return " ".join(map(str, values))


def shorten(text: str, length: int = 90) -> str:
    """At most `length` - 1 characters of a text, with dots where it is cut."""
    return text if len(text) < length else f"{text[: length - 3]}..."


def one_line(error: Exception) -> str:
    """What an error says, or else its name."""
    return " ".join(str(error).split()) or type(error).__name__


def printable(text: str) -> str:
    """The text in one line, whatever a damaged file holds."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def shown(text: str) -> str:
    """A user's text in a message of one line, whatever it contains."""
    return shorten(ascii(text)[1:-1])


def nearest(word: str, known: Iterable[str], mark: str = "") -> str:
    """' (did you mean X?)' for the closest known word, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {mark}{close[0]}?)" if close else ""


def _unknown(token: str, known: list[str]) -> str:
    if not token.startswith("--"):
        return f"{token}: a value without a flag; every value follows the --flag it belongs to"
    name = token[2:].split("=")[0]
    cure = nearest(name, known, "--") or "; --help lists all flags"
    return f"unknown flag --{name}{cure}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "))


def _add(group: Any, item: Flag) -> None:
    text = item.help.replace("%", "%%")
    if item.choices:
        text += f" ({', '.join(item.choices)})"
    if item.default not in (None, "", [], inspect.Parameter.empty):
        shown = words(item.default) if isinstance(item.default, list) else item.default
        text += f" [{shown}]"
    names = [f"--{name}" for name in (item.name, *item.aliases)]
    options: dict[str, Any] = {
        "dest": item.name,
        "help": text,
        "type": _CONVERT[item.kind],
        "metavar": item.kind.__name__,
    }
    if item.kind is bool:
        options |= {"nargs": "?", "const": True}
    elif item.many:
        options["nargs"] = "+"
    group.add_argument(*names, **options)


def _kind(hint: Any) -> tuple[type, bool]:
    """Type hint -> (bool | int | float | str, is it a list)."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is list:
        return typing.get_args(hint)[0], True
    return hint, False


def _default(entry: dataclasses.Field[Any]) -> Any:
    if entry.default_factory is not dataclasses.MISSING:
        return entry.default_factory()
    return entry.default


def _to_bool(text: str) -> bool:
    if text.lower() in ("true", "yes", "1"):
        return True
    if text.lower() in ("false", "no", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")


def _to_int(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shorten(repr(text))} is not a whole number") from None
    if abs(value) > LARGEST:
        raise argparse.ArgumentTypeError(f"{shorten(text)} is beyond {LARGEST}")
    return value


def _to_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{shorten(repr(text))} is not a finite number")
    return value


_CONVERT: dict[type, Callable[[str], Any]] = {bool: _to_bool, int: _to_int, float: _to_float, str: str}
