"""Small crops: they are the method's alone, and every method that takes them learns from them."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import begin_task, method_of, output_of, views_of

from kaizen.methods import METHODS

MULTICROP = [name for name, kind in METHODS.items() if kind.takes_multicrop]
UNLABELLED = torch.full((8,), -1)


@pytest.mark.parametrize("name", MULTICROP)
def test_small_crops_come_after_the_full_ones_and_teach_as_well(name: str) -> None:
    method = method_of(name)
    begin_task(method, views_of(small=2))
    out = output_of(method, views_of(small=2))
    assert out.full == 2 and len(out.feats) == len(out.z) == 4
    for feats in out.feats:
        feats.retain_grad()
    loss = method.loss(out, UNLABELLED)
    assert loss.ndim == 0 and math.isfinite(loss.item())
    loss.backward()
    assert all(feats.grad is not None and feats.grad.any() for feats in out.feats)


@pytest.mark.parametrize("supervised", [False, True])
def test_simclr_attracts_every_pair_of_crops_of_an_image(supervised: bool) -> None:
    method = method_of("simclr", temperature=0.5, supervised=supervised)
    out = method(views_of(small=1))
    targets = torch.tensor([0, 0, 1, 2, -1, -1, 3, 4])
    z = F.normalize(torch.cat(out.z), dim=1)
    weight = (z @ z.T / 0.5).exp()
    label = (targets if supervised else torch.arange(8)).repeat(3).tolist()
    rows = []
    for i in range(24):
        alike = [i % 8 == j % 8 or (label[i] == label[j] != -1) for j in range(24)]
        repelled = sum(weight[i, j] for j in range(24) if not alike[j])
        pairs = [weight[i, j] / (weight[i, j] + repelled) for j in range(24) if alike[j] and j != i]
        rows.append(-torch.stack(pairs).log().mean())
    torch.testing.assert_close(method.loss(out, targets), torch.stack(rows).mean())
