"""Values on their way from the training step to the loggers."""

from __future__ import annotations

import torch
from torch import Tensor


class Meter:
    """Sums named scalars where they are and hands out their means at once, so that no step waits for the device."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.latest: dict[str, float] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Take in one value for each name."""
        for name, value in values.items():
            value = value.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def flush(self) -> dict[str, float]:
        """Means since the last flush, fetched in one transfer."""
        if self.sums:
            device = next(iter(self.sums.values())).device
            sums = torch.stack([value.to(device) for value in self.sums.values()]).tolist()
            self.latest = {name: s / self.counts[name] for name, s in zip(self.sums, sums, strict=True)}
            self.sums, self.counts = {}, {}
        return self.latest
