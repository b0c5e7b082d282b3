from __future__ import annotations

import pytest
import torch
from torch import nn

from kaizen.models.momentum import MomentumNetwork


def network(base: float = 0.9, final: float = 1.0) -> tuple[nn.Module, nn.Module, MomentumNetwork]:
    encoder = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    projector = nn.Linear(8, 4)
    return encoder, projector, MomentumNetwork(encoder, projector, base, final)


def test_it_begins_as_a_copy_that_is_not_trained() -> None:
    encoder, projector, momentum = network()
    images = torch.randn(4, 3, 8, 8)
    out = momentum(images)
    assert torch.equal(out, projector(encoder(images))) and not out.requires_grad
    assert not any(p.requires_grad for p in momentum.parameters())
    assert all(p.requires_grad for p in encoder.parameters())


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0])
def test_an_update_is_an_exponential_moving_average(tau: float) -> None:
    encoder, projector, momentum = network()
    for p in (*encoder.parameters(), *projector.parameters()):
        p.data.add_(torch.randn_like(p))
    pairs = [
        *zip(momentum.encoder.parameters(), encoder.parameters(), strict=True),
        *zip(momentum.projector.parameters(), projector.parameters(), strict=True),
    ]
    expected = [tau * slow + (1 - tau) * fast for slow, fast in pairs]
    momentum.update(encoder, projector, tau)
    for (slow, _), value in zip(pairs, expected, strict=True):
        torch.testing.assert_close(slow, value)


def test_batchnorm_statistics_are_its_own() -> None:
    encoder, projector, momentum = network()
    encoder(torch.randn(8, 3, 8, 8) + 5)
    before = momentum.encoder[1].running_mean.clone()
    momentum.update(encoder, projector, 0.5)
    assert torch.equal(momentum.encoder[1].running_mean, before)
    momentum(torch.randn(8, 3, 8, 8) + 5)
    assert not torch.equal(momentum.encoder[1].running_mean, before)


def test_tau_rises_on_a_cosine() -> None:
    _, _, momentum = network(0.9, 1.0)
    taus = [momentum.tau(step, 10) for step in range(10)]
    assert taus[0] == pytest.approx(0.9) and taus[5] == pytest.approx(0.95)
    assert taus == sorted(taus) and taus[-1] < 1
    assert momentum.tau(10, 10) == pytest.approx(1.0)
    _, _, constant = network(0.99, 0.99)
    assert [constant.tau(step, 10) for step in (0, 9)] == pytest.approx([0.99, 0.99])
