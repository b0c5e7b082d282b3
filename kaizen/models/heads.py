"""Projectors, predictors and classifiers: all of them are multi-layer perceptrons."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class UnitLength(nn.Module):
    """Rows (B, dim) of any length -> of length 1."""

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise each row."""
        return F.normalize(rows, dim=1)


def mlp(
    widths: Sequence[int], batch_norm: bool = False, activation: Callable[[], nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Linear layers with (BatchNorm and) an activation between them; the last one is bare.

    lightly's heads drop the bias in front of a BatchNorm; the published networks keep it.

    Args:
        widths: input, hidden and output widths; two of them make a linear layer.
        batch_norm: normalise each hidden layer.
        activation: makes what follows a hidden layer.

    Returns:
        (B, widths[0]) -> (B, widths[-1]).
    """
    layers: list[nn.Module] = []
    for before, after in zip(widths[:-2], widths[1:-1], strict=True):
        layers.append(nn.Linear(before, after))
        if batch_norm:
            layers.append(nn.BatchNorm1d(after))
        layers.append(activation())
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))
