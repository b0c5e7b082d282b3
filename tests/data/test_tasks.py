from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kaizen.args import UsageError
from kaizen.data.tasks import (
    class_order,
    indices_of_classes,
    make_split,
    split_classes,
    split_data,
    split_domains,
    visible_labels,
)


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


def test_unlabelled_images_are_shared_out_equally_at_random() -> None:
    train = torch.tensor([0, -1, 1, -1, 2] * 20)
    split = make_split("class", train, torch.tensor([0, 1, 2]), 3, num_tasks=2, seed=0, sizes=[1, 2])
    assert sorted(torch.cat(split.train).tolist()) == list(range(100))
    shares = [indices[train[indices] == -1] for indices in split.train]
    assert [len(share) for share in shares] == [20, 20]
    assert not torch.equal(shares[0], (train == -1).nonzero().flatten()[:20])
    assert [len(indices) for indices in split.train] == [40, 60]
    assert all(torch.equal(indices, indices.sort().values) for indices in split.train)  # in data-set order
    again = make_split("class", train, torch.tensor([0, 1, 2]), 3, num_tasks=2, seed=0, sizes=[1, 2])
    other = make_split("class", train, torch.tensor([0, 1, 2]), 3, num_tasks=2, seed=1, sizes=[1, 2])
    assert torch.equal(split.train[0], again.train[0]) and not torch.equal(split.train[0], other.train[0])


@pytest.mark.parametrize("num_tasks", [1, 3])
def test_a_data_split_judges_every_task_on_all_test_images(num_tasks: int) -> None:
    train, test = torch.arange(2).repeat(7), torch.arange(2).repeat(2)
    split = make_split("data", train, test, num_classes=2, num_tasks=num_tasks, seed=0)
    assert split.classes == [[0, 1]] * num_tasks
    assert [indices.tolist() for indices in split.test] == [[0, 1, 2, 3]] * num_tasks
    assert torch.equal(torch.cat(split.train).sort().values, torch.arange(14))


def test_unequal_tasks_are_cut_from_the_same_order() -> None:
    equal, unequal = split_classes(10, 5, seed=5), split_classes(10, 3, seed=5, sizes=[5, 2, 3])
    assert [len(task) for task in unequal] == [5, 2, 3]
    assert sum(unequal, []) == sum(equal, [])


def test_an_order_given_by_hand() -> None:
    assert split_classes(5, 2, seed=9, sizes=[2, 3], order=[4, 0, 3, 1, 2]) == [[4, 0], [3, 1, 2]]
    assert split_classes(4, 2, seed=9, order=[3, 0, 2, 1]) == [[3, 0], [2, 1]]


ANIMALS = ["ant", "bee", "cat"]


@pytest.mark.parametrize(
    ("words", "names", "order"),
    [
        ("2 0 1", ANIMALS, [2, 0, 1]),
        ("cat ant bee", ANIMALS, [2, 0, 1]),
        ("cat 0 bee", ANIMALS, [2, 0, 1]),
        ("2 10 1", ["1", "10", "2"], [2, 1, 0]),  # folders that are called like numbers
        ("2 0 1", ["1", "10", "2"], [2, 0, 1]),
    ],
)
def test_a_class_order_in_words(words: str, names: list[str], order: list[int]) -> None:
    assert class_order(words.split(), names) == order


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("0 1", "--class_order: lacks 1 of the 3 classes, the first one cat; give each class once"),
        ("ant", "--class_order: lacks 2 of the 3 classes, the first one bee; give each class once"),
        ("0 1 1", "--class_order 1: is given twice; give each of the 3 classes once"),
        ("0 1 3", "--class_order 3: no such class; give the numbers 0 to 2, or the names, of all classes"),
        ("ant bee catt", "--class_order catt: no such class (did you mean cat?)"),
        ("ant bee 0", "--class_order 0: is given twice"),
        ("0 1 -1", "--class_order -1: no such class"),
    ],
)
def test_what_is_no_class_order(words: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        class_order(words.split(), ANIMALS)
    assert str(caught.value).startswith(message)


def test_a_domain_split() -> None:
    train, test = torch.tensor([2, 0, 1, 0, 2, 2]), torch.tensor([1, 0, 2, 1])
    split = split_domains(train, test, num_classes=4, num_tasks=2)
    assert (split.strategy, split.classes) == ("domain", [[0, 1, 2, 3]] * 2)
    assert [indices.tolist() for indices in split.train] == [[1, 3], [2]]
    assert [indices.tolist() for indices in split.test] == [[1], [0, 3]]


TARGETS = torch.tensor([0] * 100 + [1] * 50 + [2] * 3 + [-1] * 20)
TASKS = [torch.arange(0, 173, 2), torch.arange(1, 173, 2)]


def shown(fraction: float, seed: int = 0) -> torch.Tensor:
    return visible_labels(TARGETS, TASKS, fraction, seed)


def test_a_fraction_of_the_labels_of_each_class_in_each_task_is_visible() -> None:
    visible = shown(0.1)
    assert torch.isin((visible >= 0).nonzero(), ((visible == TARGETS) & (TARGETS >= 0)).nonzero()).all()
    for task in TASKS:
        labels = visible[task]
        assert [int((labels == c).sum()) for c in range(3)] == [5, 2, 1]  # of 50, 25 and 1 or 2: at least one
    assert torch.equal(shown(1.0), TARGETS)
    assert (shown(1e-9) >= 0).sum() == 6


def test_what_is_visible_follows_from_the_seed_and_a_larger_fraction_shows_more() -> None:
    before = torch.get_rng_state()
    assert torch.equal(shown(0.3), shown(0.3))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(shown(0.3), shown(0.3, seed=1))
    few, many = (shown(fraction) >= 0 for fraction in (0.2, 0.5))
    assert bool(many[few].all()) and few.sum() < many.sum()
    assert not torch.equal(few.nonzero().flatten()[:5], torch.arange(5))  # not simply the first ones
