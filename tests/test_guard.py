"""Loss terms, weights and steps that are not what they should be."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from helpers import args_of, class_folders, command_line, learner_of, run_experiment
from pytorch_lightning.plugins import MixedPrecision
from syncs import HostWaits
from torch import Tensor, nn

from kaizen import task
from kaizen.args import UsageError
from kaizen.cli import flags_of, read_args
from kaizen.experiment import Experiment
from kaizen.guard import FiniteGuard, StepCount
from kaizen.learner import ContinualLearner
from kaizen.methods.simclr import SimCLR
from kaizen.models.momentum import MomentumNetwork
from kaizen.optim import build_optimizer
from kaizen.plan import open_data

pytestmark = [pytest.mark.usefixtures("tiny", "no_plots"), pytest.mark.filterwarnings("ignore::UserWarning")]

BAD = [math.nan, math.inf, -math.inf]
DISTILL = ["--distiller", "contrastive", "--distiller_classifier", "soft_label"]


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "draw_plots", lambda results, folder: None)


def guard_of(**values: list[float]) -> FiniteGuard:
    """A guard that has seen these values of terms, step by step, without waiting."""
    guard = FiniteGuard(args_of())
    with HostWaits() as waits:
        for step, row in enumerate(zip(*values.values(), strict=True), start=1):
            guard.look({name: torch.tensor(value) for name, value in zip(values, row, strict=True)}, step)
    assert waits.found == []
    return guard


# What the guard remembers


def test_finite_terms_are_let_through() -> None:
    guard = guard_of(loss=[2.0, -1e38], ssl=[1.0, 0.0])
    guard.check_terms(0, "")
    FiniteGuard(args_of()).check_terms(0, "")  # before the first batch


@pytest.mark.parametrize("bad", BAD)
def test_the_first_step_and_its_terms_are_remembered(bad: float) -> None:
    guard = guard_of(loss=[2, bad, 3, bad], ssl=[1, 1, 1, bad], online=[1, bad, 1, 1], classifier=[0, 0, bad, bad])
    assert guard.first_bad() == (["online"], 2)  # though the last one that was seen is finite again


def test_terms_that_go_bad_together_are_all_named_and_the_sum_alone_only_by_itself() -> None:
    assert guard_of(loss=[math.nan], ssl=[math.nan], classifier=[math.inf]).first_bad() == (["ssl", "classifier"], 1)
    assert guard_of(loss=[0.0, math.inf], ssl=[1.0, 3e38]).first_bad() == (["loss"], 2)


@pytest.mark.parametrize(
    ("term", "words"),
    [
        (
            "ssl",
            ["--lr 0.3: the loss term ssl is not finite since step 2, in epoch 4 of 1", "rate 0.5;", "smaller --lr"],
        ),
        (
            "classifier",
            ["--classifier_lr 0.3: the loss term classifier", "rate 0.25;", "use a smaller --classifier_lr"],
        ),
        ("online", ["--online_eval_classifier_lr 0.1: ", "rate 0.5;", "use a smaller --online_eval_classifier_lr"]),
        ("distill_features", ["--lr 0.3: the loss term distill_features", "rate 0.125;"]),
    ],
)
def test_the_message_names_everything(term: str, words: list[str]) -> None:
    guard = guard_of(loss=[0, math.nan], **{term: [0, math.nan]})
    guard.rates = {"encoder": 0.5, "classifier": 0.25, "distill_features": 0.125}
    guard.last_good = Path("run/task0/final.ckpt")
    with pytest.raises(UsageError) as caught:
        guard.check_terms(3, "")
    message = str(caught.value)
    assert all(word in message for word in [*words, "last good checkpoint: run/task0/final.ckpt;"]), message
    assert "\n" not in message


def test_a_methods_own_cure_is_for_its_own_term() -> None:
    with pytest.raises(UsageError, match="checkpoint: none; whiten less$"):
        guard_of(ssl=[math.nan]).check_terms(0, "whiten less")
    with pytest.raises(UsageError, match="use a smaller --classifier_lr$"):
        guard_of(classifier=[math.nan]).check_terms(0, "whiten less")


@pytest.mark.parametrize("bad", BAD)
def test_weights_and_buffers_are_looked_at_with_one_wait(bad: float) -> None:
    guard, module = FiniteGuard(args_of()), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    with HostWaits() as waits:
        guard.check_weights(module.state_dict())
    assert len(waits.found) <= 1
    assert isinstance(module[1].running_var, Tensor)
    module[1].running_var[1] = bad
    with pytest.raises(
        UsageError, match=r"--lr 0.3: 1.running_var is not finite after the last step.*none; use a smaller"
    ):
        guard.check_weights(module.state_dict())
    nn.init.constant_(module[0].weight, bad)
    with pytest.raises(UsageError, match=r": 0.weight and 1 more are not finite"):
        guard.check_weights(module.state_dict())


# In whole tasks


def break_loss(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """SimCLR's loss is NaN in one batch, counted from 1, and finite before and after."""
    true_loss, seen = SimCLR.loss, 0

    def loss(self: SimCLR, out: Any, targets: Tensor) -> Tensor:
        nonlocal seen
        seen += 1
        value: Tensor = true_loss(self, out, targets)
        return value + math.nan if seen == batch else value

    monkeypatch.setattr(SimCLR, "loss", loss)


def start(tmp_path: Path, *flags: str, counts: tuple[int, ...] = (32, 32)) -> Experiment:
    """Begin an experiment on class folders, whose tasks have 4 steps an epoch."""
    data = class_folders(tmp_path / "data", counts)
    argv = command_line("--data_dir", str(data), "--disable_knn_eval", *flags, dataset="custom")
    args = read_args(argv)
    opened = open_data(args)
    return Experiment.start(tmp_path / "run", flags_of(args), opened.split.classes, opened.task_names)


def failure(capsys: pytest.CaptureFixture[str], experiment: Experiment, task_idx: int) -> str:
    """The one line of a task that stops with exit status 2."""
    capsys.readouterr()
    assert task.main([str(experiment.folder), str(task_idx)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not experiment.checkpoint(task_idx).exists() and not experiment.accuracy(task_idx).exists()
    return error


@pytest.mark.parametrize(("batch", "epoch"), [(1, 1), (4, 1), (6, 2), (8, 2)])
@pytest.mark.parametrize("interval", ["3", "100"])
def test_a_task_stops_and_tells_of_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], batch: int, epoch: int,
    interval: str,
) -> None:  # fmt: skip
    experiment = start(tmp_path, "--max_epochs", "2", "--log_every_n_steps", interval, "--num_tasks", "2")
    break_loss(monkeypatch, batch)
    error = failure(capsys, experiment, 0)
    assert f"the loss term ssl is not finite since step {batch}, in epoch {epoch} of 2" in error
    saved = [*(experiment.task_folder(0) / "progress").glob("step*.ckpt")]  # before the second epoch
    assert len(saved) == epoch - 1
    assert f"last good checkpoint: {saved[0] if saved else 'none'};" in error
    assert not any("nan" in file.read_text() for file in experiment.task_folder(0).glob("*.csv"))


def test_the_rate_is_that_of_the_epoch_and_steps_are_those_of_the_optimiser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = ["--scheduler", "step", "--lr_decay_steps", "1", "2", "--lr", "3.2", "--max_epochs", "3"]
    experiment = start(tmp_path, *schedule, "--accumulate_grad_batches", "2", "--num_tasks", "2")
    break_loss(monkeypatch, 7)
    error = failure(capsys, experiment, 0)
    assert "since step 4, in epoch 2 of 3, at the learning rate 0.01;" in error  # of 8 / 256 x 3.2 = 0.1


def test_a_later_task_names_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = start(tmp_path, "--num_tasks", "2", *DISTILL)
    assert task.main([str(experiment.folder), "0"]) == 0
    break_loss(monkeypatch, 2)
    error = failure(capsys, experiment, 1)
    assert f"last good checkpoint: {experiment.checkpoint(0)};" in error


def test_weights_that_blow_up_stop_a_task_in_its_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = start(tmp_path, "--num_tasks", "2")
    update = ContinualLearner.on_train_batch_end

    def spoil(self: ContinualLearner, outputs: Any, batch: Any, batch_idx: int) -> None:
        update(self, outputs, batch, batch_idx)
        if batch_idx == 3:  # the loss of this one is known already
            nn.init.constant_(self.classifier[0].bias, math.inf)  # type: ignore[index,arg-type]

    monkeypatch.setattr(ContinualLearner, "on_train_batch_end", spoil)
    assert "classifier.0.bias is not finite after the last step, though" in failure(capsys, experiment, 0)


def test_a_learning_rate_beyond_all_measure_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = start(tmp_path, "--num_tasks", "2", "--lr", "1e30", "--scheduler", "none", "--max_epochs", "3")
    error = failure(capsys, experiment, 0)
    assert "--lr 1e+30: the loss term" in error or "--lr 1e+30: method." in error


def test_wmse_says_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = class_folders(tmp_path / "data", (32, 32))
    argv = command_line("--data_dir", str(data), "--whitening_eps", "0", dataset="custom", method="wmse")
    args = read_args(argv)
    experiment = Experiment.start(tmp_path / "run", flags_of(args), [[0], [1]], ["a", "b"])
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda self: nn.init.zeros_(self.weight))
    error = failure(capsys, experiment, 0)
    assert "term ssl is not finite since step 1" in error and "at --whitening_eps 0: use a larger one" in error


# Steps that fp16 leaves out


@pytest.mark.parametrize(
    "flags", [["--optimizer", "sgd"], ["--optimizer", "adam"], ["--optimizer", "adamw"], ["--lars"]]
)
def test_steps_that_the_scaler_skips_are_counted(flags: list[str]) -> None:
    learner = learner_of(*flags, "--precision", "16")
    layer = nn.Linear(2, 1, bias=False)
    optimizer = build_optimizer(learner.args, [{"params": list(layer.parameters()), "lr": 0.1, "weight_decay": 0.0}])
    steps, scaler = StepCount(), torch.amp.GradScaler("cpu", init_scale=4.0)
    steps.watch(optimizer)
    moved, took_place = [], []
    for factor in (1.0, math.inf, math.nan, 2.0):
        before = layer.weight.detach().clone()
        optimizer.zero_grad()
        scaler.scale(layer(torch.ones(3, 2)).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        took_place.append(steps.took_place())
        moved.append(not torch.equal(before, layer.weight))
    assert moved == took_place == [True, False, False, True]
    assert steps.skipped == 2


@pytest.fixture
def fp16(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], torch.amp.GradScaler]:
    """Tasks train in fp16 on the CPU, with Lightning's plugin as on CUDA and a scale of the test's choice."""

    def train_with(scale: float) -> torch.amp.GradScaler:
        scaler, true_trainer = torch.amp.GradScaler("cpu", init_scale=scale, backoff_factor=2.0**-40), pl.Trainer

        def trainer(**options: Any) -> pl.Trainer:
            return true_trainer(**{**options, "precision": None}, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])

        monkeypatch.setattr(task.pl, "Trainer", trainer)
        return scaler

    return train_with


def logged(experiment: Experiment, name: str) -> list[float]:
    rows = csv.DictReader((experiment.task_folder(0) / "metrics.csv").open())
    return [float(row[name]) for row in rows if row.get(name)]


@pytest.mark.parametrize("lars", [[], ["--lars"]])
def test_a_task_in_fp16_logs_skipped_steps_and_its_momentum_network_rests_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fp16: Callable[[float], torch.amp.GradScaler], lars: list[str]
) -> None:
    data = class_folders(tmp_path / "data", (32, 32))
    flags = ["--data_dir", str(data), "--num_tasks", "1", "--precision", "16", "--log_every_n_steps", "1", *lars]
    flags += ["--base_tau_momentum", "0.5", "--final_tau_momentum", "1", "--batch_size", "8"]
    moves: list[float] = []
    update = MomentumNetwork.update
    monkeypatch.setattr(MomentumNetwork, "update", lambda self, *rest: (moves.append(rest[-1]), update(self, *rest))[1])
    scaler = fp16(2.0**80)  # gradients overflow in the first two steps
    experiment = run_experiment(command_line(*flags, dataset="custom", method="byol"), tmp_path / "run")
    assert logged(experiment, "train/skipped_steps")[:4] == [1, 2, 2, 2]
    assert scaler.get_scale() == 1
    momentum = learner_of(*flags[4:6], *flags[-6:-2], method="byol").method.momentum
    assert momentum is not None and moves == pytest.approx([momentum.tau(i, 8) for i in range(6)])
    assert all(math.isfinite(value) for value in logged(experiment, "train/loss"))


def test_without_fp16_nothing_is_said_of_skipped_steps(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", (16, 16))
    flags = ["--data_dir", str(data), "--num_tasks", "1", "--log_every_n_steps", "1"]
    experiment = run_experiment(command_line(*flags, dataset="custom"), tmp_path / "run")
    assert "skipped" not in (experiment.task_folder(0) / "metrics.csv").read_text()
    assert logged(experiment, "train/loss")


def test_a_loss_that_is_not_finite_is_an_error_under_fp16_too(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fp16: Callable[[float], torch.amp.GradScaler],
) -> None:
    experiment = start(tmp_path, "--num_tasks", "2", "--precision", "16")
    fp16(1024.0)
    break_loss(monkeypatch, 3)
    assert "the loss term ssl is not finite since step 3" in failure(capsys, experiment, 0)
