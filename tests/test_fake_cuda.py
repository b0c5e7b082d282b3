"""Training steps on CUDA tensors without content, which need no GPU: devices and precision, but no values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from helpers import learner_of
from syncs import HostWaits
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from kaizen.data.loaders import Batch, join
from kaizen.learner import ContinualLearner
from kaizen.methods import METHODS
from kaizen.optim import build_optimizer

pytestmark = pytest.mark.usefixtures("tiny")

FLAGS = (
    "--precision",
    "16",
    "--online_evaluation",
    "--momentum_classifier",
    "--lars",
    "--grad_clip_lars",
    "--distiller",
    "contrastive",
)
FLAGS += ("--distiller_classifier", "soft_label", "--gaussian_prob", "0.5", "--solarization_prob", "0.5")
CROPS = ("--multicrop", "--num_small_crops", "2")
CASES: list[tuple[str, Sequence[str]]] = [(method, ()) for method in METHODS]
CASES += [(method, CROPS) for method, kind in METHODS.items() if kind.takes_multicrop]


@contextmanager
def autocast() -> Iterator[None]:
    """fp16 as Lightning asks for it; torch.autocast itself declines where there is no GPU."""
    torch.set_autocast_dtype("cuda", torch.float16)
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


def to_cuda(module: nn.Module) -> None:
    """Put empty CUDA tensors in the place of weights and buffers."""
    for part in module.modules():
        for name, weight in part.named_parameters(recurse=False):
            part._parameters[name] = nn.Parameter(torch.empty_like(weight, device="cuda"), weight.requires_grad)
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = torch.empty_like(buffer, device="cuda")


def batch_on_cuda(count: int) -> Batch:
    images = torch.empty(count, 3, 8, 8, dtype=torch.uint8, device="cuda")
    return images, torch.zeros(count, dtype=torch.long, device="cuda"), torch.arange(count, device="cuda")


def step(learner: ContinualLearner, batch: dict[str, Batch], optimizer: torch.optim.Optimizer) -> None:
    """Without a backward pass, which wants a real device."""
    with autocast():
        result = learner.training_step(batch, 0)
    out = result["out"]
    assert result["loss"].dtype == torch.float32 and result["loss"].device.type == "cuda"
    assert out.feats[0].dtype == torch.float16
    assert {value.dtype for value in (*out.z, *out.keys)} == {torch.float32}
    for parameter in learner.parameters():
        parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
    learner.method.after_backward()
    optimizer.step()
    learner.method.after_batch(out)
    learner.update_momentum(0, 2)


@pytest.mark.parametrize(("method", "flags"), CASES)
def test_two_steps(method: str, flags: Sequence[str]) -> None:
    learner = learner_of(*FLAGS, *flags, method=method, task_idx=1)
    with FakeTensorMode(allow_non_fake_inputs=True):
        to_cuda(learner)
        batch = {name: batch_on_cuda(count) for name, count in (("task", 8), ("replay", 4), ("online", 6))}
        images, _, indices = join(batch)
        learner.method.start_task(iter([(learner.views(images), indices)]), num_images=8)
        learner.method.epoch = 20
        optimizer = build_optimizer(learner.args, learner.parameter_groups())
        with HostWaits() as waits:
            step(learner, batch, optimizer)
            step(learner, batch, optimizer)
    assert waits.found == []
    assert {value.device.type for value in learner.meter.sums.values() if isinstance(value, torch.Tensor)} == {"cuda"}


def test_copies_are_found() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True), HostWaits() as waits:
        found = torch.ones(2, device="cuda") * torch.ones(2).to("cuda")
        found.mul_(0.5).copy_(torch.ones(2))
    assert [entry.split(" at ")[0] for entry in waits.found] == ["copy between devices"] * 2
