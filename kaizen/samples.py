"""Sample views: what the network saw of a few images in the first step of a task, as a picture beside the results."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from kaizen.data.images import CentreCrop, ImageSet
from kaizen.data.loaders import Batch, BatchDataset, join
from kaizen.files import atomic_path, write_json
from kaizen.learner import ContinualLearner

SHOWN = {"task": 6, "replay": 4}  # images of each kind
LARGEST, SMALLEST = 96, 48  # pixels of a cell: larger views are scaled down, smaller ones up by a whole factor
GAP = 4


class Samples(pl.Callback):
    """Write ``views.png`` and ``views.json`` before the first step of a task.

    The picture has a row for each image: the original, then each view. The rows of replay images come last.
    ``views.json`` says what stands where: ``cell`` and ``gap`` in pixels, ``columns``, and for each row ``from`` (task
    or replay) and ``class`` (its name, None without a label).

    Training is left as it is. What a step draws at random follows from where it stands, so the same views are made
    here that the step makes right afterwards; where loader processes make them, they are looked at.

    Args:
        folder: of the task.
        size: height and width of the images that the network sees.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: dict[str, Batch], batch_idx: int
    ) -> None:
        """At the first batch of the task, unless an earlier start of it has been here."""
        if batch_idx or trainer.current_epoch or (self.folder / "views.json").exists():
            return
        assert isinstance(pl_module, ContinualLearner)
        pl_module.on_train_batch_start(batch, batch_idx)  # draws what the step will draw
        dataset = trainer.train_dataloader["task"].dataset  # type: ignore[index]
        assert isinstance(dataset, BatchDataset)
        self.write(pl_module, batch, dataset.images)

    @torch.no_grad()
    def write(self, learner: ContinualLearner, batch: dict[str, Batch], images: ImageSet) -> None:
        """Make the views of the whole batch, and keep those of a few images."""
        chosen, kinds, first = list[int](), list[str](), 0
        for kind in (name for name in SHOWN if name in batch):  # in the order in which they are joined
            count = len(batch[kind][1])
            chosen += range(first, first + min(count, SHOWN[kind]))
            kinds += [kind] * min(count, SHOWN[kind])
            first += count
        joined, _, indices = join(batch)
        with learner.shares["training"].drawing():
            views = [view[chosen] for view in learner.views(joined)]
        places = indices[chosen]
        labels = images.targets[places.cpu()].tolist()
        originals = images.read(places.cpu(), CentreCrop(self.size))
        assert isinstance(originals, Tensor)
        mean, std = (getattr(learner.eval_view, name)[:, None, None] for name in ("mean", "std"))
        pixels = [(view.float() * std + mean).clamp(0, 1).mul(255).round().byte() for view in views]
        columns = [_scaled(originals, max(originals.shape[2:])), *(_scaled(view, self.size) for view in pixels)]
        picture, cell = _grid(columns, kinds.count("task"))
        with atomic_path(self.folder / "views.png") as temporary:
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(temporary, format="png")
        rows = [
            {"from": kind, "class": None if label < 0 else images.class_names[label]}
            for kind, label in zip(kinds, labels, strict=True)
        ]
        names = ["original", *(f"view {number + 1}" for number in range(len(views)))]
        write_json(self.folder / "views.json", {"cell": cell, "gap": GAP, "columns": names, "rows": rows})


def _scaled(images: Tensor, side: int) -> Tensor:
    """Cells of images, uint8 (B, 3, H, W) on whatever device -> the same on the CPU, to look at.

    Args:
        images: of any size.
        side: the length that gets a size between `SMALLEST` and `LARGEST`.
    """
    images = images.cpu()
    if side > LARGEST:
        shape = [max(1, round(length * LARGEST / side)) for length in images.shape[2:]]
        return F.interpolate(images.float(), shape, mode="bilinear", antialias=True).round().clamp(0, 255).byte()
    factor = -(-SMALLEST // side)
    return images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


def _grid(columns: list[Tensor], task_rows: int) -> tuple[Tensor, int]:
    """One picture (3, H, W) of columns of cells, each in the middle of its square; and the side of the squares."""
    cell = max(max(column.shape[2:]) for column in columns)
    step, rows = cell + GAP, len(columns[0])
    picture = torch.full((3, rows * step + GAP, len(columns) * step + GAP), 255, dtype=torch.uint8)
    for x, column in enumerate(columns):
        height, width = column.shape[2:]
        for y, image in enumerate(column):
            top, left = (GAP + place * step + (cell - length) // 2 for place, length in ((y, height), (x, width)))
            picture[:, top : top + height, left : left + width] = image
    if 0 < task_rows < rows:
        picture[:, task_rows * step + 1 : task_rows * step + 3] = 128  # between task images and replay images
    return picture, cell
