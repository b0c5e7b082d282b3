from __future__ import annotations

import pytest
import torch
from helpers import changed, state_of
from torch import nn

from kaizen.models.frozen import FrozenModel


def parts() -> tuple[nn.Module, nn.Module, nn.Module]:
    encoder = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return encoder, nn.Linear(8, 4), nn.Linear(8, 5)


def views(shift: float = 0.0) -> list[torch.Tensor]:
    return [torch.randn(6, 3, 8, 8) + shift for _ in range(2)]


@pytest.mark.parametrize("batchnorm", ["batch", "running"])
def test_it_is_a_copy_without_gradient(batchnorm: str) -> None:
    encoder, projector, classifier = parts()
    frozen = FrozenModel(encoder, projector, classifier, batchnorm)
    images = views()
    before = frozen(images)
    for p in (*encoder.parameters(), *projector.parameters(), *classifier.parameters()):
        p.data.add_(1)
    after = frozen(images)
    for one, other in zip((*before.z, *before.logits), (*after.z, *after.logits), strict=True):
        assert torch.equal(one, other) and not one.requires_grad
    assert [t.shape for t in (*after.z, *after.logits)] == [(6, 4)] * 2 + [(6, 5)] * 2
    assert not any(p.requires_grad for p in frozen.parameters())
    assert all(p.requires_grad for p in encoder.parameters())


def test_without_a_classifier_there_are_no_logits() -> None:
    encoder, projector, _ = parts()
    assert FrozenModel(encoder, projector, None, "batch")(views()).logits == []


@pytest.mark.parametrize("outer", ["as built", "train", "eval then train"])
def test_running_statistics_are_used_and_never_change(outer: str) -> None:
    encoder, projector, classifier = parts()
    for _ in range(50):
        encoder(torch.randn(6, 3, 8, 8))
    frozen = FrozenModel(encoder, projector, classifier, "running")
    if outer == "eval then train":
        frozen.eval()
    if outer != "as built":
        frozen.train()
    before = state_of(frozen)
    shifted = frozen(views(shift=5.0))
    assert changed(frozen, before) == set()
    encoder.eval(), projector.eval()
    torch.manual_seed(0)
    images = views(shift=5.0)
    for view, z in zip(images, frozen(images).z, strict=True):
        assert torch.equal(z, projector(encoder(view)))
    assert len(shifted.z) == 2


def test_batch_statistics_are_those_of_each_view() -> None:
    encoder, projector, classifier = parts()
    frozen = FrozenModel(encoder.eval(), projector, classifier, "batch")  # whatever mode the copy comes in
    images = views(shift=5.0)
    encoder.train()
    for view, z in zip(images, frozen(images).z, strict=True):
        assert torch.equal(z, projector(encoder(view)))
    frozen.eval()
    assert not torch.equal(frozen(images).z[0], projector(encoder(images[0])))
