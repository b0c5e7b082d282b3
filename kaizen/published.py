"""Checkpoints of the published code, Kaizen's and CaSSLe's (Lightning 1.5, torch 1.10): read safely, in our names."""

from __future__ import annotations

import io
import re
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from kaizen.archive import read_archive
from kaizen.opcodes import CALLS, Refused, calls_in

# Part of the model there -> here. Kaizen's names, CaSSLe's where they differ.
PARTS = {
    "encoder": "method.encoder",
    "projector": "method.projector",
    "predictor": "method.predictor",
    "prototypes": "method.prototypes",
    "queue": "method.queue",
    "queue_ptr": "method.queue_ptr",
    "momentum_encoder": "method.momentum.encoder",
    "momentum_projector": "method.momentum.projector",
    "head.mlp": "method.projector",
    "head.last_layer": "method.prototypes",
    "momentum_head.mlp": "method.momentum.projector.0",
    "momentum_head.last_layer": "method.momentum.projector.2",
    "dino_loss_func": "method.criterion",
    "classifier": "classifier",
    "online_eval_classifier": "probes.online",
    "momentum_classifier": "probes.momentum_online",
    "frozen_encoder": "frozen.encoder",
    "frozen_projector": "frozen.projector",
    "frozen_classifier": "frozen.classifier",
    "frozen_prototypes": "frozen.prototypes",
    "feature_extractor_frozen_prototypes": "frozen.prototypes",
    "feature_extractor_distill_prototypes": "distill_features.prototypes",
    "distill_prototypes": "distill_features.prototypes",
    "feature_extractor_distill_predictor": "distill_features.predictor",
    "distill_predictor": "distill_features.predictor",
    "classifier_distill_predictor": "distill_classifier.predictor",
}
# How torch keeps a layer whose weight is a direction and a length.
WEIGHT_NORM = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
HEADS = ("classifier", "online_eval_classifier", "momentum_classifier", "frozen_classifier")


class Inert:
    """Stands in for every class and function that a file names and weights do not need: made, filled, never run."""

    def __init__(self, *args: Any) -> None:
        """Take whatever the file gives."""

    def __setstate__(self, state: Any) -> None:
        """Forget what the file says it holds."""


def read_weights(path: Path) -> Any:
    """What torch.save wrote, checked byte for byte, without running code from the file.

    torch's weights-only reader builds tensors and plain containers. A published checkpoint also holds its
    hyper-parameters, as objects of whatever classes they had. Each name that the reader does not know stands for
    `Inert` while this file is read, so nothing that the file names is ever imported or called.

    Raises:
        Exception: of many kinds, where the file is damaged or asks for more than that.
    """
    archive = read_archive(path)
    unknown = get_unsafe_globals_in_checkpoint(io.BytesIO(archive.content))
    if needless := calls_in(archive.pickle, archive.sizes) - CALLS - {*unknown}:
        raise Refused(f"calls {', '.join(sorted(needless))}")
    # The reader fills plain dicts alone; Lightning's own kind of dict becomes one.
    stand_ins: list[Any] = [(OrderedDict if name.endswith(".AttributeDict") else Inert, name) for name in unknown]
    with safe_globals(stand_ins):
        return torch.load(io.BytesIO(archive.content), map_location="cpu", weights_only=True)


def is_state(content: Any) -> bool:
    """Is this a state_dict: names and tensors, and at least one of them."""
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )


def translate(content: Any) -> tuple[dict[str, Tensor], list[str]] | None:
    """Take the weights out of a published checkpoint, or out of a bare state_dict in its names or ours.

    Returns:
        The state in our names, and the names of what is left aside: the frozen copies, unknown parts of the model, and
        what a checkpoint holds besides the model. None where there is no encoder in it.
    """
    if not isinstance(content, dict):
        return None
    state = content.get("state_dict", content)
    if not is_state(state):
        return None
    if any(name.startswith("method.encoder.") for name in state):
        return dict(state), []
    names = our_names(state)
    if not any(name.startswith("method.encoder.") for name in names.values()):
        return None
    taken = _completed({ours: state[name] for name, ours in names.items() if not ours.startswith("frozen.")})
    aside = {name.split(".")[0] for name in state if names.get(name, "frozen.").startswith("frozen.")}
    besides = [name for name, value in content.items() if name != "state_dict" and isinstance(value, dict | list)]
    return taken, sorted(aside) + (sorted(besides) if state is not content else [])


def our_names(published: Iterable[str]) -> dict[str, str]:
    """Name in a published state_dict -> name in that of `ContinualLearner`, for every part that we have.

    Args:
        published: all names of the state_dict. The hidden layers of a classifier are fc_0, fc_1, ... there, and
            the last one is fc_output; how many there are says where the last one stands in our Sequential.
    """
    names = list(published)
    return {name: _our_name(name, part, names) for name in names if (part := _part(name))}


def _part(name: str) -> str | None:
    return next((part for part in PARTS if name == part or name.startswith(f"{part}.")), None)


def _completed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put in what we keep and the published code does not: where SwAV's queue goes on, a dimension of DINO's centre."""
    if "method.queue" in state and "method.queue_ptr" not in state:
        state["method.queue_ptr"] = torch.zeros(1, dtype=torch.long)
    if (centre := state.get("method.criterion.center")) is not None:
        state["method.criterion.center"] = centre.reshape(1, 1, -1)
    return state


def _our_name(name: str, part: str, names: list[str]) -> str:
    rest = name.removeprefix(part).removeprefix(".")
    rest = WEIGHT_NORM.get(rest, rest)
    if part in HEADS and rest in ("weight", "bias"):  # one bare layer there, the only one of a Sequential here
        rest = f"0.{rest}"
    hidden = {n.split(".")[1] for n in names if re.match(rf"{part}\.fc_\d+\.", n)}
    rest = re.sub(r"^fc_(\d+|output)\b", lambda m: _position(m[1], len(hidden)), rest)
    return f"{PARTS[part]}.{rest}" if rest else PARTS[part]


def _position(layer: str, num_hidden: int) -> str:
    """Place of a linear layer; a ReLU stands between each two."""
    return str(2 * (num_hidden if layer == "output" else int(layer)))
