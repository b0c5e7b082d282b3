from __future__ import annotations

import pytest
import torch
from torch import nn

from kaizen.models.heads import mlp


@pytest.mark.parametrize(
    ("widths", "batch_norm", "kinds"),
    [
        ([4, 3], False, [nn.Linear]),
        ([4, 3], True, [nn.Linear]),
        ([4, 5, 3], False, [nn.Linear, nn.ReLU, nn.Linear]),
        ([4, 5, 3], True, [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]),
        ([4, 5, 6, 3], True, [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]),
    ],
)
def test_layers(widths: list[int], batch_norm: bool, kinds: list[type[nn.Module]]) -> None:
    head = mlp(widths, batch_norm)
    assert [type(layer) for layer in head] == kinds
    assert head(torch.randn(2, 4)).shape == (2, 3)
    assert all(layer.bias is not None for layer in head if isinstance(layer, nn.Linear))
