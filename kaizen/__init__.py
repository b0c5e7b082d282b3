"""Kaizen: continual self-supervised learning that keeps both the features and the classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from kaizen.trained import TrainedModel


def load(path: str | PathLike[str], head: str = "classifier") -> TrainedModel:
    """Load a trained model, to use it.

    Args:
        path: a task<k>/final.ckpt; or the folder of an experiment, whose newest finished task is taken then.
        head: what predicts: "classifier", or a probe where the training had one, "online" or "momentum_online".

    Returns:
        The model on the CPU.

    Raises:
        UsageError: there is no such model, or it lacks the head. It may lack a classifier: features work then.
    """
    import warnings

    from kaizen.trained import load_trained  # here: torch takes long to load

    model = load_trained(path, head, "kaizen.load")
    if model.notice:
        warnings.warn(model.notice, stacklevel=2)
    return model
