from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kaizen.data.tasks import indices_of_classes, make_split, split_classes, split_data


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 2**31))
def test_every_class_is_in_one_task_and_tasks_are_equal(per_task: int, num_tasks: int, seed: int) -> None:
    tasks = split_classes(per_task * num_tasks, num_tasks, seed)
    assert [len(task) for task in tasks] == [per_task] * num_tasks
    assert sorted(c for task in tasks for c in task) == list(range(per_task * num_tasks))


def test_the_class_order_follows_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = split_classes(100, 5, seed=5)
    torch.manual_seed(2)
    assert split_classes(100, 5, seed=5) == first
    assert split_classes(100, 5, seed=6) != first
    before = torch.get_rng_state()
    split_classes(100, 5, seed=5)
    split_data(100, 5, seed=5)
    assert torch.equal(torch.get_rng_state(), before)  # nobody else's chance is touched


@given(st.integers(1, 200), st.integers(1, 12), st.integers(0, 2**31))
@settings(max_examples=50)
def test_data_parts_cover_everything_once(num_images: int, num_tasks: int, seed: int) -> None:
    parts = split_data(num_images, num_tasks, seed)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(num_images))
    sizes = [len(part) for part in parts]
    assert sizes == [num_images // num_tasks + num_images % num_tasks] + [num_images // num_tasks] * (num_tasks - 1)


def test_data_parts_are_random() -> None:
    first, second = split_data(100, 2, seed=5)
    assert not torch.equal(first, torch.arange(50)) and not torch.equal(first, first.sort().values)
    assert not torch.equal(split_data(100, 2, seed=6)[0], first)


def test_indices_of_classes_are_in_data_set_order_whatever_the_order_of_classes() -> None:
    targets = torch.tensor([3, 1, 2, 1, 3, 0])
    assert indices_of_classes(targets, [3, 1]).tolist() == [0, 1, 3, 4]
    assert indices_of_classes(targets, [1, 3]).tolist() == [0, 1, 3, 4]
    assert indices_of_classes(targets, [7]).tolist() == []


def test_a_class_split() -> None:
    train, test = torch.arange(6).repeat(4), torch.arange(6).repeat(2)
    split = make_split("class", train, test, num_classes=6, num_tasks=3, seed=0)
    assert len(split) == 3
    for classes, of_train, of_test in zip(split.classes, split.train, split.test, strict=True):
        assert set(train[of_train].tolist()) == set(test[of_test].tolist()) == set(classes)
        assert (len(of_train), len(of_test)) == (8, 4)


def test_unlabelled_images_belong_to_no_class() -> None:
    train = torch.tensor([0, -1, 1, -1])
    split = make_split("class", train, torch.tensor([0, 1]), num_classes=2, num_tasks=2, seed=0)
    assert sorted(torch.cat(split.train).tolist()) == [0, 2]


@pytest.mark.parametrize("num_tasks", [1, 3])
def test_a_data_split_judges_every_task_on_all_test_images(num_tasks: int) -> None:
    train, test = torch.arange(2).repeat(7), torch.arange(2).repeat(2)
    split = make_split("data", train, test, num_classes=2, num_tasks=num_tasks, seed=0)
    assert split.classes == [[0, 1]] * num_tasks
    assert [indices.tolist() for indices in split.test] == [[0, 1, 2, 3]] * num_tasks
    assert torch.equal(torch.cat(split.train).sort().values, torch.arange(14))
