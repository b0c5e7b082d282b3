"""Class orders and data splits."""

from __future__ import annotations

import re
from itertools import chain

import pytest
import torch

from kaizen.data.tasks import make_split, split_classes, split_data

from .golden import cases, records, sha256

RECORDS = records("splits.json")
CLASS, DATA, TOY = (RECORDS.get(kind, {}) for kind in ("class", "data", "toy_class"))


def numbers(case: str) -> list[int]:
    """N103_T10_seed42 -> [103, 10, 42]."""
    return [int(digits) for digits in re.findall(r"\d+", case)]


@pytest.mark.parametrize("case", cases("splits.json", CLASS))
def test_classes(case: str) -> None:
    num_classes, seed = numbers(case)
    for num_tasks, tasks in CLASS[case]["tasks"].items():
        assert split_classes(num_classes, int(num_tasks), seed) == tasks
        assert list(chain(*tasks)) == CLASS[case]["perm"]


@pytest.mark.parametrize("case", cases("splits.json", DATA))
def test_data(case: str) -> None:
    parts, expected = split_data(*numbers(case)), DATA[case]
    assert [len(part) for part in parts] == expected["lengths"]
    assert [part[:5].tolist() for part in parts] == expected["first5"]
    assert [sha256(part) for part in parts] == expected["sha256_int64"]


@pytest.mark.parametrize("case", cases("splits.json", ["toy_class"] if TOY else []))
def test_images_of_each_task(case: str) -> None:
    labels = torch.tensor(TOY["labels"])
    (seed,) = re.findall(r"split_seed (\d+)", TOY["note"])
    num_classes, num_tasks = sum(map(len, TOY["tasks"])), len(TOY["tasks"])

    split = make_split("class", labels, labels, num_classes, num_tasks, int(seed))

    assert split.classes == TOY["tasks"]
    assert [part.tolist() for part in split.train] == TOY["per_task"]
    seen = [torch.isin(labels, torch.tensor(list(chain(*split.classes[: i + 1])))).nonzero() for i in range(num_tasks)]
    assert [sha256(indices) for indices in seen] == TOY["seen_sha"]
