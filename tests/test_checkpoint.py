from __future__ import annotations

import errno
import os
import pickle
import random
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from helpers import batch_of, changed, learner_of, state_of

from kaizen.args import UsageError
from kaizen.checkpoint import FORMAT, OPTIONAL, load_task, new_parts, restore, save_task
from kaizen.learner import ContinualLearner
from kaizen.methods import METHODS

pytestmark = pytest.mark.usefixtures("tiny")

DISTILL = ("--distiller", "contrastive", "--distiller_classifier", "soft_label")
PROBES = ("--online_evaluation", "--momentum_classifier")


def saved(learner: ContinualLearner, folder: Path, task_idx: int = 0) -> Path:
    path = folder / "final.ckpt"
    save_task(learner, path, task_idx, {"lr": 0.1, "size": [8], "name": "x"})
    return path


def shaken(learner: ContinualLearner) -> ContinualLearner:
    """With other weights, buffers included, than any new learner has."""
    generator = torch.Generator().manual_seed(7)
    for value in learner.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.randn(value.shape, generator=generator))
        else:
            value.add_(3)
    return learner


def take_over(learner: ContinualLearner, path: Path, optional: tuple[str, ...] = ()) -> list[str]:
    return restore(learner, load_task(path, "--flag"), path, "--flag", optional)


def refusal(learner: ContinualLearner, path: Path, optional: tuple[str, ...] = ()) -> str:
    before = state_of(learner)
    with pytest.raises(UsageError) as caught:
        take_over(learner, path, optional)
    assert changed(learner, before) == set()  # refused before anything is loaded
    message = str(caught.value)
    assert message.startswith(f"--flag {path}: another architecture; ") and "\n" not in message
    return message


@pytest.mark.parametrize("method", METHODS)
def test_everything_comes_back(tmp_path: Path, method: str) -> None:
    flags = (*DISTILL, *PROBES)
    learner = shaken(learner_of(*flags, method=method, task_idx=1))
    path = saved(learner, tmp_path, task_idx=1)
    other = learner_of(*flags, method=method, task_idx=1)
    assert take_over(other, path) == []
    frozen = {name for name in learner.state_dict() if name.startswith("frozen.")}
    assert frozen and changed(other, state_of(learner)) == frozen
    loaded = load_task(path, "--flag")
    assert (loaded["format"], loaded["task_idx"]) == (FORMAT, 1)
    assert loaded["flags"] == {"lr": 0.1, "size": [8], "name": "x"}


def test_the_teacher_is_not_saved(tmp_path: Path) -> None:
    names = load_task(saved(learner_of(*DISTILL, task_idx=1), tmp_path), "--flag")["state"].keys()
    assert not [name for name in names if name.startswith("frozen.")]
    assert any(name.startswith("distill_features.") for name in names)


def test_the_second_task_adds_its_predictors_and_only_it_may(tmp_path: Path) -> None:
    path = saved(learner_of(), tmp_path)
    learner = learner_of(*DISTILL, task_idx=1)
    predictors = state_of(learner.distill_features) if learner.distill_features is not None else {}
    assert take_over(learner, path, new_parts(1)) == ["distill_classifier", "distill_features"]
    assert learner.distill_features is not None and changed(learner.distill_features, predictors) == set()
    assert new_parts(0) == new_parts(2) == ()
    assert "distill_classifier.predictor.0.bias is missing there" in refusal(learner, path, new_parts(2))


@pytest.mark.parametrize(
    ("theirs", "ours", "problem"),
    [
        ((), ("--classifier_training", "False"), "classifier.0.bias is there and not here"),
        (("--classifier_training", "False"), (), "classifier.0.bias is missing there"),
        ((), ("--classifier_layers", "5"), "classifier.0.bias is (10,) there and (5,) here"),
        ((), ("--output_dim", "7"), "method.projector.2.bias is (6,) there and (7,) here"),
        (("--online_evaluation",), (), "probes.online.0.bias is there and not here"),
        ((), ("--encoder", "resnet9", "--encoder_width", "0.25"), "classifier.0.weight is (10, 8) there and (10, 128)"),
    ],
)
def test_parts_that_are_missing_too_many_or_of_another_shape(
    tmp_path: Path, theirs: tuple[str, ...], ours: tuple[str, ...], problem: str
) -> None:
    path = saved(learner_of(*theirs), tmp_path)
    message = refusal(learner_of(*ours), path)
    assert problem in message and message.endswith("use the flags it was trained with")


def test_a_model_from_elsewhere_may_lack_heads_and_have_others(tmp_path: Path) -> None:
    path = saved(shaken(learner_of("--classifier_training", "False")), tmp_path)
    learner = learner_of("--online_evaluation")
    before = state_of(learner)
    assert take_over(learner, path, OPTIONAL) == ["classifier", "probes"]
    assert {name.split(".")[0] for name in changed(learner, before)} == {"method"}

    path = saved(learner_of(*DISTILL, "--online_evaluation", task_idx=1), tmp_path)
    assert take_over(learner_of(), path, OPTIONAL) == ["distill_classifier", "distill_features", "probes"]
    assert "method.momentum.encoder.0.bias is missing there" in refusal(learner_of(method="byol"), path, OPTIONAL)
    assert "classifier.0.bias is (10,) there and (4,) here" in refusal(learner_of(classes=4), path, OPTIONAL)


def damage_refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_task(path, "--flag")
    message = str(caught.value)
    assert message.startswith(f"--flag {path}: ") and "\n" not in message
    return message


def test_a_checkpoint_that_is_missing(tmp_path: Path) -> None:
    assert "no such file" in damage_refused(tmp_path / "none.ckpt")
    assert "no such file" in damage_refused(tmp_path)


def test_a_checkpoint_cut_short_anywhere(tmp_path: Path) -> None:
    path = saved(learner_of(), tmp_path)
    whole = path.read_bytes()
    for length in {0, 1, 2, 4, 30, len(whole) // 3, len(whole) // 2, len(whole) - 30, len(whole) - 1}:
        path.write_bytes(whole[:length])
        assert "cut short, damaged or not a checkpoint" in damage_refused(path)


def test_a_checkpoint_with_one_bit_flipped_anywhere(tmp_path: Path) -> None:
    """Refused, or exactly as it was: padding and times of change say nothing."""
    path, chance = tmp_path / "x.ckpt", random.Random(0)
    state = {"method.encoder.w": torch.arange(4.0), "n": torch.tensor(3)}
    torch.save({"format": FORMAT, "task_idx": 1, "flags": {"lr": 0.1}, "state": state}, path)
    whole, right = path.read_bytes(), 0
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1 :])
        try:
            found = load_task(path, "--flag")
        except UsageError as error:
            assert "damaged" in str(error)
            continue
        right += 1
        assert (found["task_idx"], found["flags"]) == (1, {"lr": 0.1})
        assert all(torch.equal(found["state"][name], value) for name, value in state.items())
    assert 0 < right < len(whole) // 10  # of a fifth of the bytes


def test_random_bytes(tmp_path: Path) -> None:
    path, chance = tmp_path / "random.ckpt", random.Random(0)
    for start in (b"", b"\x80\x02", b"\x80\x02}", b"PK\x03\x04", b"\x1f\x8b", b"version https://git-lfs"):
        for _ in range(40):
            path.write_bytes(start + chance.randbytes(chance.randrange(300)))
            assert "cut short, damaged or not a checkpoint" in damage_refused(path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        None,
        {"state_dict": {}},
        {"format": "kaizen-task-0", "state": {}},
        {"format": FORMAT},
        {"format": FORMAT, "state": {"w": torch.ones(1)}, "task_idx": 0},
        {"format": FORMAT, "state": {"w": torch.ones(1)}, "task_idx": "0", "flags": {}},
        {"format": FORMAT, "state": {"w": torch.ones(1)}, "task_idx": 0, "flags": 5},
    ],
)
def test_something_else_than_a_tasks_checkpoint(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "other.ckpt"
    torch.save(content, path)
    assert "not a checkpoint of Kaizen" in damage_refused(path)


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("how", ["torch", "torch legacy", "pickle"])
def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, how: str) -> None:
    path, trap = tmp_path / "evil.ckpt", tmp_path / "ran"
    content = {"format": FORMAT, "task_idx": 0, "flags": {}, "state": Payload(str(trap))}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "torch")
    damage_refused(path)
    assert not trap.exists()
    torch.load(path, weights_only=False) if how != "pickle" else pickle.loads(path.read_bytes())
    assert trap.exists()  # the trap works


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(learner_of(), tmp_path)
    whole = path.read_bytes()

    def full(content: Any, file: BinaryIO) -> None:
        file.write(b"half")
        try:
            raise OSError(errno.ENOSPC, "disk full")
        except OSError:
            raise RuntimeError("unexpected pos") from None  # as torch does, which knows no more of it

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="disk full") as told:
        save_task(learner_of(), path, 1, {})
    assert (told.value.errno, told.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == whole and list(tmp_path.iterdir()) == [path]


def test_a_queue_that_has_moved_goes_on_where_it_was(tmp_path: Path) -> None:
    learner = learner_of(method="mocov2plus")
    learner.method.after_batch(learner.training_step({"task": batch_of(5)}, 0)["out"])
    other = learner_of(method="mocov2plus")
    take_over(other, saved(learner, tmp_path))
    assert other.method.state_dict()["queue_ptr"].item() == 5
