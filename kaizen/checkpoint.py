"""What a finished task leaves behind, and how the next one takes it up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kaizen.args import UsageError
from kaizen.files import atomic_path
from kaizen.published import is_state, read_weights, translate
from kaizen.trained_on import TrainedOn, is_trained_on

if TYPE_CHECKING:  # reading a checkpoint needs no Lightning, which takes seconds to load
    from kaizen.learner import ContinualLearner

FORMAT = "kaizen-task-1"
# Modules that only live while a task is trained: the teacher is the task before, which has a checkpoint of its own.
TRANSIENT = ("frozen.", "distill_features.frozen_prototypes.")
# What a model from elsewhere may lack: it begins anew then. Encoder and projector must be there.
OPTIONAL = ("classifier.", "probes.", "distill_features.", "distill_classifier.")


def lasting(state: dict[str, Any]) -> dict[str, Any]:
    """A learner's state without its transient modules."""
    return {name: value for name, value in state.items() if not name.startswith(TRANSIENT)}


def save_task(
    learner: ContinualLearner,
    path: Path,
    task_idx: int,
    flags: dict[str, Any],
    seconds: float = 0.0,
    trained_on: TrainedOn | None = None,
) -> None:
    """Write the end of a task, whole or not at all: plain tensors, strings and numbers, safe to load from anyone.

    Args:
        learner: as trained.
        path: of the file.
        task_idx, flags: for the reader.
        seconds: of training.
        trained_on: the classes, for those who use the model.
    """
    state = lasting(learner.state_dict())
    content = {"format": FORMAT, "task_idx": task_idx, "flags": flags, "seconds": seconds, "state": state}
    if trained_on is not None:
        content["trained_on"] = asdict(trained_on)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:  # torch says of a stream that the disk is full
        torch.save(content, stream)


def read_checkpoint(path: Path, flag: str) -> Any:
    """Read what torch.save wrote. All bytes are checked, and no code from the file is run.

    Args:
        path: the file.
        flag: what the user gave it with, for the message.

    Returns:
        Plain containers, numbers, strings and dense tensors on the CPU; objects of other kinds are empty ones.

    Raises:
        UsageError: the file is missing, damaged, or holds what weights do not need.
    """
    if not path.is_file():
        raise UsageError(f"{flag} {path}: no such file; give the task*/final.ckpt of an experiment")
    try:
        return read_weights(path)
    except PermissionError:
        raise UsageError(f"{flag} {path}: may not be read; make it readable") from None
    except Exception:  # readers stumble over damaged bytes in many ways
        raise UsageError(f"{flag} {path}: cut short, damaged or not a checkpoint; give a whole one") from None


def load_task(path: Path, flag: str) -> dict[str, Any]:
    """Read what `save_task` wrote, or a checkpoint of the published code. No code from the file is run.

    Args:
        path: the file.
        flag: what the user gave it with, for the message.

    Returns:
        "state", in our names; "flags" of the experiment, none for a published one; "aside", names of what a
        published one holds and we do not use.

    Raises:
        UsageError: the file is missing, damaged, or something else than such a checkpoint.
    """
    content = read_checkpoint(path, flag)
    if _is_task(content):
        return {"aside": [], **content}
    if (published := translate(content)) is not None:
        return {"flags": {}, "state": published[0], "aside": published[1]}
    raise UsageError(f"{flag} {path}: not a checkpoint of Kaizen or CaSSLe; give the task*/final.ckpt of an experiment")


def _is_task(content: Any) -> bool:
    """Is this what `save_task` writes."""
    return (
        isinstance(content, dict)
        and content.get("format") == FORMAT
        and is_state(content.get("state"))
        and isinstance(content.get("flags"), dict)
        and type(content.get("task_idx")) is int
        and is_trained_on(content.get("trained_on"), content["task_idx"])
    )


def restore(
    learner: ContinualLearner, checkpoint: dict[str, Any], path: Path, flag: str, optional: tuple[str, ...]
) -> list[str]:
    """Take over the weights of an earlier task.

    Args:
        learner: built for the task that begins.
        checkpoint: from `load_task`.
        path, flag: for the message.
        optional: prefixes of parts that may be missing in the checkpoint and begin anew, or be left aside there.

    Returns:
        The parts that begin anew or are left aside, one word each, sorted.

    Raises:
        UsageError: the checkpoint is of another architecture.
    """
    state: dict[str, Tensor] = checkpoint["state"]
    own = lasting(learner.state_dict())
    odd = {name.split(".")[0] for name in own.keys() ^ state.keys() if name.startswith(optional)}
    kept = {name: value for name, value in state.items() if not name.startswith(tuple(f"{part}." for part in odd))}
    wanted = {name: value for name, value in own.items() if not name.startswith(tuple(f"{part}." for part in odd))}
    check_same(wanted, kept, path, flag)
    learner.load_state_dict(kept, strict=False)  # both sides were compared name by name above
    return sorted({*odd, *checkpoint["aside"]})


def load_part(module: nn.Module, state: dict[str, Tensor], prefix: str, path: Path, flag: str) -> None:
    """Give a module the weights that stand under a prefix of a checkpoint's state.

    A module without memory, on the meta device, gets some on the CPU once it is known that the weights fit.

    Raises:
        UsageError: they are of another architecture.
    """
    part = check_part(module, state, prefix, path, flag)
    if any(value.is_meta for value in module.state_dict().values()):
        module.to_empty(device="cpu")
    module.load_state_dict(part)


def check_part(module: nn.Module, state: dict[str, Tensor], prefix: str, path: Path, flag: str) -> dict[str, Tensor]:
    """The weights that stand under a prefix. Raises UsageError where they are of another architecture."""
    part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    check_same(module.state_dict(), part, path, flag, prefix)
    return part


def check_same(own: Mapping[str, Tensor], there: Mapping[str, Tensor], path: Path, flag: str, prefix: str = "") -> None:
    """Raises UsageError where names, given without their `prefix`, or shapes are not those of a checkpoint."""
    for name in sorted(own.keys() | there.keys()):
        _refuse(_mismatch(prefix + name, own.get(name), there.get(name)), path, flag)


def new_parts(task_idx: int) -> tuple[str, ...]:
    """Prefixes of what task `task_idx` adds to the one before: the distillation predictors, at the second task."""
    return ("distill_features.", "distill_classifier.") if task_idx == 1 else ()


def _mismatch(name: str, here: Tensor | None, there: Tensor | None) -> str:
    if there is None:
        return f"{name} is missing there"
    if here is None:
        return f"{name} is there and not here"
    if here.shape != there.shape:
        return f"{name} is {tuple(there.shape)} there and {tuple(here.shape)} here"
    return ""


def _refuse(problem: str, path: Path, flag: str) -> None:
    if problem:
        raise UsageError(f"{flag} {path}: another architecture; {problem}; use the flags it was trained with")
