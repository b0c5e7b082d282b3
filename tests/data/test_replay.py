from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kaizen.data.replay import RANKINGS, Memory, flatten, herd, replay_counts, select_replay
from kaizen.data.tasks import TaskSplit, make_split, split_domains

TARGETS = torch.tensor([0] * 10 + [1] * 20 + [2] * 30 + [3] * 40)


def split_of(strategy: str = "class", num_tasks: int = 2) -> TaskSplit:
    return make_split(strategy, TARGETS, TARGETS, num_classes=4, num_tasks=num_tasks, seed=0)


def memory_of(
    split: TaskSplit, targets: torch.Tensor, task: int, selection: str = "first", seed: int = 0, **limits: Any
) -> Memory:
    counts = replay_counts(split, targets, task, selection=selection, **limits)
    return select_replay(split, targets, counts, selection, seed)


def replay(*args: Any, **options: Any) -> torch.Tensor:
    return flatten(memory_of(*args, **options))


def counts(indices: torch.Tensor) -> list[int]:
    return TARGETS[indices].bincount(minlength=4).tolist()


def test_the_first_task_replays_nothing() -> None:
    assert len(replay(split_of(), TARGETS, 0)) == 0


def test_the_published_selection_is_the_first_images_of_each_past_class() -> None:
    split = split_of(num_tasks=4)
    starts = [0, 10, 30, 60]
    chosen = replay(split, TARGETS, 3, proportion=0.25)
    past = [c for classes in split.classes[:3] for c in classes]
    expected = [starts[c] + i for c in past for i in range(int(0.25 * (10 + 10 * c)))]
    assert chosen.tolist() == expected


def test_a_proportion_is_rounded_down_class_by_class() -> None:
    split = split_of(num_tasks=4)
    present = split.classes[3][0]
    expected = [0 if c == present else int(0.19 * n) for c, n in enumerate((10, 20, 30, 40))]
    assert counts(replay(split, TARGETS, 3, proportion=0.19)) == expected
    assert len(replay(split, TARGETS, 3, proportion=0.02)) <= 1  # one class of 40 x 0.02 < 1 image


@pytest.mark.parametrize("selection", RANKINGS)
@pytest.mark.parametrize("strategy", ["class", "data"])
def test_no_image_twice_and_only_images_of_past_tasks(selection: str, strategy: str) -> None:
    split = split_of(strategy, num_tasks=4)
    for task in range(4):
        chosen = replay(split, TARGETS, task, proportion=0.5, selection=selection).tolist()
        assert len(set(chosen)) == len(chosen)
        assert set(chosen) <= {i for part in split.train[:task] for i in part.tolist()}
        assert bool(chosen) is (task > 0)


@given(st.integers(1, 200), st.integers(1, 3), st.sampled_from(["class", "data"]))
@settings(max_examples=60, deadline=None)
def test_memory_is_shared_equally_and_never_exceeded(size: int, task: int, strategy: str) -> None:
    split = split_of(strategy, num_tasks=4)
    chosen = replay(split, TARGETS, task, memory_size=size)
    assert len(chosen) <= size
    for past in range(task):
        mine = torch.isin(chosen, split.train[past]).sum()
        assert mine == min(size // task, len(split.train[past]))


def test_memory_is_shared_over_the_classes_of_a_task() -> None:
    split = split_of(num_tasks=2)
    chosen = replay(split, TARGETS, 1, memory_size=13)
    assert counts(chosen) == [6 if c in split.classes[0] else 0 for c in range(4)]


def test_the_smaller_of_both_limits_holds() -> None:
    split = split_of(num_tasks=4)
    assert len(replay(split, TARGETS, 1, proportion=0.1, memory_size=100)) == int(0.1 * len(split.train[0]))
    assert len(replay(split, TARGETS, 1, proportion=1.0, memory_size=3)) == 3


def test_a_data_split_keeps_a_part_of_each_past_task() -> None:
    split = split_of("data", num_tasks=3)
    chosen = replay(split, TARGETS, 2, proportion=0.1)
    assert chosen.tolist() == [*split.train[0][:3].tolist(), *split.train[1][:3].tolist()]


def test_a_random_selection_follows_from_its_seed_and_stays_from_task_to_task() -> None:
    split = split_of(num_tasks=4)

    def chosen(task: int, seed: int = 0) -> list[int]:
        return replay(split, TARGETS, task, proportion=0.5, selection="random", seed=seed).tolist()

    assert chosen(3) == chosen(3) != chosen(3, seed=1)
    assert chosen(3)[: len(chosen(1))] == chosen(1)
    assert chosen(1) != replay(split, TARGETS, 1, proportion=0.5).tolist()


@pytest.mark.parametrize("task", [1, 2, 3])
def test_a_balanced_memory_gives_each_class_seen_an_equal_share_of_one_total(task: int) -> None:
    split = split_of(num_tasks=4)
    seen = [c for classes in split.classes[:task] for c in classes]
    chosen = replay(split, TARGETS, task, memory_size=12, selection="balanced")
    assert counts(chosen) == [min(12 // task, 10 + 10 * c) if c in seen else 0 for c in range(4)]
    assert len(replay(split, TARGETS, task, proportion=0.1, selection="balanced")) == 10


def test_what_does_not_divide_goes_to_the_first_classes() -> None:
    shares = replay_counts(split_of(num_tasks=4), TARGETS, 3, memory_size=11, selection="balanced")
    assert shares == [[4], [4], [3]]


@pytest.mark.parametrize("selection", ["random", "balanced"])
def test_a_shrinking_memory_keeps_a_part_of_what_it_had(selection: str) -> None:
    split = split_of(num_tasks=4)
    before, after = (
        memory_of(split, TARGETS, t, memory_size=9, selection=selection, seed=3)[0][0].tolist() for t in (1, 3)
    )
    assert len(before) == 9 and len(after) == 3 and before[:3] == after


def test_herding_keeps_the_mean_of_the_first_k_close_to_the_mean_of_all() -> None:
    feats = F.normalize(torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) + 0.5, dim=1)
    order = herd(feats, 40)
    assert sorted(order.tolist()) == list(range(40))
    assert order[0] == (feats - feats.mean(0)).norm(dim=1).argmin()

    def gap(chosen: torch.Tensor) -> float:
        return float((feats[chosen].mean(0) - feats.mean(0)).norm())

    random = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert all(gap(order[:k]) < 0.7 * gap(random[:k]) for k in (2, 5, 10, 20))
    assert torch.equal(herd(feats, 5), order[:5]) and len(herd(feats, 0)) == 0


def test_a_domain_split_keeps_a_part_of_each_class_within_each_past_domain() -> None:
    domains = torch.arange(100) % 2
    domains[:10] = 0  # the first class is in one domain alone
    split = split_domains(domains, domains, num_classes=4, num_tasks=2)
    chosen = replay(split, TARGETS, 1, proportion=0.2)
    assert (domains[chosen] == 0).all() and counts(chosen) == [2, 2, 3, 4]
    assert counts(replay(split_domains(1 - domains, domains, 4, 2), TARGETS, 1, memory_size=9)) == [0, 3, 3, 3]


def test_unlabelled_images_are_replayed_where_classes_do_not_count() -> None:
    targets = TARGETS.clone()
    targets[::2] = -1
    by_class, at_random = (make_split(kind, targets, TARGETS, 4, 2, seed=0) for kind in ("class", "data"))
    assert (targets[replay(by_class, targets, 1)] >= 0).all()
    assert (targets[replay(at_random, targets, 1)] == -1).any()
