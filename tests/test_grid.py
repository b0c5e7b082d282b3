"""Every method with every feature distiller, with and without soft labels and replay, over two tasks."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from helpers import PAIRS, batch_of, learner_of

from kaizen.checkpoint import load_task, new_parts, restore, save_task
from kaizen.data.loaders import Batch, join
from kaizen.learner import ContinualLearner
from kaizen.methods import METHODS
from kaizen.optim import build_optimizer

pytestmark = pytest.mark.usefixtures("tiny")

FLAGS = ("--lr", "0.5", "--weight_decay", "0", "--online_evaluation", "--momentum_classifier")
NARROW = ("--feature_extractor_distill_proj_hidden_dim", "8", "--classifier_distill_proj_hidden_dim", "8")
# Modules below the learner that each term teaches; what a method has beside encoder and projector is its own affair.
TEACHES = {
    "ssl": {"method.encoder", "method.projector"},
    "classifier": {"classifier"},
    "distill_features": {"method.encoder", "method.projector", "distill_features"},
    "distill_classifier": {"classifier", "distill_classifier"},
    "online": {"probes.online"},
    "momentum_online": {"probes.momentum_online"},
}
# Every part of the grid; where a method takes small crops, with everything on also those.
GRID = [
    (method, distiller, soft_label, replay, multicrop)
    for (method, distiller), soft_label, replay in itertools.product(PAIRS, (False, True), (False, True))
    for multicrop in {False, METHODS[method].takes_multicrop and soft_label and replay}
]


def batch(replay: bool, seed: int) -> dict[str, Batch]:
    parts = {"task": batch_of(8, seed=seed), "online": batch_of(6, seed=seed + 10)}
    if replay:
        images, targets, indices = batch_of(4, seed=seed + 20)
        parts["replay"] = images, targets, indices + 8
    return parts


def begin(learner: ContinualLearner, content: dict[str, Batch]) -> None:
    """What a trainer tells the method before the first step."""
    images, _, indices = join(content)
    learner.method.start_task(iter([(learner.views(images), indices)]), 12)
    learner.method.start_epoch(0)


def train(learner: ContinualLearner, content: dict[str, Batch]) -> dict[str, float]:
    """One optimiser step with all that belongs to it; the values of the terms."""
    optimizer = build_optimizer(learner.args, learner.parameter_groups())
    result = learner.training_step(content, 0)
    result["loss"].backward()
    learner.method.after_backward()
    optimizer.step()
    learner.method.after_batch(result["out"])
    learner.update_momentum(0, 2)
    return learner.meter.flush()


def parameters(learner: ContinualLearner) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in learner.named_parameters()}


def module_of(name: str) -> str:
    """method.encoder.0.weight -> method.encoder, classifier.2.bias -> classifier."""
    depth = 2 if name.startswith(("method.", "probes.")) else 1
    return ".".join(name.split(".")[:depth])


def taught_by(learner: ContinualLearner, term: str, content: dict[str, Batch]) -> set[str]:
    """The modules whose weights change in a step on one term alone. The learner's weights are put back."""
    before, weights = parameters(learner), dict(learner.weights)
    learner.zero_grad()
    learner.weights = {name: float(name == term) for name in weights}
    optimizer = build_optimizer(learner.args, learner.parameter_groups())
    learner.training_step(content, 0)["loss"].backward()
    optimizer.step()
    learner.weights = weights
    changed = {name for name, p in learner.named_parameters() if not torch.equal(p, before[name])}
    with torch.no_grad():
        for name, p in learner.named_parameters():
            p.copy_(before[name])
    return {module_of(name) for name in changed}


@pytest.mark.parametrize(("method", "distiller", "soft_label", "replay", "multicrop"), GRID)
def test_two_tasks(
    tmp_path: Path, method: str, distiller: str, soft_label: bool, replay: bool, multicrop: bool
) -> None:
    flags = [*FLAGS, *NARROW, "--distiller", distiller]
    flags += ["--distiller_classifier", "soft_label"] if soft_label else []
    flags += ["--multicrop", "--num_small_crops", "2"] if multicrop else []

    first = learner_of(*flags, method=method)
    begin(first, batch(False, seed=0))
    values = train(first, batch(False, seed=0))
    assert not any(name.startswith("distill") for name in values)
    path = tmp_path / "final.ckpt"
    save_task(first, path, 0, {})

    second = learner_of(*flags, method=method, task_idx=1)
    restore(second, load_task(path, "--flag"), path, "--flag", new_parts(1))
    second.keep_teacher()
    own = second.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in load_task(path, "--flag")["state"].items())
    frozen = {name: value.clone() for name, value in own.items() if "frozen" in name}
    content = batch(replay, seed=1)
    begin(second, content)

    terms = {"ssl", "classifier", "distill_features", "online"}
    terms |= {"distill_classifier"} if soft_label else set()
    terms |= {"momentum_online"} if second.method.momentum is not None else set()
    assert second.weights.keys() >= terms
    for term in terms:
        taught = taught_by(second, term, content)
        if term == "ssl":
            others = {f"method.{name}" for name, _ in second.method.named_children()} - {"method.momentum"}
            assert TEACHES[term] <= taught <= others, term
        else:
            assert taught == TEACHES[term], term

    values = train(second, content)
    assert terms <= values.keys() and all(math.isfinite(value) for value in values.values())
    after = second.state_dict()
    assert frozen and all(torch.equal(value, after[name]) or "running" in name or "num_batches" in name
                          for name, value in frozen.items())  # fmt: skip

    save_task(second, path, 1, {})
    third = learner_of(*flags, method=method, task_idx=2)
    assert restore(third, load_task(path, "--flag"), path, "--flag", new_parts(2)) == []
    saved = load_task(path, "--flag")["state"]
    assert saved.keys() == {name for name in after if "frozen" not in name}
    assert all(torch.equal(value, third.state_dict()[name]) for name, value in saved.items())
    assert_same_heads(second, third)


def assert_same_heads(one: ContinualLearner, other: ContinualLearner) -> None:
    """Both judge images alike."""
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    logits = []
    for learner in (one, other):
        learner.eval()
        with torch.no_grad():
            logits.append(learner.look(images)[1])
    assert logits[0].keys() == logits[1].keys()
    assert all(torch.equal(value, logits[1][name]) for name, value in logits[0].items())
