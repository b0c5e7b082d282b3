"""Which images are replayed."""

from __future__ import annotations

import re

import pytest
import torch

from kaizen.data.replay import flatten, replay_counts, select_replay
from kaizen.data.tasks import TaskSplit, indices_of_classes, make_split

from .golden import cases, records, sha256

RECORDS = records("replay.json")
CASES = RECORDS.get("cases", {})
# class_tasks0to1_prop0.1_num20: what task 2 replays of tasks 0 to 1, at proportion 0.1, 20 images at most
NAME = re.compile(r"(?P<strategy>class|data)_tasks0to(?P<last>\d+)_prop(?P<proportion>[\d.]+)_num(?P<size>None|\d+)")


def recorded_split(strategy: str) -> TaskSplit:
    labels, classes = torch.tensor(RECORDS["labels"]), RECORDS["tasks"]
    if strategy == "class":
        parts = [indices_of_classes(labels, task) for task in classes]
        return TaskSplit(strategy, classes, parts, parts)
    (seed,) = re.findall(r"split_seed (\d+)", RECORDS["note"])
    return make_split(strategy, labels, labels, sum(map(len, classes)), len(classes), int(seed))


@pytest.mark.parametrize("case", cases("replay.json", CASES))
def test_replay(case: str) -> None:
    wanted, expected = NAME.fullmatch(case), CASES[case]
    assert wanted is not None

    split, labels = recorded_split(wanted["strategy"]), torch.tensor(RECORDS["labels"])
    size = None if wanted["size"] == "None" else int(wanted["size"])
    counts = replay_counts(split, labels, int(wanted["last"]) + 1, float(wanted["proportion"]), size)
    memory = select_replay(split, labels, counts)

    found = flatten(memory)
    assert len(found) == expected["n"]
    if expected.get("indices") is not None:
        assert found.tolist() == expected["indices"]
    assert sha256(found) == expected["sha256_int64"]
