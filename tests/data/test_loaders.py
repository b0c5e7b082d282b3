from __future__ import annotations

import multiprocessing
import subprocess
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from helpers import class_folders
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import CROPS, indices, memory
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import DataLoader

from kaizen.args import UsageError
from kaizen.data.images import MemoryImages, image_folder
from kaizen.data.loaders import (
    Batch,
    BatchDataset,
    Draw,
    ShuffledBatches,
    evaluation_loader,
    one_epoch,
    training_loader,
)


@given(st.integers(1, 50), st.integers(1, 60), st.integers(0, 10**9))
@settings(max_examples=60, deadline=None)
def test_shuffled_batches_are_full_and_hold_no_image_twice(count: int, size: int, seed: int) -> None:
    batches = ShuffledBatches(count, size, seed)
    found = list(batches)
    assert len(found) == len(batches) == count // min(size, count) > 0
    assert {len(batch) for batch in found} == {min(size, count)}
    flat = [i for batch in found for i in batch]
    assert len(set(flat)) == len(flat) and set(flat) <= set(range(count))


def test_the_order_follows_from_seed_epoch_and_round_alone() -> None:
    def orders(seed: int, epoch: int, rounds: int = 1) -> list[list[list[int]]]:
        batches = ShuffledBatches(20, 5, seed)
        batches.set_epoch(epoch)
        return [list(batches) for _ in range(rounds)]

    torch.manual_seed(0)
    first = orders(seed=1, epoch=0, rounds=2)
    torch.manual_seed(1)
    assert orders(seed=1, epoch=0, rounds=2) == first
    others = [orders(1, 1)[0], orders(2, 0)[0], first[0], first[1]]
    assert len({str(order) for order in others}) == 4


def test_a_new_epoch_begins_with_its_first_round() -> None:
    batches = ShuffledBatches(20, 5, 0)
    batches.set_epoch(1)
    fresh = list(batches)
    used = ShuffledBatches(20, 5, 0)
    for _ in range(3):
        list(used)
    used.set_epoch(1)
    assert list(used) == fresh


def test_a_limit_takes_other_images_in_the_next_epoch() -> None:
    batches = ShuffledBatches(40, 5, 0, limit=2)
    assert len(batches) == 2
    seen: set[int] = set()
    for epoch in range(12):
        batches.set_epoch(epoch)
        found = list(batches)
        assert [len(batch) for batch in found] == [5, 5]
        seen |= {i for batch in found for i in batch}
    assert len(seen) > 30
    assert len(ShuffledBatches(40, 5, 0, limit=100)) == 8


def test_images_targets_and_indices_belong_together() -> None:
    part = torch.tensor([9, 3, 5, 7])
    for loader in (
        training_loader(memory(12), part, CROPS, batch_size=2, num_workers=4, seed=0),
        evaluation_loader(memory(12), part, size=8, batch_size=3, num_workers=4),
    ):
        assert loader.num_workers == 0  # images in memory: processes would only cost
        seen = []
        for images, targets, chosen in loader:
            assert torch.equal(images[:, 0, 0, 0].long(), chosen) and torch.equal(targets, 2 * chosen)
            seen += chosen.tolist()
        assert sorted(seen) == sorted(part.tolist())


def test_labels_in_the_place_of_the_image_sets_own() -> None:
    hidden = torch.full((12,), -1)
    hidden[3] = 6
    loader = training_loader(memory(12), torch.tensor([3, 5]), CROPS, 2, 0, seed=0, targets=hidden)
    ((_, targets, chosen),) = list(loader)
    assert dict(zip(chosen.tolist(), targets.tolist(), strict=True)) == {3: 6, 5: -1}


def test_evaluation_is_in_order() -> None:
    loader = evaluation_loader(memory(12), torch.tensor([9, 3, 5]), size=8, batch_size=2, num_workers=0)
    assert indices(loader) == [[9, 3], [5]]


def test_fewer_images_than_a_batch_are_one_batch() -> None:
    loader = training_loader(memory(12), torch.tensor([9, 3]), CROPS, batch_size=32, num_workers=0, seed=0)
    assert [sorted(batch) for batch in indices(loader)] == [[3, 9]]


def test_loader_processes_read_large_images(tmp_path: Path) -> None:
    data = image_folder(class_folders(tmp_path, [4], sizes=[(100, 100)]) / "train", "--train_dir")
    loader = training_loader(data, torch.arange(4), CROPS, batch_size=2, num_workers=1, seed=0)
    assert loader.num_workers == 1
    batches = list(loader)
    assert [[crop.shape for crop in images] for images, _, _ in batches] == [[(2, 3, 8, 8)] * 2] * 2
    alone = training_loader(data, torch.arange(4), CROPS, batch_size=2, num_workers=0, seed=0)
    assert [chosen.tolist() for _, _, chosen in batches] == indices(alone)

    data.paths[2].write_bytes(b"no image")
    with pytest.raises(UsageError, match=str(data.paths[2])):
        list(loader)


def test_loader_processes_end_when_the_trainer_says_so_and_only_then(tmp_path: Path) -> None:
    data = image_folder(class_folders(tmp_path, [8], sizes=[(100, 100)]) / "train", "--train_dir")
    loader = training_loader(data, torch.arange(8), CROPS, batch_size=1, num_workers=2, seed=0)
    others = multiprocessing.active_children()
    batches = iter(loader)
    next(batches)
    workers = [process for process in multiprocessing.active_children() if process not in others]
    for worker in workers:  # from another process, as SLURM does
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    assert len(list(batches)) == 7
    assert [worker.is_alive() for worker in workers] == [True, True]
    for worker in workers:
        worker.terminate()
        worker.join(timeout=20)
        assert worker.exitcode == 0


def test_batches_lie_where_the_images_are_and_wait_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # Fake tensors stand in for those of a GPU: they refuse to mix devices and to hand a value to the host.
    pinned: list[tuple[int, ...]] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: (pinned.append(tuple(tensor.shape)), tensor)[1])
    with FakeTensorMode():
        images = MemoryImages(torch.empty(12, 3, 8, 8, dtype=torch.uint8), torch.arange(12), [])
        batches = BatchDataset(images.to(torch.device("cuda")), torch.arange(6), CROPS, torch.arange(12))
        pixels, targets, chosen = batches[[3, 1]]
    assert isinstance(pixels, Tensor) and pixels.shape == (2, 3, 8, 8)
    assert {part.device.type for part in (pixels, targets, chosen)} == {"cuda"}
    assert pinned == [(2,)]  # the indices, and nothing else has to get there


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_only_what_is_not_on_a_gpu_yet_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    part = torch.arange(2)
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = memory(12).to(torch.device("cuda"))
        for images, pinned in ((memory(12), True), (there, False)):
            assert training_loader(images, part, CROPS, 2, 0, seed=0).pin_memory is pinned
            assert evaluation_loader(images, part, 8, 2, 0).pin_memory is pinned


@pytest.mark.parametrize("batch", [0, 1, 4, 5, 7, 9])
def test_a_loader_that_begins_inside_an_epoch_serves_the_rest_of_it(batch: int) -> None:
    """One of five batches, that is cycled; the orders of its rounds differ."""
    whole, rest = (ShuffledBatches(20, 4, 0) for _ in range(2))
    whole.set_epoch(3)
    twice = [(list(draw), draw.seed) for _ in range(2) for draw in whole if isinstance(draw, Draw)]
    rest.go_to(3, batch)
    rest.set_epoch(3)
    found = [(list(draw), draw.seed) for _ in range(2) for draw in rest if isinstance(draw, Draw)]
    assert found[: 10 - batch] == twice[batch:]
    rest.set_epoch(4)
    whole.set_epoch(4)
    assert list(rest) == list(whole)


class Watcher(pl.LightningModule):
    """Trains nothing and remembers what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: dict[int, list[dict[str, list[int]]]] = {}

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> torch.Tensor:
        row = {name: chosen.tolist() for name, (_, _, chosen) in batch.items()}
        self.seen.setdefault(self.current_epoch, []).append(row)
        return self.weight * 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_in_a_trainer_epochs_differ_and_a_short_loader_is_cycled_in_new_orders() -> None:
    def loaders() -> dict[str, DataLoader[Batch]]:
        parts = {"task": torch.arange(24), "replay": torch.arange(24, 32)}
        return {name: training_loader(memory(32), part, CROPS, 2, 0, seed=4) for name, part in parts.items()}

    def watch() -> dict[int, list[dict[str, list[int]]]]:
        watcher = Watcher()
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = pl.Trainer(accelerator="cpu", max_epochs=2, enable_model_summary=False, **quiet)  # type: ignore[arg-type]
        trainer.fit(watcher, loaders())
        return watcher.seen

    seen = watch()
    assert [len(steps) for steps in seen.values()] == [12, 12]  # as many as the longer one has
    for steps in seen.values():
        assert sorted(i for step in steps for i in step["task"]) == list(range(24))
        replayed = [i for step in steps for i in step["replay"]]
        rounds = [replayed[:8], replayed[8:16], replayed[16:]]
        assert [sorted(each) for each in rounds] == [list(range(24, 32))] * 3
        assert rounds[0] != rounds[1] != rounds[2] != rounds[0]
    assert seen[0] != seen[1]
    assert watch() == seen


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_read_beside_training_disturbs_nothing(tmp_path: Path, workers: int) -> None:
    images = image_folder(class_folders(tmp_path, (6, 6), sizes=[(100, 100)]) / "train", 64)
    long = training_loader(images, torch.arange(8), CROPS, 2, workers, 0)
    short = training_loader(images, torch.arange(8, 12), CROPS, 2, workers, 1)
    in_use = iter(long)
    seen = list(one_epoch({"task": long, "replay": short}))
    assert len(seen) == 4
    assert sorted(i for batch in seen for i in batch["task"][2].tolist()) == list(range(8))
    assert {i for batch in seen for i in batch["replay"][2].tolist()} == {8, 9, 10, 11}
    assert len(list(in_use)) == 4


def test_looking_at_images_leaves_random_numbers_alone() -> None:
    images = MemoryImages(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.long), ["a"])
    before = torch.get_rng_state()
    assert len(list(evaluation_loader(images, torch.arange(4), 8, 2, 0))) == 2
    assert torch.equal(torch.get_rng_state(), before)
