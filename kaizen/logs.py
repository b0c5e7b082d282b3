"""Numbers on their way from batches to the loggers and the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Meter:
    """Sums named scalars where they are and hands out their means at once, so that no step waits for the device."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor | float] = {}
        self.counts: dict[str, int] = {}
        self.latest: dict[str, float] = {}

    def state(self) -> dict[str, Any]:
        """All of it, to go on from later."""
        return {"sums": dict(self.sums), "counts": dict(self.counts), "latest": dict(self.latest)}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.sums, self.counts, self.latest = dict(state["sums"]), dict(state["counts"]), dict(state["latest"])

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Take in one value for each name. Numbers stay with the host."""
        for name, value in values.items():
            number = value.detach().float() if isinstance(value, Tensor) else value
            self.sums[name] = self.sums.get(name, 0.0) + number
            self.counts[name] = self.counts.get(name, 0) + 1

    def flush(self) -> dict[str, float]:
        """Means since the last flush, fetched in one transfer."""
        if self.sums:
            tensors = {name: value for name, value in self.sums.items() if isinstance(value, Tensor)}
            fetched = torch.stack([*tensors.values()]).tolist() if tensors else []
            sums = {**self.sums, **dict(zip(tensors, fetched, strict=True))}
            self.latest = {name: value / self.counts[name] for name, value in sums.items()}
            self.sums, self.counts = {}, {}
        return self.latest


def accuracies(name: str, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Top-1 and top-5 accuracy in 0-1 over the labelled images of a batch."""
    with torch.no_grad():
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hits = best == targets[:, None]
        labelled = (targets != -1).sum().clamp(min=1)
        return {f"{name}_acc1": hits[:, 0].sum() / labelled, f"{name}_acc5": hits.sum() / labelled}


def mean_by_task(correct: Tensor, tasks: list[Tensor]) -> list[float]:
    """Accuracy in 0-1 on each task.

    Args:
        correct: one bool per test image, (N,).
        tasks: for each task, the indices of its test images.
    """
    return [float(correct[indices].float().mean()) for indices in tasks]
