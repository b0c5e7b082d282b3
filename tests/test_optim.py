from __future__ import annotations

import math
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from helpers import args_of, batch_of, learner_of
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kaizen.learner import ContinualLearner
from kaizen.optim import LARS, WarmupCosine, build_optimizer, build_scheduler, parameter_group, scaled_lr

pytestmark = pytest.mark.usefixtures("tiny")


def layer(weight: list[float], grad: list[float]) -> nn.Parameter:
    parameter = nn.Parameter(torch.tensor([weight], dtype=torch.float32))
    parameter.grad = torch.tensor([grad])
    return parameter


def lars(parameters: list[nn.Parameter], **options: Any) -> LARS:
    group = {"params": parameters, "lr": options.pop("lr", 1.0), "weight_decay": options.pop("weight_decay", 0.0)}
    return LARS([group], group["lr"], **options)


# LARS


def test_lars_scales_a_layer_by_the_ratio_of_its_norms() -> None:
    p = layer([3, 4], [0.6, 0.8])  # |w| = 5, |g| = 1
    lars([p], eta=0.1, weight_decay=0.2).step()
    rate = 0.1 * 5 / (1 + 0.2 * 5)
    expected = torch.tensor([[3.0, 4.0]]) - rate * torch.tensor([[0.6 + 0.2 * 3, 0.8 + 0.2 * 4]])
    torch.testing.assert_close(p.detach(), expected)


@pytest.mark.parametrize(("lr", "eta", "step"), [(1.0, 0.1, 0.5), (0.1, 0.1, 0.1), (10.0, 0.1, 0.5)])
def test_clipping_never_raises_a_layers_rate_above_lr(lr: float, eta: float, step: float) -> None:
    p = layer([3, 4], [0.6, 0.8])
    lars([p], lr=lr, eta=eta, clip=True).step()
    torch.testing.assert_close(p.detach(), torch.tensor([[3.0, 4.0]]) - step * torch.tensor([[0.6, 0.8]]))


def test_lars_has_momentum() -> None:
    p = layer([3, 4], [0.6, 0.8])
    optimizer = lars([p], eta=0.1, momentum=0.9, lr=1e-4)
    optimizer.step()
    buffer = optimizer.state[p]["momentum_buffer"].clone()
    p.grad = torch.tensor([[0.6, 0.8]])
    optimizer.step()
    torch.testing.assert_close(optimizer.state[p]["momentum_buffer"], 1.9 * buffer, rtol=1e-3, atol=0)


@pytest.mark.parametrize("exclude", [True, False])
def test_biases_and_norms_are_left_to_plain_sgd_without_decay(exclude: bool) -> None:
    p = nn.Parameter(torch.tensor([3.0, 4.0]))
    p.grad = torch.tensor([0.6, 0.8])
    lars([p], eta=0.1, weight_decay=0.2, exclude_bias_n_norm=exclude).step()
    plain = torch.tensor([3.0, 4.0]) - torch.tensor([0.6, 0.8])
    assert torch.allclose(p.detach(), plain) is exclude


@pytest.mark.parametrize(("weight", "grad"), [([0.0, 0.0], [0.6, 0.8]), ([3.0, 4.0], [0.0, 0.0])])
def test_layers_of_zeros_and_without_gradient_stay_finite(weight: list[float], grad: list[float]) -> None:
    p = layer(weight, grad)
    for clip in (True, False):
        lars([p], eta=0.1, weight_decay=0.2, clip=clip, lr=0.1).step()
        assert torch.isfinite(p).all()
    p = layer([3, 4], [0.6, 0.8])
    lars([p], lr=0.0, clip=True).step()
    torch.testing.assert_close(p.detach(), torch.tensor([[3.0, 4.0]]))


def test_parameters_without_gradient_are_left_alone() -> None:
    p = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    lars([p], weight_decay=0.2).step()
    torch.testing.assert_close(p.detach(), torch.tensor([[3.0, 4.0]]))


def test_the_closure_computes_the_gradients_before_they_are_adapted() -> None:
    inputs = torch.randn(4, 3)

    def loss_of(linear: nn.Linear) -> Tensor:
        return linear(inputs).square().mean()

    torch.manual_seed(0)
    closed, open_ = nn.Linear(3, 2), nn.Linear(3, 2)
    open_.load_state_dict(closed.state_dict())
    first, second = (lars(list(m.parameters()), eta=0.1, weight_decay=0.1) for m in (closed, open_))

    def closure() -> float:
        first.zero_grad()
        loss = loss_of(closed)
        loss.backward()
        return loss.item()

    returned = first.step(closure)
    loss = loss_of(open_)
    loss.backward()
    second.step()
    assert returned == pytest.approx(loss.item())
    for mine, its in zip(closed.parameters(), open_.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_weight_decay_is_back_after_a_step_and_after_an_error() -> None:
    p = layer([3, 4], [0.6, 0.8])
    optimizer = lars([p], weight_decay=0.2)
    optimizer.step()
    assert optimizer.param_groups[0]["weight_decay"] == 0.2
    p.grad = torch.zeros(1, 2)
    optimizer.state[p]["momentum_buffer"] = torch.zeros(7)  # of no use: the step itself fails
    with pytest.raises(RuntimeError):
        optimizer.step()
    assert optimizer.param_groups[0]["weight_decay"] == 0.2


# Schedules


def rates(schedule: list[str], epochs: int = 8, lr: float = 1.0, static: bool = False) -> list[float]:
    """The rate of each epoch."""
    args = args_of("--scheduler", *schedule, "--max_epochs", str(epochs))
    groups = parameter_group("a", nn.Linear(1, 1).parameters(), lr, 0.0, static)
    optimizer = build_optimizer(args, groups)
    scheduler = build_scheduler(args, optimizer)
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_step_drops_at_the_given_epochs() -> None:
    assert rates(["step", "--lr_decay_steps", "2", "5"]) == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])
    assert rates(["step", "--lr_decay_steps", "2", "--lr_gamma", "0.5"])[2] == 0.5


def test_exponential() -> None:
    assert rates(["exponential"]) == pytest.approx([0.95**i for i in range(8)])
    assert rates(["exponential", "--lr_gamma", "0.5"]) == pytest.approx([0.5**i for i in range(8)])


def test_cosine_runs_from_the_rate_to_min_lr() -> None:
    found = rates(["cosine", "--min_lr", "0.2"])
    assert found == pytest.approx([0.2 + 0.8 * (1 + math.cos(math.pi * i / 8)) / 2 for i in range(8)])


def test_warmup_cosine_rises_in_a_line_and_falls_on_a_cosine() -> None:
    found = rates(["warmup_cosine", "--warmup_epochs", "3", "--warmup_start_lr", "0.2", "--min_lr", "0.1"])
    assert found[:3] == pytest.approx([0.2, 0.6, 1.0])
    assert found[3:] == pytest.approx([0.1 + 0.9 * (1 + math.cos(math.pi * i / 5)) / 2 for i in range(5)])


@pytest.mark.parametrize("warmup", [0, 1, 8, 20])
def test_warmup_of_any_length(warmup: int) -> None:
    found = rates(["warmup_cosine", "--warmup_epochs", str(warmup), "--warmup_start_lr", "0.2"])
    assert all(0 <= rate <= 1 for rate in found)
    assert found[0] == (0.2 if warmup else 1.0)
    assert max(found) == (pytest.approx(1.0) if warmup <= 8 else found[-1])


def test_a_static_group_keeps_its_rate_after_the_first_epoch() -> None:
    found = rates(["warmup_cosine", "--warmup_epochs", "3", "--warmup_start_lr", "0.2"], static=True)
    assert found == [0.2, *[1.0] * 7]


def test_every_group_warms_up_from_the_same_rate() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups)
    WarmupCosine(optimizer, warmup=3, epochs=8, start_lr=0.2, min_lr=0.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2]


def test_no_schedule() -> None:
    args = args_of("--scheduler", "none")
    assert build_scheduler(args, torch.optim.SGD([nn.Parameter(torch.zeros(1))])) is None


# What flags make


def test_the_rate_is_scaled_by_the_batch() -> None:
    assert scaled_lr(args_of("--lr", "0.5", "--batch_size", "64")) == 0.5 * 64 / 256
    assert scaled_lr(args_of("--lr", "0.5", "--batch_size", "64", "--gpus", "0,1")) == 0.5 * 128 / 256


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        (["--optimizer", "sgd"], torch.optim.SGD),
        (["--optimizer", "adam"], torch.optim.Adam),
        (["--optimizer", "adamw"], torch.optim.AdamW),
        (["--lars"], LARS),
    ],
)
def test_the_optimiser_by_name(flags: list[str], kind: type) -> None:
    groups = parameter_group("a", nn.Linear(1, 1).parameters(), 0.2, 0.3)
    optimizer = build_optimizer(args_of(*flags), groups)
    assert type(optimizer) is kind
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (0.2, 0.3)
    assert optimizer.param_groups[0].get("momentum", 0.9) == 0.9


def test_the_flags_of_lars() -> None:
    flags = ("--lars", "--eta_lars", "0.02", "--grad_clip_lars", "--exclude_bias_n_norm")
    optimizer = build_optimizer(args_of(*flags), parameter_group("a", nn.Linear(1, 1).parameters(), 0.2, 0.3))
    assert isinstance(optimizer, LARS)
    assert (optimizer.eta, optimizer.clip, optimizer.exclude_bias_n_norm) == (0.02, True, True)


def test_a_module_without_trained_parameters_has_no_group() -> None:
    assert parameter_group("a", nn.Identity().parameters(), 1, 1) == []
    assert parameter_group("a", nn.Linear(1, 1).requires_grad_(False).parameters(), 1, 1) == []


# In a trainer


class Rates(pl.Callback):
    """Remembers a group's rate in each epoch."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.found: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        rates = {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}
        self.found.append(rates[self.group])


def train(learner: ContinualLearner, group: str) -> list[float]:
    """The rates of a group over all epochs, of two batches each."""
    watcher = Rates(group)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=learner.args.max_epochs,
        accumulate_grad_batches=learner.args.accumulate_grad_batches,
        logger=False,
        callbacks=[watcher],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(learner, DataLoader([{"task": batch_of()}] * 2, batch_size=None))  # type: ignore[arg-type]
    return watcher.found


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["none"], [1, 1, 1]),
        (["step", "--lr_decay_steps", "1"], [1, 0.1, 0.1]),
        (["exponential", "--lr_gamma", "0.5"], [1, 0.5, 0.25]),
        (["cosine"], [1, 0.75, 0.25]),
        (["warmup_cosine", "--warmup_epochs", "2", "--warmup_start_lr", "0.4"], [0.4, 1, 1]),
        (["reduce"], [1, 1, 1]),
    ],
)
def test_a_schedule_is_stepped_once_an_epoch(flags: list[str], expected: list[float]) -> None:
    learner = learner_of("--lr", "4", "--max_epochs", "3", "--scheduler", *flags)
    assert train(learner, "encoder") == pytest.approx(expected)


class Same(nn.Module):
    """Both views are the image."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [images.float() / 255] * 2


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("accumulate", ["1", "2"])
def test_reduce_drops_where_the_loss_no_longer_falls(accumulate: str) -> None:
    flags = ["--lr", "0", "--classifier_lr", "1", "--classifier_loss_weight", "0", "--max_epochs", "14"]
    flags += ["--scheduler", "reduce", "--lr_gamma", "0.5", "--accumulate_grad_batches", accumulate]
    learner = learner_of(*flags)
    learner.views = Same()  # nothing is learned and nothing is random: the loss stays
    assert train(learner, "classifier") == [1.0] * 12 + [0.5] * 2
