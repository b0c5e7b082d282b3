from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kaizen.models import convolution
from kaizen.models.convolution import ROWS, WideConv2d, weight_gradient, widen
from kaizen.models.encoders import build_encoder


def gradients(conv: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output, gradient of the images and of the weight, of a loss that weighs each output differently."""
    images = images.clone().requires_grad_()
    conv.zero_grad()
    out = conv(images)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)).sum().backward()
    assert images.grad is not None and isinstance(conv.weight.grad, Tensor)
    return out, images.grad, conv.weight.grad


@pytest.mark.parametrize("size", [5, 8, 23])  # batches of patches with and without a rest, and image by image
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (3, 1, 2), (5, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gradients_of_a_convolution(
    size: int, kernel: int, stride: int, padding: int, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "WIDE", 0)  # always ours
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 4, kernel, stride, padding, bias=False).to(memory_format=layout)
    images = torch.randn(ROWS // 64 + 3, 6, size, size).to(memory_format=layout)
    wide = WideConv2d.like(copy.deepcopy(plain))
    expected = gradients(copy.deepcopy(plain).double(), images.double())
    for found, wanted in zip(gradients(wide, images), expected, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("channels", "size", "ours"), [(64, 4, True), (64, 5, False), (256, 5, True)])
@pytest.mark.parametrize("needs_input", [True, False])
def test_small_maps_and_wide_layers_are_ours(
    channels: int, size: int, ours: bool, needs_input: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(convolution, "weight_gradient", lambda *a: (calls.append(a), weight_gradient(*a))[1])
    plain = nn.Conv2d(channels, 8, 3, padding=1, bias=False)
    wide = WideConv2d.like(copy.deepcopy(plain))
    images = [torch.randn(2, channels, size, size).requires_grad_(needs_input)]
    images.append(images[0].detach().clone().requires_grad_(needs_input))
    for conv, given in zip((plain, wide), images, strict=True):
        conv(given).square().sum().backward()
    assert len(calls) == ours
    torch.testing.assert_close(wide.weight.grad, plain.weight.grad)
    torch.testing.assert_close(images[1].grad, images[0].grad)


def test_the_weight_gradient_by_hand() -> None:
    images = torch.arange(4.0).view(1, 1, 2, 2)
    grad = torch.tensor([1.0, 10.0]).view(1, 2, 1, 1)
    found = weight_gradient(images, grad, [1, 1], [0, 0], torch.Size([2, 2]))
    assert found.tolist() == [[[[0, 1], [2, 3]]], [[[0, 10], [20, 30]]]]


def test_widen_leaves_names_weights_and_random_numbers_alone() -> None:
    conv = nn.Conv2d(256, 8, 3, bias=False)
    net = nn.Sequential(conv, nn.Conv2d(256, 8, 1, bias=False), nn.Conv2d(8, 8, 3, bias=False), nn.Conv2d(256, 8, 3))
    before, state = net.state_dict(), torch.get_rng_state()
    widen(net)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(net.state_dict()) == list(before)
    assert [type(layer) for layer in net] == [WideConv2d, nn.Conv2d, nn.Conv2d, nn.Conv2d]
    assert net[0].weight is conv.weight


@pytest.mark.parametrize(("name", "wide"), [("resnet18", 16), ("resnet9", 3)])
def test_which_layers_of_the_encoders_gain(name: str, wide: int) -> None:
    encoder, _ = build_encoder(name, 32, width=0.25)
    assert sum(isinstance(layer, WideConv2d) for layer in encoder.modules()) == wide


def test_half_precision_and_networks_without_gradient_take_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaizen.models.convolution.weight_gradient", lambda *args: pytest.fail("made here"))
    conv, images = WideConv2d.like(nn.Conv2d(4, 4, 3, bias=False)), torch.randn(2, 4, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(images).dtype == torch.bfloat16
        conv(images).float().sum().backward()
    conv.double()(images.double()).sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(conv.float()(images), F.conv2d(images, conv.weight))
    conv.requires_grad_(False)
    conv(images.requires_grad_()).sum().backward()
