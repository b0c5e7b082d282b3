from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kaizen.models.encoders import build_encoder


def twins(name: str) -> tuple[nn.Module, nn.Module]:
    """The same encoder, once plain and once with recomputed maps."""
    torch.manual_seed(0)
    plain, _ = build_encoder(name, 16, recompute=False)
    plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    lean = copy.deepcopy(plain)
    lean.recompute = True  # type: ignore[assignment]
    return plain, lean


@pytest.fixture
def images() -> Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def peak_bytes(encoder: nn.Module, images: Tensor, path: Path) -> int:
    """The most that the tensors of a forward and a backward pass hold at once, gradients among them."""
    with torch.profiler.profile(profile_memory=True) as profile:
        two_views(encoder, images).backward()
    profile.export_chrome_trace(str(path))
    events = json.loads(path.read_text())["traceEvents"]
    return max(event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]")


def two_views(encoder: nn.Module, images: Tensor) -> Tensor:
    return encoder(images).square().mean() + encoder(images.flip(3)).sin().mean()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_gradients_and_running_statistics_are_the_same_bit_for_bit(name: str, images: Tensor) -> None:
    plain, lean = twins(name)
    for _ in range(2):
        losses = [two_views(encoder, images) for encoder in (plain, lean)]
        assert torch.equal(*losses)
        for loss in losses:
            loss.backward()
    assert plain.state_dict().keys() == lean.state_dict().keys()
    for (key, value), other in zip(plain.state_dict().items(), lean.state_dict().values(), strict=True):
        assert torch.equal(value, other), key
    for (key, one), two in zip(plain.named_parameters(), lean.parameters(), strict=True):
        assert one.grad is not None and two.grad is not None and torch.equal(one.grad, two.grad), key
    assert int(plain.get_buffer("bn1.num_batches_tracked")) == 4


def test_batch_norm_counts_its_batches_also_the_second_time(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """nn.SyncBatchNorm refuses to train without the counter."""
    forward, seen = nn.BatchNorm2d.forward, []

    def looks(self: nn.BatchNorm2d, maps: Tensor) -> Tensor:
        seen.append(self.num_batches_tracked)
        return forward(self, maps)

    monkeypatch.setattr(nn.BatchNorm2d, "forward", looks)
    _, lean = twins("resnet18")
    two_views(lean, images).backward()
    assert len(seen) > 40 and None not in seen


def test_half_precision_finds_its_weights_again(images: Tensor) -> None:
    """Autocast remembers its copies of weights from the first view to the second, but not until the backward pass."""
    plain, lean = twins("resnet18")
    for encoder in (plain, lean):
        with torch.autocast("cpu", torch.bfloat16):
            loss = two_views(encoder, images)
        loss.backward()
    for (key, one), two in zip(plain.named_parameters(), lean.parameters(), strict=True):
        assert one.grad is not None and two.grad is not None
        # two views are added in bfloat16 on one side, in float32 on the other
        assert (one.grad - two.grad).norm() <= 0.01 * one.grad.norm(), key


def test_evaluation_and_passes_without_gradient_are_plain(images: Tensor) -> None:
    plain, lean = twins("resnet18")
    with torch.no_grad():
        assert torch.equal(plain(images), lean(images))
    plain.eval(), lean.eval()
    assert torch.equal(plain(images), lean(images))


def test_less_memory_is_needed(tmp_path: Path) -> None:
    images = torch.rand(24, 3, 32, 32)
    plain, lean = (peak_bytes(encoder, images, tmp_path / "trace.json") for encoder in twins("resnet18"))
    assert lean < 0.9 * plain  # measured: .85, of which gradients are .15 on both sides
