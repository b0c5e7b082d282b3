from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kaizen.data.replay import SELECTIONS, select_replay
from kaizen.data.tasks import TaskSplit, make_split, split_domains

TARGETS = torch.tensor([0] * 10 + [1] * 20 + [2] * 30 + [3] * 40)


def split_of(strategy: str = "class", num_tasks: int = 2) -> TaskSplit:
    return make_split(strategy, TARGETS, TARGETS, num_classes=4, num_tasks=num_tasks, seed=0)


def counts(indices: torch.Tensor) -> list[int]:
    return TARGETS[indices].bincount(minlength=4).tolist()


def test_the_first_task_replays_nothing() -> None:
    assert len(select_replay(split_of(), TARGETS, 0)) == 0


def test_the_published_selection_is_the_first_images_of_each_past_class() -> None:
    split = split_of(num_tasks=4)
    starts = [0, 10, 30, 60]
    chosen = select_replay(split, TARGETS, 3, proportion=0.25)
    past = [c for classes in split.classes[:3] for c in classes]
    expected = [starts[c] + i for c in past for i in range(int(0.25 * (10 + 10 * c)))]
    assert chosen.tolist() == expected


def test_a_proportion_is_rounded_down_class_by_class() -> None:
    split = split_of(num_tasks=4)
    present = split.classes[3][0]
    expected = [0 if c == present else int(0.19 * n) for c, n in enumerate((10, 20, 30, 40))]
    assert counts(select_replay(split, TARGETS, 3, proportion=0.19)) == expected
    assert len(select_replay(split, TARGETS, 3, proportion=0.02)) <= 1  # one class of 40 x 0.02 < 1 image


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("strategy", ["class", "data"])
def test_no_image_twice_and_only_images_of_past_tasks(selection: str, strategy: str) -> None:
    split = split_of(strategy, num_tasks=4)
    for task in range(4):
        chosen = select_replay(split, TARGETS, task, proportion=0.5, selection=selection).tolist()
        assert len(set(chosen)) == len(chosen)
        assert set(chosen) <= {i for part in split.train[:task] for i in part.tolist()}
        assert bool(chosen) is (task > 0)


@given(st.integers(1, 200), st.integers(1, 3), st.sampled_from(["class", "data"]))
@settings(max_examples=60, deadline=None)
def test_memory_is_shared_equally_and_never_exceeded(size: int, task: int, strategy: str) -> None:
    split = split_of(strategy, num_tasks=4)
    chosen = select_replay(split, TARGETS, task, memory_size=size)
    assert len(chosen) <= size
    for past in range(task):
        mine = torch.isin(chosen, split.train[past]).sum()
        assert mine == min(size // task, len(split.train[past]))


def test_memory_is_shared_over_the_classes_of_a_task() -> None:
    split = split_of(num_tasks=2)
    chosen = select_replay(split, TARGETS, 1, memory_size=13)
    assert counts(chosen) == [6 if c in split.classes[0] else 0 for c in range(4)]


def test_the_smaller_of_both_limits_holds() -> None:
    split = split_of(num_tasks=4)
    assert len(select_replay(split, TARGETS, 1, proportion=0.1, memory_size=100)) == int(0.1 * len(split.train[0]))
    assert len(select_replay(split, TARGETS, 1, proportion=1.0, memory_size=3)) == 3


def test_a_data_split_keeps_a_part_of_each_past_task() -> None:
    split = split_of("data", num_tasks=3)
    chosen = select_replay(split, TARGETS, 2, proportion=0.1)
    assert chosen.tolist() == [*split.train[0][:3].tolist(), *split.train[1][:3].tolist()]


def test_a_random_selection_follows_from_its_seed_and_stays_from_task_to_task() -> None:
    split = split_of(num_tasks=4)

    def chosen(task: int, seed: int = 0) -> list[int]:
        return select_replay(split, TARGETS, task, proportion=0.5, selection="random", seed=seed).tolist()

    assert chosen(3) == chosen(3) != chosen(3, seed=1)
    assert chosen(3)[: len(chosen(1))] == chosen(1)
    assert chosen(1) != select_replay(split, TARGETS, 1, proportion=0.5).tolist()


def test_a_domain_split_keeps_a_part_of_each_class_within_each_past_domain() -> None:
    domains = torch.arange(100) % 2
    domains[:10] = 0  # the first class is in one domain alone
    split = split_domains(domains, domains, num_classes=4, num_tasks=2)
    chosen = select_replay(split, TARGETS, 1, proportion=0.2)
    assert (domains[chosen] == 0).all() and counts(chosen) == [2, 2, 3, 4]
    assert counts(select_replay(split_domains(1 - domains, domains, 4, 2), TARGETS, 1, memory_size=9)) == [0, 3, 3, 3]


def test_unlabelled_images_are_replayed_where_classes_do_not_count() -> None:
    targets = TARGETS.clone()
    targets[::2] = -1
    by_class, at_random = (make_split(kind, targets, TARGETS, 4, 2, seed=0) for kind in ("class", "data"))
    assert (targets[select_replay(by_class, targets, 1)] >= 0).all()
    assert (targets[select_replay(at_random, targets, 1)] == -1).any()
