"""Batches: which images make a step, in which order."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Thread
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from kaizen.data.images import CentreCrop, Crops, Images, ImageSet, RandomCrop
from kaizen.ranks import share_of

EVALUATION_BATCH = 256  # images at once where nothing is trained
Batch = tuple[Images, Tensor, Tensor]  # images, targets (B,), indices (B,) into the image set


class Draw(list[int]):
    """Positions of a batch, and the seed of what is drawn at random while it is read."""

    seed: int

    @classmethod
    def of(cls, positions: list[int], seed: int) -> Draw:
        """Positions with a seed."""
        draw = cls(positions)
        draw.seed = seed
        return draw


class BatchDataset(Dataset[Batch]):
    """An image set asked for whole batches, so that images in memory are gathered in one go."""

    def __init__(
        self,
        images: ImageSet,
        indices: Tensor,
        crops: Crops,
        targets: Tensor | None = None,
        transform: Callable[[Images], Images] | None = None,
    ) -> None:
        """What is served of an image set.

        Args:
            images: the image set.
            indices: int64, the part of it.
            crops: of large images.
            targets: labels in the place of the image set's own, (N,).
            transform: makes views of what was read; None leaves that to the device.
        """
        self.images, self.indices, self.crops, self.transform = images, indices, crops, transform
        self.targets = (images.targets if targets is None else targets).to(images.device)

    def __getitem__(self, positions: list[int]) -> Batch:
        """Images of the given positions in `indices`; all of it where the image set has its images.

        Random crops and views follow from the seed of a Draw, whichever process makes them.
        """
        if not isinstance(positions, Draw) or (self.transform is None and self.images.in_memory):
            return self._read(positions)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(positions.seed)
            return self._read(positions)

    def _read(self, positions: list[int]) -> Batch:
        chosen = sent(self.indices[positions], self.images.device)
        images = self.images.read(chosen, self.crops)
        return images if self.transform is None else self.transform(images), self.targets[chosen], chosen

    def __len__(self) -> int:
        return len(self.indices)


def sent(indices: Tensor, device: torch.device) -> Tensor:
    """Indices on a device. To a GPU they go from pinned memory: otherwise one waits here for all it has yet to do."""
    return indices.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else indices.to(device)


def full_batches(count: int, batch_size: int) -> int:
    """How many batches `count` images give when the rest is dropped; one where they are fewer than a batch."""
    return count // min(batch_size, count) if count else 0


class ShuffledBatches(Sampler[list[int]]):
    """Full batches in random order; what is left over is dropped. Of each batch, one process gets its part.

    The order follows from (seed, epoch, how often this epoch began anew) alone, so that a run taken up
    again sees the batches it would have seen, and a short loader that is cycled never repeats itself. So do the seeds
    of its batches.

    Args:
        count: number of images.
        batch_size: images per batch; all of them where there are fewer.
        seed: of the order.
        limit: no more batches than this in an epoch; other images come in the next one.
        rank, world: the number of this process, and how many share each batch.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, limit: int | None = None, rank: int = 0, world: int = 1
    ) -> None:
        self.count, self.batch_size, self.seed = count, min(batch_size, count), seed
        self.batches = full_batches(count, batch_size) if limit is None else min(limit, full_batches(count, batch_size))
        self.epoch = self.round = self.first = 0
        self.rank, self.world = rank, world

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch, the first time when loader processes may have begun with it."""
        if epoch != self.epoch:
            self.epoch, self.round, self.first = epoch, 0, 0

    def go_to(self, epoch: int, batch: int) -> None:
        """Begin inside an epoch, of which `batch` batches were seen; a short loader has begun anew meanwhile."""
        self.epoch, (self.round, self.first) = epoch, divmod(batch, self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        key = self.seed * 1_000_003 + self.epoch * 1_009 + self.round
        first, self.first = self.first, 0
        self.round += 1
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(key))
        for batch in range(first, self.batches):
            start = batch * self.batch_size
            positions = order[start : start + self.batch_size][share_of(self.batch_size, self.rank, self.world)]
            yield Draw.of(positions.tolist(), ((key * 1_000_033 + batch) * self.world + self.rank) % 2**63)

    def __len__(self) -> int:
        return self.batches


def training_loader(
    images: ImageSet,
    indices: Tensor,
    crops: Sequence[RandomCrop],
    batch_size: int,
    num_workers: int,
    seed: int,
    limit: int | None = None,
    targets: Tensor | None = None,
    transform: Callable[[Images], Images] | None = None,
    rank: int = 0,
    world: int = 1,
) -> DataLoader[Batch]:
    """Shuffled full batches of (images, targets, indices), at most `limit` in an epoch; of each, the part of one rank.

    `targets`, (N,), are served in the place of the image set's own labels, and what `transform` makes of the images
    in the place of the images.
    """
    batches = ShuffledBatches(len(indices), batch_size, seed, limit, rank, world)
    return _loader(BatchDataset(images, indices, crops, targets, transform), batches, num_workers)


def evaluation_loader(
    images: ImageSet, indices: Tensor, size: int, batch_size: int, num_workers: int
) -> DataLoader[Batch]:
    """Each image once, in order. Whether and how often it is read leaves the random numbers of training alone."""
    batches = BatchSampler(range(len(indices)), batch_size, drop_last=False)
    return _loader(BatchDataset(images, indices, CentreCrop(size)), batches, num_workers, torch.Generator())


def join(batch: dict[str, Batch]) -> Batch:
    """Task images and replay images as one batch: uint8 images, crops of them or ready views; targets, indices."""
    images, targets, indices = zip(*(batch[name] for name in ("task", "replay") if name in batch), strict=True)
    if isinstance(images[0], Tensor):
        joined: Images = torch.cat(images)
    else:
        joined = [torch.cat(crops) for crops in zip(*images, strict=True)]
    return joined, torch.cat(targets), torch.cat(indices)


def one_epoch(loaders: Mapping[str, DataLoader[Batch]]) -> Iterator[dict[str, Batch]]:
    """What training sees in an epoch, the shorter loaders cycled, read beside training without disturbing it.

    A loader that keeps its processes has one iterator for all who read from it; here they get processes of their own.
    """
    from pytorch_lightning.utilities import CombinedLoader

    own = {}
    for name, loader in loaders.items():
        sampler, workers = copy.copy(loader.sampler), loader.num_workers  # training begins its first epoch anew
        own[name] = _loader_of(loader.dataset, sampler, workers, loader.pin_memory, keep_workers=False)
    for batch, _, _ in CombinedLoader(own, "max_size_cycle"):
        yield batch


def _loader(
    dataset: BatchDataset, sampler: Sampler[list[int]], num_workers: int, generator: torch.Generator | None = None
) -> DataLoader[Batch]:
    # Also in this order: small files are decoded now, once, and not in each process.
    workers = 0 if dataset.images.in_memory and dataset.transform is None else num_workers
    pin = torch.cuda.is_available() and dataset.images.device.type == "cpu"
    return _loader_of(dataset, sampler, workers, pin, workers > 0, generator)


def _loader_of(
    dataset: Dataset[Batch],
    sampler: Any,
    workers: int,
    pin_memory: bool,
    keep_workers: bool,
    generator: torch.Generator | None = None,
) -> DataLoader[Batch]:
    """`generator` is where the seeds of loader processes come from, by default torch's own."""
    return DataLoader(
        dataset,
        batch_size=None,  # the sampler already speaks in batches
        sampler=sampler,
        num_workers=workers,
        persistent_workers=keep_workers,
        pin_memory=pin_memory,
        generator=generator,
        worker_init_fn=_obey_the_trainer,
    )


def _obey_the_trainer(worker: int) -> None:
    """A loader process has inherited the trainer's way with signals; it must end when it is told to, and only then.

    A terminal sends SIGINT and SIGHUP to every process of a run; SLURM, systemd and `kill -TERM -GROUP` send SIGTERM.
    The trainer saves and ends; for that it needs its loaders a little longer.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS does not say who has sent a signal
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    Thread(target=_end_when_told_by, args=(os.getppid(),), daemon=True).start()


def _end_when_told_by(trainer: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)
