"""Several processes that share each step do what one alone does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import PAIRS
from shared_steps import FEW, PRECISIONS

from kaizen.data.loaders import ShuffledBatches
from kaizen.ranks import Part, rand_rows, share_of

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """By the number of processes, what each of them found."""
    folder = tmp_path_factory.mktemp("ranks")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "shared_steps.py")]
    children = [subprocess.Popen([*command, str(rank), str(folder)], env=env) for rank in range(3)]
    try:
        assert [child.wait(timeout=300) for child in children] == [0, 0, 0]
    finally:
        for child in children:
            child.kill()
    return {world: [torch.load(folder / f"rank{rank}of{world}") for rank in range(world)] for world in (1, 2, 3)}


@pytest.mark.slow
@pytest.mark.parametrize(("world", "precision", "near"), [(2, "32", 1e-5), (3, "32", 1e-5), (2, "64", 1e-12)])
def test_losses_gradients_and_memories_are_those_of_one_process(
    world: int, precision: str, near: float, steps: dict[int, list[dict[str, Any]]]
) -> None:
    ranks, (alone,) = steps[world], steps[1]
    assert {name for pair in FEW for name in pair} == {name for pair in PAIRS for name in pair}
    steps_of = {p: {f"{method} {distiller} {p}" for method, distiller in FEW} for p in PRECISIONS[world]}
    assert all(rank.keys() == set().union(*steps_of.values()) for rank in ranks)
    for pair in sorted(steps_of[precision]):
        one = alone[pair]
        for found in (rank[pair] for rank in ranks):
            assert found["terms"] == pytest.approx(one["terms"], rel=near, abs=near / 10), pair
            assert found["gradients"].keys() == one["gradients"].keys(), pair
            mine, theirs = (torch.cat([g.flatten() for g in each["gradients"].values()]) for each in (found, one))
            assert float((mine - theirs).norm()) <= near * float(theirs.norm()), pair
            for name, value in one["buffers"].items():
                torch.testing.assert_close(
                    found["buffers"][name], value, rtol=near, atol=3 * near, msg=f"{pair} {name}"
                )
        for name, value in ranks[0][pair]["buffers"].items():
            assert all(torch.equal(value, rank[pair]["buffers"][name]) for rank in ranks), f"{pair} {name}"


def test_every_image_is_one_process_s_and_in_the_order_of_one_alone() -> None:
    whole = [list(batch) for batch in ShuffledBatches(25, 7, seed=3)]
    for world in (2, 3, 7):
        parts = [[list(batch) for batch in ShuffledBatches(25, 7, 3, None, rank, world)] for rank in range(world)]
        assert [sum((part[i] for part in parts), []) for i in range(len(whole))] == whole
    seeds = {batch.seed for rank in range(3) for batch in ShuffledBatches(25, 7, 3, None, rank, 3)}
    assert len(seeds) == 9  # loader processes draw something else for each part


def test_a_part_of_a_joined_batch_knows_its_places() -> None:
    parts = [Part.of([5, 3], rank, 2) for rank in range(2)]
    assert [part.rows.tolist() for part in parts] == [[0, 1, 5], [2, 3, 4, 6, 7]]
    assert {part.total for part in parts} == {8}
    assert [share_of(5, rank, 3) for rank in range(3)] == [slice(0, 1), slice(1, 3), slice(3, 5)]


def test_what_is_drawn_for_a_part_is_drawn_for_the_whole() -> None:
    torch.manual_seed(0)
    whole = rand_rows(8, 2, device=torch.device("cpu"))
    for rank in range(2):
        part = Part.of([5, 3], rank, 2)
        torch.manual_seed(0)
        with part.drawing():
            assert torch.equal(rand_rows(len(part.rows), 2, device=torch.device("cpu")), whole[part.rows])
