"""What an evaluation is asked: its flags, the protocol they name, and the head that comes out of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kaizen.args import (
    DATA,
    DISTILL,
    EVAL,
    NETS,
    NOT_NEGATIVE,
    OPTIM,
    RUN,
    TASKS,
    VIEWS,
    Args,
    UsageError,
    core_flags,
    flag,
    flags_of_fields,
    parse,
)  # fmt: skip
from kaizen.cli import args_from, complete, image_size
from kaizen.linear import with_published_defaults
from kaizen.methods import METHODS
from kaizen.optim import check_optimisation

PROTOCOLS = ("linear", "knn", "classifier", "online")
LEARNING = ("linear", "knn")  # from training labels; the others judge heads of the checkpoint
MODES = {"linear_eval": "linear", "classifier_eval": "classifier", "online_classifier_eval": "online"}
LABELS = ("all_tasks", "seen_tasks", "current_task")
# May differ from what the experiment, or the checkpoint's training, had.
FREE = ("data_dir", "image_cache", "num_workers", "gpus", "accelerator", "precision", "dry_run")
UNUSED = ("classifier_lr", "accumulate_grad_batches")  # of the optimisation, by the linear classifier
USAGE = "python -m kaizen.evaluate --experiment FOLDER | --pretrained_model CKPT --dataset NAME ... [--protocol NAME]"


@dataclass
class EvaluationFlags:
    """The flags that only an evaluation has."""

    experiment: str | None = flag(None, "folder of an experiment: judge the end of each of its tasks", RUN)
    pretrained_feature_extractor: str | None = flag(None, "judge the encoder of this one checkpoint", RUN)
    protocol: str | None = flag(
        None, "what judges: a linear layer or k nearest neighbours on frozen features, or heads of the checkpoint "
        "itself [linear]", EVAL, choices=PROTOCOLS,
    )  # fmt: skip
    evaluation_mode: str | None = flag(None, "the published name of the protocol", EVAL, choices=tuple(MODES))
    labels: str | None = flag(
        None, "training labels of linear and knn [all_tasks; knn of an experiment: as in training]", EVAL,
        choices=LABELS, aliases=("linear_classifier_training_data_source",),
    )  # fmt: skip
    tasks: list[int] | None = flag(None, "with --experiment: tasks to judge after [all]", EVAL, bounds=NOT_NEGATIVE)
    out: str | None = flag(None, "with one checkpoint: folder for the result and the features", RUN)

    def checkpoint(self, args: Args) -> tuple[Path, str]:
        """The one checkpoint to judge, and the flag that names it."""
        if self.pretrained_feature_extractor is not None:
            return Path(self.pretrained_feature_extractor), "--pretrained_feature_extractor"
        return Path(args.pretrained_model or ""), "--pretrained_model"


@dataclass(frozen=True)
class Protocol:
    """How models are judged.

    Attributes:
        name: one of PROTOCOLS.
        labels: whose training labels linear and knn see, one of LABELS.
        knn_k: neighbours.
        linear: flags of the linear classifier's training.
        head: what the result is called.
    """

    name: str
    labels: str
    knn_k: int
    linear: Args
    head: str

    def settings(self) -> dict[str, Any]:
        """What the accuracies depend on, besides the model and the data."""
        if self.name == "knn":
            return {"labels": self.labels, "knn_k": self.knn_k}
        if self.name != "linear":
            return {}
        return {"labels": self.labels, **{name: getattr(self.linear, name) for name in linear_flags()}}

    def __str__(self) -> str:
        if self.name == "knn":
            return f"{self.knn_k} nearest neighbours, labels of {self.labels}"
        if self.name != "linear":
            return f"the {self.name} head of the checkpoint"
        linear = self.linear
        steps = f" at {' '.join(map(str, linear.lr_decay_steps))}" if linear.scheduler == "step" else ""
        return (
            f"linear, labels of {self.labels}; {linear.optimizer}, rate {linear.lr:g}, {linear.scheduler}{steps}, "
            f"{linear.max_epochs} epochs in batches of {linear.batch_size}"
        )


def read_request(argv: list[str]) -> tuple[EvaluationFlags, Args]:
    """Parse a command line.

    Raises:
        UsageError: an unknown flag, or not exactly one thing to judge.
    """
    args = parse(argv, flags_of_fields(EvaluationFlags), USAGE)
    asked, args.method_flags = EvaluationFlags(**args.method_flags), {}
    things = ("experiment", "pretrained_feature_extractor", "pretrained_model")
    named = [f"--{name}" for name in things if name in args.given]
    if len(named) != 1:
        given = " and ".join(named) if named else "nothing to judge"
        raise UsageError(f"{given}: give one of --experiment, --pretrained_feature_extractor, --pretrained_model")
    mode = MODES.get(asked.evaluation_mode or "")
    if asked.protocol and mode and asked.protocol != mode:
        raise UsageError(
            f"--protocol {asked.protocol}: is not --evaluation_mode {asked.evaluation_mode}; give one of them"
        )
    asked.protocol = asked.protocol or mode or "linear"
    return asked, args


def linear_flags() -> list[str]:
    """The flags of the linear classifier's training."""
    optimisation = [item.name for item in core_flags() if item.theme == OPTIM]
    return [name for name in optimisation if name not in UNUSED] + ["batch_size", "classifier_layers", "seed"]


def unused_flags(asked: EvaluationFlags, args: Args) -> list[str]:
    """Given flags that change nothing: those of the training alone, and --labels where nothing is learned."""
    of_protocol = {"linear": linear_flags(), "knn": ["knn_k"]}.get(asked.protocol or "linear", [])
    used = {*of_protocol, *_model_flags()}
    training = [item for item in core_flags() if item.theme in (VIEWS, NETS, OPTIM, DISTILL, EVAL, TASKS)]
    unused = [item.name for item in training if item.name in args.given - used]
    return unused + (["labels"] if asked.labels and asked.protocol not in LEARNING else [])


def of_experiment(flags: dict[str, Any], args: Args) -> Args:
    """The flags of an experiment, with those of the evaluation that may differ.

    Raises:
        UsageError: a flag that says otherwise than the experiment.
    """
    for name in sorted((args.given & _model_flags()) - {*FREE}):
        raise UsageError(f"--{name}: is the experiment's own; leave it out with --experiment")
    return _with_given(_anywhere(args_from(flags)), args, FREE)


def of_checkpoint(flags: dict[str, Any], args: Args) -> Args:
    """The data and the encoder of one checkpoint: as given, or else as its own flags say, where it has any.

    On another data set than its own, its flags speak of the encoder and the size of the images alone.

    Raises:
        UsageError: flags that do not go together.
    """
    base = _anywhere(args_from(flags)) if flags else Args(method=next(iter(METHODS)))  # any: no method has a part in it
    own_data = bool(flags) and args.dataset in ("", base.dataset)
    if not own_data:
        base.size = [image_size(base)] if flags else None
        fresh = [item.name for item in core_flags() if item.theme in (DATA, TASKS) and item.name != "size"]
        base = replace(base, **{name: getattr(Args(), name) for name in fresh})
    known = {"num_tasks"} if own_data else set()  # not to be counted anew
    model = replace(_with_given(base, args, (*_model_flags(), *FREE)), given=args.given | known)
    model.disable_knn_eval = False  # what a training without labels left out is possible with some
    return complete(model)


def build_protocol(asked: EvaluationFlags, args: Args, model: Args, method: str) -> Protocol:
    """The protocol that the flags ask for.

    Args:
        asked, args: what was given.
        model: the flags of what is judged.
        method: that trained it, "" if unknown; the published rate goes by it.

    Raises:
        UsageError: flags of the linear classifier's training that do not go together.
    """
    name = asked.protocol or "linear"
    as_in_training = asked.experiment is not None and name == "knn"
    usual = model.online_evaluation_training_data_source if as_in_training else "all_tasks"
    labels, k = asked.labels or usual, model.knn_k
    head = f"{name}_{labels}" if name in LEARNING and labels != usual else name
    if name == "knn" and "knn_k" in args.given and args.knn_k != k:
        k = args.knn_k
        head += f"_k{k}"
    linear = with_published_defaults(replace(args, seed=args.seed if "seed" in args.given else model.seed), method)
    if name == "linear":
        check_optimisation(linear)
    return Protocol(name, labels, k, linear, head)


def _model_flags() -> set[str]:
    """What speaks of the model and its data."""
    themes = [item.name for item in core_flags() if item.theme in (DATA, TASKS, NETS)]
    linear = linear_flags()
    return {name for name in themes if name not in linear and not name.startswith(("replay", "classifier_"))}


def _anywhere(base: Args) -> Args:
    """Flags of a training without what they say of the place where it ran: this may be another machine."""
    return replace(base, gpus=None, accelerator="auto", compile=False)


def _with_given(base: Args, args: Args, names: Iterable[str]) -> Args:
    return replace(base, **{name: getattr(args, name) for name in names if name in args.given})
