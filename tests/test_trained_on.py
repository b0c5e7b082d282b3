from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import args_of, class_folders, domain_lists, learner_of

from kaizen.args import UsageError
from kaizen.checkpoint import load_task, save_task
from kaizen.plan import load_data
from kaizen.trained_on import TrainedOn, is_trained_on

pytestmark = pytest.mark.usefixtures("tiny")

WHOLE: dict[str, Any] = {"classes": ["a", "b", "c"], "classes_by_task": [[2, 0], [1]], "cropped": True}


def test_of_a_class_split() -> None:
    data = load_data(args_of("--num_tasks", "5"))
    found = TrainedOn.of(data, 1)
    assert found == TrainedOn([str(c) for c in range(10)], data.split.classes[:2], cropped=False)
    assert found.seen == sorted(data.split.classes[0] + data.split.classes[1])
    assert is_trained_on(asdict(found), 1)


@pytest.mark.parametrize(("size", "cropped"), [((8, 8), False), ((97, 8), True)])
def test_of_folders(tmp_path: Path, size: tuple[int, int], cropped: bool) -> None:
    root = class_folders(tmp_path, sizes=[size])
    data = load_data(args_of("--data_dir", str(root), "--split_strategy", "data", dataset="custom"))
    assert TrainedOn.of(data, 0) == TrainedOn([f"class{i}" for i in range(4)], [[0, 1, 2, 3]], cropped)


def test_of_domains(tmp_path: Path) -> None:
    root = domain_lists(tmp_path, ["real", "quickdraw"])
    flags = ("--data_dir", str(root), "--split_strategy", "domain", "--num_tasks", "2")
    found = TrainedOn.of(load_data(args_of(*flags, dataset="domainnet")), 1)
    assert found.classes[:3] == ["thing0", "thing1", "2"] and found.classes_by_task == [[*range(345)]] * 2


def test_of_images_without_labels(tmp_path: Path) -> None:
    class_folders(tmp_path, sizes=[(97, 8)])
    flags = ("--data_dir", str(tmp_path), "--no_labels", "--split_strategy", "data")
    bare = ("--classifier_training", "False", "--disable_knn_eval")
    found = TrainedOn.of(load_data(args_of(*flags, *bare, dataset="custom")), 0)
    assert found == TrainedOn([], [[]], cropped=True) and is_trained_on(asdict(found), 0)


def test_it_goes_through_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "final.ckpt"
    save_task(learner_of(), path, 1, {}, trained_on=TrainedOn(**WHOLE))
    assert load_task(path, "--flag")["trained_on"] == WHOLE
    save_task(learner_of(), path, 1, {})
    assert "trained_on" not in load_task(path, "--flag")


BAD: list[Any] = [
    [],
    {},
    "abc",
    {**WHOLE, "more": 1},
    {name: value for name, value in WHOLE.items() if name != "cropped"},
    {**WHOLE, "classes": "abc"},
    {**WHOLE, "classes": ["a", "b", 3]},
    {**WHOLE, "classes": ["a", "b", ""]},
    {**WHOLE, "classes": ["a", "b", "\ud800"]},
    {**WHOLE, "classes": []},
    {**WHOLE, "classes_by_task": {}},
    {**WHOLE, "classes_by_task": [[0]]},
    {**WHOLE, "classes_by_task": [[0], [1], [2]]},
    {**WHOLE, "classes_by_task": [[0], 1]},
    {**WHOLE, "classes_by_task": [[0], []]},
    {**WHOLE, "classes_by_task": [[0], [3]]},
    {**WHOLE, "classes_by_task": [[0], [-1]]},
    {**WHOLE, "classes_by_task": [[0], [True]]},
    {**WHOLE, "classes_by_task": [[0], [1.0]]},
    {**WHOLE, "classes_by_task": [[0], [1, 1]]},
    {**WHOLE, "classes_by_task": torch.zeros(2, 1)},
    {**WHOLE, "cropped": 1},
    {**WHOLE, "cropped": None},
]


@pytest.mark.parametrize("content", BAD)
def test_what_a_stranger_may_have_put_there(tmp_path: Path, content: Any) -> None:
    assert is_trained_on(WHOLE, 1) and not is_trained_on(content, 1)
    path = tmp_path / "x.ckpt"
    save_task(learner_of(), path, 1, {})
    torch.save({**torch.load(path, weights_only=True), "trained_on": content}, path)
    with pytest.raises(UsageError, match="not a checkpoint") as caught:
        load_task(path, "--flag")
    assert "\n" not in str(caught.value)


def test_no_task_at_all() -> None:
    assert not is_trained_on({**WHOLE, "classes_by_task": []}, -1)
