"""What the numbers of an experiment mean, in plain words."""

from __future__ import annotations

from dataclasses import dataclass

from kaizen.metrics import METRICS


@dataclass(frozen=True)
class Metric:
    """A metric for people.

    Attributes:
        meaning: what question it answers.
        formula: how it is computed, in words.
        better: "higher" or "lower"; empty where nobody has said.
    """

    meaning: str
    formula: str
    better: str

    @property
    def arrow(self) -> str:
        """The better direction as a sign."""
        return {"higher": "\u2191", "lower": "\u2193"}.get(self.better, "")

    @property
    def direction(self) -> str:
        """The better direction in words."""
        return f"{self.arrow} {self.better} is better" if self.better else ""


_METRICS = {
    "final_accuracy": Metric(
        "How good the model is on everything it has seen, once all of it is learned.",
        "mean of the last row of the accuracy matrix, over the tasks seen",
        "higher",
    ),
    "continual_accuracy": Metric(
        "How good the model was at any time of the run, not only at its end.",
        "after each task the mean accuracy on the tasks seen so far; then the mean of these means",
        "higher",
    ),
    "forgetting": Metric(
        "How much of what the model once knew about earlier tasks it has lost; below 0 it got better at them.",
        "for each task but the last: the best accuracy it had before, minus that of the last row; the mean",
        "lower",
    ),
    "backward_transfer": Metric(
        "How later tasks changed what earlier ones had reached; below 0 they took from it.",
        "for each task but the last: accuracy in the last row minus that right after its own training; the mean",
        "higher",
    ),
    "forward_transfer": Metric(
        "How much a task gains from those before it, ahead of its own training.",
        "for each task but the first: accuracy just before its training minus that of the untrained network; the mean",
        "higher",
    ),
}  # fmt: skip

HEADS = {
    "classifier": "the classifier that is trained along with the features, on labels of task and replay images",
    "online": "a probe: a layer trained on the features on the way; it judges them and teaches them nothing",
    "momentum_online": "the same probe on the momentum encoder, a slow average of the encoder",
    "knn": "nearest neighbours: each test image takes the class of the training images whose features are nearest",
    "linear": "a linear layer trained on the finished features, with labels, after the task",
}
ORDER = ("classifier", "online", "linear", "knn", "momentum_online")  # from the most to the least important

LOSSES = {
    "loss": "All terms with their weights: what is minimised.",
    "ssl": "The self-supervised loss: views of one image should have like features. Needs no labels.",
    "classifier": "Cross-entropy of the classifier on labelled images.",
    "distill_features": "Feature distillation: features stay near those of the model as it was before the task.",
    "distill_classifier": "Classifier distillation: answers stay near those that the model gave before the task.",
    "online": "Cross-entropy of the probe on the encoder; it trains the probe alone.",
    "momentum_online": "Cross-entropy of the probe on the momentum encoder; it trains the probe alone.",
}
SIGNS = {
    "z_std": "Spread of the projections; a fall to 0 is collapse: all images look alike to the network.",
    "tau": "How slowly the momentum encoder follows: it keeps this share of itself at each step.",
    "skipped_steps": "Steps that were left out because fp16 overflowed; a few at the start are normal.",
}


def spaced(name: str) -> str:
    """A name for people."""
    return name.replace("_", " ")


def metric_words(name: str) -> Metric:
    """What is known of a metric; of one that is new here, what its function says."""
    if name in _METRICS:
        return _METRICS[name]
    said = (getattr(METRICS.get(name), "__doc__", None) or "").strip().partition("\n")[0]
    return Metric(said, "", "")


def importance(heads: list[str]) -> list[str]:
    """Heads from the most to the least important."""
    return sorted(heads, key=lambda head: (ORDER.index(head) if head in ORDER else len(ORDER), head))


def head_words(head: str) -> str:
    """What a head is."""
    return HEADS.get(head, "a head that was evaluated after the training")
