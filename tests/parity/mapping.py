"""From the names of the published code's checkpoints to ours."""

from __future__ import annotations

import re
from collections.abc import Iterable

PARTS = {
    "encoder": "method.encoder",
    "projector": "method.projector",
    "predictor": "method.predictor",
    "queue": "method.queue",
    "queue_ptr": "method.queue_ptr",
    "momentum_encoder": "method.momentum.encoder",
    "momentum_projector": "method.momentum.projector",
    "classifier": "classifier",
    "online_eval_classifier": "probes.online",
    "momentum_classifier": "probes.momentum_online",
    "frozen_encoder": "frozen.encoder",
    "frozen_projector": "frozen.projector",
    "frozen_classifier": "frozen.classifier",
    "feature_extractor_distill_predictor": "distill_features.predictor",
    "classifier_distill_predictor": "distill_classifier.predictor",
}
# Heads that are one bare layer there, and the only layer of a Sequential here.
BARE_HEADS = ("momentum_classifier",)


def our_names(published: Iterable[str]) -> dict[str, str]:
    """Name in a published state_dict -> name in that of `ContinualLearner`.

    Args:
        published: all names of the state_dict. The hidden layers of a classifier are fc_0, fc_1, ... there, and
            the last one is fc_output; how many there are says where the last one stands in our Sequential.

    Raises:
        KeyError: a part that we do not have, by its name.
    """
    names = list(published)
    return {name: _our_name(name, names) for name in names}


def _our_name(name: str, names: list[str]) -> str:
    part, _, rest = name.partition(".")
    if part in BARE_HEADS:
        rest = f"0.{rest}"
    hidden = {n.split(".")[1] for n in names if re.match(rf"{part}\.fc_\d+\.", n)}
    rest = re.sub(r"^fc_(\d+|output)\b", lambda m: _position(m[1], len(hidden)), rest)
    return f"{PARTS[part]}.{rest}" if rest else PARTS[part]


def _position(layer: str, num_hidden: int) -> str:
    """Place of a linear layer; a ReLU stands between each two."""
    return str(2 * (num_hidden if layer == "output" else int(layer)))
