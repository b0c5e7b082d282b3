from __future__ import annotations

import pytest
import torch
from torch import nn

from kaizen.models.encoders import SMALL_IMAGE, build_encoder


@pytest.mark.parametrize(
    ("name", "width", "dim"), [("resnet18", 1.0, 512), ("resnet9", 0.25, 128), ("resnet9", 0.125, 64)]
)
def test_images_become_features(name: str, width: float, dim: int) -> None:
    encoder, feature_dim = build_encoder(name, 16, width=width)
    assert feature_dim == dim
    assert encoder(torch.randn(2, 3, 16, 16)).shape == (2, dim)


def test_resnet50_has_2048_features() -> None:
    with torch.device("meta"):
        encoder, feature_dim = build_encoder("resnet50", 224)
        assert feature_dim == 2048
        assert encoder.eval()(torch.randn(2, 3, 224, 224)).shape == (2, 2048)


@pytest.mark.parametrize(("padding", "side"), [(2, 34), (1, 32), (0, 30)])
def test_small_images_get_a_stem_without_stride_and_pooling(padding: int, side: int) -> None:
    encoder, _ = build_encoder("resnet18", 32, stem_padding=padding)
    assert encoder.conv1(torch.zeros(1, 3, 32, 32)).shape == (1, 64, side, side)
    assert isinstance(encoder.maxpool, nn.Identity) and encoder.conv1.bias is None


def test_large_images_keep_torchvisions_stem() -> None:
    small, _ = build_encoder("resnet18", SMALL_IMAGE)
    large, _ = build_encoder("resnet18", SMALL_IMAGE + 1)
    assert small.conv1.kernel_size == (3, 3)
    assert large.conv1.kernel_size == (7, 7) and isinstance(large.maxpool, nn.MaxPool2d)


def test_width_multiplies_the_channels_of_resnet9() -> None:
    sizes = [sum(p.numel() for p in build_encoder("resnet9", 16, width=w)[0].parameters()) for w in (0.125, 0.25)]
    assert 3.5 < sizes[1] / sizes[0] < 4.1
    assert 0.25e6 < sizes[1] < 0.35e6


@pytest.mark.parametrize("name", ["resnet18", "resnet9"])
def test_a_gradient_reaches_every_parameter(name: str) -> None:
    encoder, _ = build_encoder(name, 8, width=0.125)
    encoder(torch.randn(4, 3, 8, 8)).square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []
