"""What changes over time: learning rates, tau, and the momentum network in a real trainer."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader

from kaizen.cli import read_args
from kaizen.models.momentum import MomentumNetwork
from kaizen.optim import WarmupCosine

from .golden import assert_close, cases, records
from .tiny import tiny_learner

RATES, TAUS, TRAINERS = records("lr_trace.json"), records("tau.json").get("traces", {}), records("trainer_trace.json")
EXACT = {"rtol": 1e-9, "atol": 1e-12}  # closed forms in double precision


@pytest.mark.parametrize("case", cases("lr_trace.json", RATES))
def test_learning_rates(case: str) -> None:
    trace = RATES[case]
    groups = [
        {"params": [nn.Parameter(torch.zeros(1))], "lr": lr, "static_lr": i in trace["static_groups"]}
        for i, lr in enumerate(trace["base_lrs"])
    ]
    optimizer = SGD(groups, lr=1.0)
    scheduler = WarmupCosine(
        optimizer, trace["warmup_epochs"], trace["max_epochs"], trace["warmup_start_lr"], trace["eta_min"]
    )
    rates = []
    for _ in range(trace["max_epochs"]):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()

    for epoch, expected in zip(trace["epochs"], trace["lr"], strict=True):
        assert_close(rates[epoch], expected, f"rates in epoch {epoch}", **EXACT)


@pytest.mark.parametrize("case", cases("tau.json", TAUS))
def test_tau(case: str) -> None:
    base, final = map(float, case.split("_"))
    network, trace = MomentumNetwork(nn.Identity(), nn.Identity(), base, final), TAUS[case]
    assert_close([network.tau(step, len(trace) - 1) for step in range(len(trace))], trace, "tau", **EXACT)


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`", "ignore:.*LeafSpec")
@pytest.mark.parametrize("method", cases("trainer_trace.json", TRAINERS))
def test_momentum_network_in_a_trainer(method: str) -> None:
    """Recorded is also a defect: the first update of a task was skipped, and each later tau used one step late.

    Ours moves at every step s, and with tau(s), which is recorded as the value after step s.
    """
    trace = TRAINERS[method]
    flags = {
        "dataset": "cifar10", "method": method, "max_epochs": trace["max_epochs"], "scheduler": "none",
        "proj_hidden_dim": 8, "output_dim": 8, "pred_hidden_dim": 8, "queue_size": 16,
        "base_tau_momentum": trace["base_tau"], "final_tau_momentum": trace["final_tau"],
    }  # fmt: skip
    pl.seed_everything(0, verbose=False)
    learner = tiny_learner(read_args([word for name, value in flags.items() for word in (f"--{name}", str(value))]), 0)
    update, seen = learner.update_momentum, []

    def watched_update(step: int, total_steps: int) -> None:
        before = weights(learner.method.momentum)
        update(step, total_steps)
        seen.append((step, before, weights(learner.method), weights(learner.method.momentum)))

    learner.update_momentum = watched_update  # type: ignore[method-assign]
    batches = [(list(torch.randn(2, 8, 3, 16, 16)), torch.arange(8), torch.arange(8))] * trace["batches_per_epoch"]
    trainer = pl.Trainer(
        max_epochs=trace["max_epochs"], accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(learner, {"task": DataLoader(batches, batch_size=None)})  # type: ignore[arg-type]

    assert [step for step, *_ in seen] == [record["global_step"] for record in trace["steps"]]
    for record, (step, before, current, after) in zip(trace["steps"], seen, strict=True):
        assert not torch.equal(before, after), f"the momentum network stood still at step {step}"
        direction = current - before
        share_kept = 1 - (after - before).dot(direction) / direction.dot(direction)
        assert_close(share_kept, record["tau_after"], f"tau at step {step}", rtol=0, atol=1e-6)


def weights(network: Any) -> torch.Tensor:
    """All weights of an encoder and its projector, in one row."""
    parameters = [*network.encoder.parameters(), *network.projector.parameters()]
    return torch.cat([p.detach().double().flatten() for p in parameters])
