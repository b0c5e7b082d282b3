"""Values on their way from the training step to the loggers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Meter:
    """Sums named scalars where they are and hands out their means at once, so that no step waits for the device."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor | float] = {}
        self.counts: dict[str, int] = {}
        self.latest: dict[str, float] = {}

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
