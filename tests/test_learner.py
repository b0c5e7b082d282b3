from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from helpers import batch_of, changed, learner_of, state_of
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kaizen.data.images import MemoryImages
from kaizen.data.loaders import Batch, evaluation_loader, join
from kaizen.learner import ContinualLearner
from kaizen.logs import accuracies
from kaizen.methods import METHODS
from kaizen.models.frozen import evaluating
from kaizen.optim import build_optimizer

pytestmark = pytest.mark.usefixtures("tiny")

PROBES = ("--online_evaluation", "--momentum_classifier")
DISTILL = ("--distiller", "contrastive", "--distiller_classifier", "soft_label")


def step(learner: ContinualLearner, *, optimize: bool = False, **parts: Batch) -> dict[str, float]:
    """One training step; the terms by name."""
    batch = parts or {"task": batch_of()}
    images, _, indices = join(batch)
    learner.method.start_task(((learner.views(each), indices) for each in [images]), num_images=8)
    torch.manual_seed(0)
    learner.zero_grad()
    result = learner.training_step(batch, 0)
    result["loss"].backward()
    if optimize:
        build_optimizer(learner.args, learner.parameter_groups()).step()
    learner.method.after_batch(result["out"])
    return learner.meter.flush()


def labelled(batch: Batch, targets: Sequence[int]) -> Batch:
    return batch[0], torch.tensor(targets), batch[2]


# Labels


def test_unlabelled_images_are_skipped_by_the_classifier() -> None:
    learner = learner_of()
    logits = torch.randn(4, 10)
    learner.classifier = Constant(logits)
    images = batch_of(4)
    expected = -logits.log_softmax(1)[[0, 2], [3, 5]].mean() * 2  # two views
    terms = step(learner, task=labelled(images, [3, -1, 5, -1]))
    assert terms["classifier"] == pytest.approx(float(expected), rel=1e-5)


def test_without_any_label_the_classifier_learns_nothing() -> None:
    learner = learner_of(*PROBES)
    images = labelled(batch_of(4), [-1] * 4)
    terms = step(learner, task=images, online=images)
    assert terms["classifier"] == terms["online"] == 0
    assert learner.classifier is not None
    for module in (learner.classifier, learner.probes):
        assert all(p.grad is None or not p.grad.any() for p in module.parameters())
    assert terms["classifier_acc1"] == terms["online_acc1"] == 0


class Constant(nn.Module):
    """Says the same whatever it sees, and can be trained."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, feats: Tensor) -> Tensor:
        return self.logits.clone()


def test_training_accuracy_counts_labelled_images_alone() -> None:
    logits = torch.eye(10)[[0, 1, 2, 3]] * 9
    found = accuracies("head", logits, torch.tensor([0, 1, 5, -1]))
    assert float(found["head_acc1"]) == pytest.approx(2 / 3)
    few = accuracies("head", torch.eye(3)[[0, 1]], torch.tensor([2, -1]))
    assert (float(few["head_acc1"]), float(few["head_acc5"])) == (0, 1)


# The batch and its terms


def test_task_and_replay_images_are_one_batch_in_this_order() -> None:
    task, replay = batch_of(6, seed=1), batch_of(3, seed=2)
    images, targets, indices = join({"replay": replay, "task": task})
    assert isinstance(images, torch.Tensor)
    assert torch.equal(images, torch.cat([task[0], replay[0]]))
    assert torch.equal(targets, torch.cat([task[1], replay[1]]))
    assert torch.equal(indices, torch.cat([task[2], replay[2]]))


def test_crops_are_joined_view_by_view() -> None:
    task, replay = ([torch.full((count, 3, side, side), count) for side in (8, 6)] for count in (2, 1))
    labels = torch.arange(2)
    crops, *_ = join({"task": (task, labels, labels), "replay": (replay, labels[:1], labels[:1])})
    assert [crop[:, 0, 0, 0].tolist() for crop in crops] == [[2, 2, 1]] * 2
    assert [crop.shape[-1] for crop in crops] == [8, 6]


def test_replay_images_take_part_in_every_term() -> None:
    for name in ("ssl", "classifier", "distill_features", "distill_classifier"):
        alone, mixed = (learner_of(*DISTILL, task_idx=1) for _ in range(2))
        task, replay = batch_of(8, seed=1), batch_of(4, seed=2)
        assert step(alone, task=task)[name] != step(mixed, task=task, replay=replay)[name]


def test_the_loss_is_the_weighted_sum_of_the_terms() -> None:
    weights = {
        "--classifier_loss_weight": 0.5,
        "--feature_extractor_distill_lamb": 3.0,
        "--classifier_distill_lamb": 2.0,
    }
    flags = [word for name, value in weights.items() for word in (name, str(value))]
    learner = learner_of(*DISTILL, *PROBES, *flags, method="byol", task_idx=1)
    terms = step(learner, task=batch_of(), online=batch_of(5))
    expected = terms["ssl"] + 0.5 * terms["classifier"] + 3 * terms["distill_features"]
    expected += 2 * terms["distill_classifier"] + terms["online"] + terms["momentum_online"]
    assert terms["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_every_part_learns_in_a_step(method: str) -> None:
    learner = learner_of(*DISTILL, *PROBES, "--optimizer", "adam", method=method, task_idx=1)
    before = state_of(learner)
    step(learner, optimize=True, task=batch_of(), online=batch_of(5))
    parts = {".".join(name.split(".")[:2]) for name in changed(learner, before) if "num_batches" not in name}
    wanted = {"method.encoder", "method.projector", "classifier.0", "probes.online"}
    wanted |= {"distill_features.predictor", "distill_classifier.predictor"}
    assert wanted <= parts


def test_optimiser_groups_their_rates_and_decay() -> None:
    flags = ["--lr", "1", "--classifier_lr", "0.7", "--online_eval_classifier_lr", "0.2", "--weight_decay", "0.01"]
    learner = learner_of(*DISTILL, *PROBES, *flags, method="byol", task_idx=1)
    groups = {g["name"]: (g["lr"], g["weight_decay"]) for g in learner.parameter_groups()}
    scaled = (64 / 256, 0.01)
    assert groups == {
        "encoder": scaled,
        "classifier": (0.7, 0),
        "online": (0.2, 0),
        "momentum_online": (0.2, 0),
        "projector": scaled,
        "predictor": scaled,
        "distill_features": scaled,
        "distill_classifier": scaled,
    }


@pytest.mark.parametrize("method", METHODS)
def test_every_trained_parameter_is_in_one_group(method: str) -> None:
    learner = learner_of(*DISTILL, *PROBES, method=method, task_idx=1)
    grouped = [id(p) for group in learner.parameter_groups() for p in group["params"]]
    assert len(set(grouped)) == len(grouped)
    assert set(grouped) == {id(p) for p in learner.parameters() if p.requires_grad}


def test_what_belongs_to_no_part_of_a_method_learns_too_and_shared_parts_once() -> None:
    learner = learner_of()
    learner.method.scale = nn.Parameter(torch.ones(()))
    learner.method.both = nn.Sequential(learner.method.projector, nn.Linear(6, 2))
    groups = {group["name"]: group["params"] for group in learner.parameter_groups()}
    assert groups["method"] == [learner.method.scale]
    assert groups["both"] == [*learner.method.both[1].parameters()]
    grouped = [id(p) for params in groups.values() for p in params]
    assert sorted(grouped) == sorted({id(p) for p in learner.parameters() if p.requires_grad})


# Probes


@pytest.mark.parametrize(("batchnorm", "moves"), [("frozen", False), ("update", True)])
def test_probe_images_and_the_batchnorm_statistics(batchnorm: str, moves: bool) -> None:
    learner = learner_of(*PROBES, "--online_eval_batchnorm", batchnorm, method="byol")
    before = state_of(learner)
    learner.probe_terms(batch_of(5))
    names = {"running_mean", "running_var", "num_batches_tracked"}
    expected = {f"method.{m}encoder.1.{n}" for m in ("", "momentum.") for n in names} if moves else set()
    assert changed(learner, before) == expected
    assert learner.method.encoder.training and learner.method.encoder[1].training


def test_frozen_probes_see_the_features_of_evaluation() -> None:
    learner = learner_of("--online_evaluation", "--online_eval_batchnorm", "frozen")
    seen: list[Tensor] = []
    learner.probes["online"].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    learner.probe_view = learner.eval_view
    images = batch_of(5)
    learner.probe_terms(images)
    learner.eval()
    assert torch.equal(seen[0], learner.method.encoder(learner.eval_view(images[0])))
    assert not seen[0].requires_grad


@pytest.mark.parametrize("batchnorm", ["frozen", "update"])
def test_probes_teach_nothing_but_themselves(batchnorm: str) -> None:
    learner = learner_of(*PROBES, "--online_eval_batchnorm", batchnorm, method="byol")
    torch.stack([*learner.probe_terms(batch_of(5)).values()]).sum().backward()
    assert all(p.grad is None for p in learner.method.parameters())
    assert all(p.grad is not None for p in learner.probes.parameters())


def test_probes_can_have_hidden_layers_and_only_methods_with_momentum_get_a_second_one() -> None:
    learner = learner_of(*PROBES, "--online_eval_classifier_layers", "7", "5", method="mocov2plus")
    assert set(learner.probes) == {"online", "momentum_online"}
    widths = [layer.out_features for layer in learner.probes["online"] if isinstance(layer, nn.Linear)]
    assert widths == [7, 5, 10]
    assert set(learner_of(*PROBES, method="simclr").probes) == {"online"}


def test_evaluating_gives_the_mode_back_even_after_an_error() -> None:
    module = nn.Sequential(nn.BatchNorm1d(3))
    with evaluating(module):
        assert not module[0].training
    assert module[0].training
    with pytest.raises(ZeroDivisionError), evaluating(module):
        1 / 0  # noqa: B018
    assert module[0].training
    with evaluating(module, active=False):
        assert module[0].training
    module.eval()
    with evaluating(module):
        pass
    assert not module.training


# The teacher


@pytest.mark.parametrize("batchnorm", ["batch", "running"])
def test_the_teacher_has_no_gradient_and_stays_as_it_is(batchnorm: str) -> None:
    learner = learner_of(*DISTILL, "--frozen_batchnorm", batchnorm, "--optimizer", "adam", task_idx=1)
    assert learner.frozen is not None
    before = state_of(learner.frozen)
    for _ in range(2):
        step(learner, optimize=True)
    assert all(p.grad is None for p in learner.frozen.parameters())
    moved = changed(learner.frozen, before)
    statistics = {f"encoder.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert moved == (statistics if batchnorm == "batch" else set())
    assert changed(learner.method.encoder, {n.removeprefix("encoder."): v for n, v in before.items() if "encoder" in n})


def test_the_two_kinds_of_statistics_give_other_terms() -> None:
    found = []
    for batchnorm in ("batch", "running"):
        learner = learner_of(*DISTILL, "--frozen_batchnorm", batchnorm, task_idx=1)
        found.append(step(learner)["distill_features"])
    assert found[0] != found[1]


def test_the_teacher_is_the_model_at_the_start_of_the_task() -> None:
    learner = learner_of(*DISTILL, task_idx=1)
    assert learner.frozen is not None
    for mine, its in (
        (learner.method.encoder, learner.frozen.encoder),
        (learner.method.projector, learner.frozen.projector),
        (learner.classifier, learner.frozen.classifier),
    ):
        assert mine is not None and its is not None and mine is not its
        assert changed(mine, state_of(its)) == set()


# Momentum


@pytest.mark.parametrize("method", ["byol", "mocov2plus"])
def test_the_momentum_network_follows_with_tau(method: str) -> None:
    flags = ("--base_tau_momentum", "0.5", "--final_tau_momentum", "0.5", "--optimizer", "adam")
    learner = learner_of(*flags, method=method)
    momentum = learner.method.momentum
    assert momentum is not None
    slow = momentum.encoder[0].weight.clone()
    step(learner, optimize=True)
    assert torch.equal(momentum.encoder[0].weight, slow)  # not before it is told
    learner.update_momentum(0, 10)
    torch.testing.assert_close(momentum.encoder[0].weight, (slow + learner.method.encoder[0].weight) / 2)
    assert learner.meter.flush()["tau"] == 0.5


# In a trainer


class Watcher(pl.Callback):
    """Looks at the modes of teacher and encoder."""

    def __init__(self) -> None:
        self.modes: list[tuple[bool, bool]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, ContinualLearner)
        if pl_module.frozen is not None:
            self.modes.append((pl_module.frozen.encoder[1].training, pl_module.method.encoder[1].training))


def train(learner: ContinualLearner, batches: list[dict[str, Batch]], callback: Watcher, epochs: int = 1) -> None:
    images = MemoryImages(batch_of(6)[0], batch_of(6)[1], [])
    test = evaluation_loader(images, torch.arange(6), 8, 4, 0)
    learner.test_tasks = [torch.arange(3), torch.arange(3, 6)]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        accumulate_grad_batches=learner.args.accumulate_grad_batches,
        num_sanity_val_steps=0,
        logger=False,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(learner, DataLoader(batches, batch_size=None), test)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_momentum_network_moves_once_for_each_step_of_the_optimiser() -> None:
    flags = ("--accumulate_grad_batches", "2", "--base_tau_momentum", "0.5", "--final_tau_momentum", "1")
    learner = learner_of(*flags, "--log_every_n_steps", "100", method="byol")
    momentum = learner.method.momentum
    assert momentum is not None
    calls: list[float] = []
    update = momentum.update
    momentum.update = lambda *parts: (calls.append(parts[-1]), update(*parts))  # type: ignore[assignment,method-assign]
    train(learner, [{"task": batch_of(seed=i)} for i in range(8)], Watcher())
    assert calls == pytest.approx([momentum.tau(i, 4) for i in range(4)])
    assert calls[0] == 0.5 and calls[-1] < 1


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("batchnorm", "training"), [("batch", True), ("running", False)])
def test_the_teachers_mode_outlives_validation(batchnorm: str, training: bool) -> None:
    learner = learner_of(*DISTILL, "--frozen_batchnorm", batchnorm, task_idx=1)
    watcher = Watcher()
    train(learner, [{"task": batch_of()}], watcher, epochs=3)
    assert watcher.modes == [(training, True)] * 3


# Judging


class Tags(nn.Module):
    """A classifier that reads its answer out of the image: the level of the first pixel."""

    def forward(self, feats: Tensor) -> Tensor:
        return torch.eye(10)[feats[:, 0].round().long()]


class FirstPixel(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, :1]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_accuracy_by_task_on_a_case_made_by_hand() -> None:
    learner = learner_of()
    learner.method.encoder, learner.classifier = FirstPixel(), Tags()
    learner.eval_view = nn.Identity()
    answers = torch.tensor([1, 1, 2, 3, 4, 4, 0], dtype=torch.uint8)  # what the classifier will say
    targets = torch.tensor([1, 2, 2, 3, 3, 4, 0])
    images = answers.view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    learner.test_tasks = [torch.tensor([0, 1, 2]), torch.tensor([6, 3, 4, 5]), torch.arange(7)]
    test = evaluation_loader(MemoryImages(images, targets, []), torch.arange(7), 8, 3, 0)  # in batches of 3, 3 and 1
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.validate(learner, test, verbose=False)
    assert learner.accuracy_by_task() == {"classifier": pytest.approx([2 / 3, 3 / 4, 5 / 7])}
    trainer.validate(learner, test, verbose=False)  # a second look does not add to the first
    assert learner.accuracy_by_task() == {"classifier": pytest.approx([2 / 3, 3 / 4, 5 / 7])}


def test_heads_judge_features_of_their_own_encoder() -> None:
    learner = learner_of(*PROBES, method="byol").eval()
    momentum = learner.method.momentum
    assert momentum is not None and learner.classifier is not None
    with torch.no_grad():
        momentum.encoder[0].weight.zero_()
    images = torch.randn(4, 3, 8, 8)
    logits = learner.look(images)[1]
    feats = learner.method.encoder(images)
    assert torch.equal(logits["classifier"], learner.classifier(feats))
    assert torch.equal(logits["online"], learner.probes["online"](feats))
    assert torch.equal(logits["momentum_online"], learner.probes["momentum_online"](momentum.encoder(images)))
    assert set(logits) == {"classifier", "online", "momentum_online"}
    assert learner_of("--classifier_training", "False").eval().look(images)[1] == {}
