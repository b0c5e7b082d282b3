"""Between two log intervals training never waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from helpers import batch_of, learner_of
from syncs import HostWaits

from kaizen.data.loaders import Batch, join
from kaizen.distillers import CLASSIFIER_DISTILLERS, FEATURE_DISTILLERS
from kaizen.learner import ContinualLearner
from kaizen.methods import METHODS
from kaizen.optim import build_optimizer

pytestmark = pytest.mark.usefixtures("tiny")

EVERYTHING = ("--online_evaluation", "--momentum_classifier", "--lars", "--grad_clip_lars", "--exclude_bias_n_norm")
EVERYTHING += ("--gaussian_prob", "0.5", "--solarization_prob", "0.5", "--classifier_stop_gradient", "False")
SOFT_LABEL = ("--distiller_classifier", "soft_label")
CROPS = ("--multicrop", "--num_small_crops", "2")
CASES: list[tuple[str, Sequence[str]]] = [(method, ()) for method in METHODS]
CASES += [(method, CROPS) for method, kind in METHODS.items() if kind.takes_multicrop]
CASES += [
    ("simclr", ("--supervised", "True")),
    ("byol", ("--online_eval_batchnorm", "update", "--frozen_batchnorm", "running")),
    ("dino", ("--clip_grad", "0.1", "--freeze_last_layer", "30", "--warmup_teacher_temperature_epochs", "30")),
]


def content(crops: bool = False) -> dict[str, Batch]:
    parts = {"task": batch_of(8), "replay": batch_of(4, seed=1), "online": batch_of(6, seed=2)}
    if not crops:
        return parts
    # Cropped while they were read: one crop for each view, one for the probe.
    views = {"task": 2, "replay": 2, "online": 1}
    return {name: ([images] * views[name], *rest) for name, (images, *rest) in parts.items()}  # type: ignore[misc]


def waits_of_steps(learner: ContinualLearner, batch: dict[str, Batch], steps: int = 2) -> list[str]:
    """What waits in whole optimiser steps of an epoch in which everything takes part."""
    images, _, indices = join(batch)
    learner.method.start_task(iter([(learner.views(images), indices)]), num_images=8)
    for epoch in (0, 20):
        learner.method.start_epoch(epoch)
    optimizer = build_optimizer(learner.args, learner.parameter_groups())
    with HostWaits() as waits:
        for step in range(steps):
            optimizer.zero_grad()
            result = learner.training_step(batch, step)
            result["loss"].backward()
            learner.method.after_backward()
            optimizer.step()
            learner.method.after_batch(result["out"])
            learner.update_momentum(step, steps)
    assert learner.meter.flush()["loss"] == learner.meter.latest["loss"]  # a number, so it did not diverge
    return sorted(set(waits.found))


@pytest.mark.parametrize(("method", "flags"), CASES)
def test_no_method_waits(method: str, flags: Sequence[str]) -> None:
    learner = learner_of(*EVERYTHING, *SOFT_LABEL, "--distiller", "contrastive", *flags, method=method, task_idx=1)
    assert waits_of_steps(learner, content()) == []


@pytest.mark.parametrize("distiller", FEATURE_DISTILLERS)
def test_no_distiller_waits(distiller: str) -> None:
    flags = ["--distiller", distiller]
    flags += ["--distiller_classifier", distiller] if distiller in CLASSIFIER_DISTILLERS else []
    learner = learner_of(*EVERYTHING, *flags, method="swav", task_idx=1)
    assert waits_of_steps(learner, content()) == []


@pytest.mark.parametrize("optimizer", [["--optimizer", "sgd"], ["--lars"]])
def test_crops_that_come_ready_and_no_optimiser_wait(optimizer: list[str]) -> None:
    learner = learner_of("--online_evaluation", *SOFT_LABEL, *optimizer, method="mocov2plus", task_idx=1)
    assert waits_of_steps(learner, content(crops=True)) == []


@pytest.mark.parametrize(
    ("kind", "operation"),
    [
        ("item", lambda x: x.sum().item()),
        ("item", lambda x: bool(x.any())),
        ("item", lambda x: int(x.argmax())),
        ("nonzero", lambda x: x.nonzero()),
        ("masked_select", lambda x: x.masked_select(x > 0)),
        ("equal", lambda x: torch.equal(x, x + 1)),
        ("index by a mask", lambda x: x[x > 0]),
        ("index by a mask", lambda x: x.__setitem__(x > 0, x.clone())),
        ("unique", lambda x: x.unique()),
        ("repeat_interleave", lambda x: torch.repeat_interleave((x > 0).long())),
        ("check of a decomposition", lambda x: torch.linalg.cholesky(x.diag())),
        ("", lambda x: (x[torch.arange(2)] * 2).masked_fill(x[:2] > 0, 0).sum()),
    ],
)
def test_what_waits_is_found(kind: str, operation: Callable[[torch.Tensor], object]) -> None:
    x = torch.tensor([1.0, 2.0, 3.0])
    with HostWaits() as waits:
        operation(x)
    assert bool(waits.found) is bool(kind)
    assert not kind or waits.found[0].startswith(kind)
