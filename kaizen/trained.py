"""A trained model in use: features and classes of images that nobody has seen in training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kaizen.args import Args, UsageError, nearest
from kaizen.checkpoint import load_task
from kaizen.cli import args_from, complete, image_size
from kaizen.data.given import GivenImages, Reader
from kaizen.data.loaders import EVALUATION_BATCH
from kaizen.networks import HEADS, encoder_of, evaluation_view, head_of, heads_in
from kaizen.precision import evaluation_precision
from kaizen.trained_on import TrainedOn

CLASSES = ("seen", "all")


@dataclass(frozen=True)
class Predictions:
    """What a head says of N images, on the CPU.

    Attributes:
        labels: (N,) int64, the most probable class of each.
        probabilities: (N, C) float32; 0 for classes that are left out.
        names: of the C classes.
    """

    labels: Tensor
    probabilities: Tensor
    names: list[str]

    @property
    def label_names(self) -> list[str]:
        """The name of each image's class."""
        return [self.names[label] for label in self.labels.tolist()]


class TrainedModel:
    """An encoder and, where there is one, a head; made by `kaizen.load`.

    Images are given as a uint8 tensor (N, 3, H, W) or (3, H, W), a float one in 0-1, a numpy array (N, H, W, 3) or
    (H, W, 3) of such values, a PIL image, a path, or a list of PIL images and paths of any sizes. They are resized,
    cropped and normalised as the test images were in training, in batches and without gradient.

    Attributes:
        classes: names of all classes, in the order of the labels.
        classes_by_task: for each task up to the model's own, the labels of the classes in it; where a checkpoint of an
            older version does not say, all classes in one.
        seen: the labels of all of these.
        image_size: side of the images that the encoder sees, in pixels.
        feature_dim: width of the features.
        task_idx: the task that it has learned last.
        head: what predicts, None without one.
        notice: what a user should know, or "".
    """

    def __init__(self, args: Args, checkpoint: dict[str, Any], head: str, path: Path, flag: str) -> None:
        self._source = f"{flag} {path}"
        self.args, self.image_size, self.task_idx = args, image_size(args), int(checkpoint["task_idx"])
        state, (prefix, encoder_prefix) = checkpoint["state"], HEADS[head]
        self.encoder, self.feature_dim = encoder_of(args, state, encoder_prefix, path, flag)
        self.head: str | None = None
        self.classifier: nn.Module | None = None
        outputs = 0
        if head in heads_in(state):
            self.head, (self.classifier, outputs) = head, head_of(args, state, prefix, path, flag)
        self.view = evaluation_view(args)
        for network in self._networks():
            network.eval().requires_grad_(False)

        kept = checkpoint.get("trained_on")
        about = nameless(outputs) if kept is None else TrainedOn(**kept)
        if self.head and len(about.classes) != outputs:
            raise UsageError(
                f"{self._source}: names {len(about.classes)} classes for {outputs} outputs; give a whole one"
            )
        self.classes, self.classes_by_task, self.seen = about.classes, about.classes_by_task, about.seen
        self.reader = Reader(self.image_size, None if kept is None else about.cropped)
        self.notice = (
            f"{path}: of an older version, names no classes; they are called by number" if kept is None else ""
        )

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.view.mean.device

    def to(self, device: torch.device | str) -> TrainedModel:
        """The same model, moved to another device."""
        for network in self._networks():
            network.to(device)
        return self

    def features(self, images: GivenImages, batch_size: int = EVALUATION_BATCH) -> Tensor:
        """The encoder's features, (N, feature_dim) float32 on the CPU. Raises UsageError for what are no images."""
        found = [feats for feats, _ in self.outputs(images, batch_size)]
        return torch.cat(found) if found else torch.empty(0, self.feature_dim)

    def predict(self, images: GivenImages, classes: str = "seen", batch_size: int = EVALUATION_BATCH) -> Predictions:
        """What the images show.

        Args:
            images: see the class.
            classes: "seen" chooses among the classes that were learnt so far. "all" takes those of later tasks too,
                which cannot be right yet: so the accuracies in an experiment's results are counted. After the last
                task both are the same.
            batch_size: images at once.

        Raises:
            UsageError: the model has no head, or these are no images.
        """
        self.check_head()
        found = [logits for _, logits in self.outputs(images, batch_size) if logits is not None]
        logits = torch.cat(found) if found else torch.empty(0, len(self.classes))
        allowed = self.allowed(logits, classes)
        return Predictions(allowed.argmax(dim=1), allowed.softmax(dim=1), self.classes)

    def check_head(self) -> None:
        """Raises UsageError where nothing can predict."""
        if self.head is None:
            raise UsageError(
                f"{self._source}: has no classifier and can tell features alone; train it with --classifier_training "
                "True, or judge its features with python -m kaizen.evaluate --protocol linear"
            )

    def allowed(self, logits: Tensor, classes: str) -> Tensor:
        """Logits (N, C), minus infinity where a class is not among "seen" or "all". Raises UsageError for others."""
        if classes not in CLASSES:
            raise UsageError(f"classes {classes}: choose from {', '.join(CLASSES)}")
        if classes == "all":
            return logits
        left_out = torch.ones(len(self.classes), dtype=torch.bool, device=logits.device)
        left_out[self.seen] = False
        return logits.masked_fill(left_out, -torch.inf)

    @torch.no_grad()
    def outputs(self, images: GivenImages, batch_size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Batch by batch the features and, with a head, its logits; float32 on the CPU."""
        for levels in self.reader.batches(images, batch_size):
            yield self.look(levels)

    @torch.no_grad()
    def look(self, levels: Tensor) -> tuple[Tensor, Tensor | None]:
        """One batch of what the reader gives, uint8 (B, 3, H, W): its features and, with a head, its logits."""
        with evaluation_precision(self.args.precision, self.device):
            feats = self.encoder(self.view(levels.to(self.device)))
            logits = None if self.classifier is None else self.classifier(feats)
        return feats.float().cpu(), None if logits is None else logits.float().cpu()

    def _networks(self) -> list[nn.Module]:
        return [self.encoder, self.view, *([] if self.classifier is None else [self.classifier])]


def load_trained(path: str | PathLike[str], head: str, flag: str) -> TrainedModel:
    """See `kaizen.load`; `flag` is what the user gave the path with, for messages."""
    if head not in HEADS:
        raise UsageError(f"head {head}: choose from {', '.join(HEADS)}{nearest(head, HEADS)}")
    file = Path(path)
    if file.is_dir():
        file = newest_end(file, flag)
    checkpoint = load_task(file, flag)
    if not checkpoint["flags"]:
        raise UsageError(
            f"{flag} {file}: does not say how it was trained, as published checkpoints; use python -m kaizen.evaluate "
            "--pretrained_feature_extractor with the flags of its training"
        )
    there = heads_in(checkpoint["state"])
    if head not in there and head != "classifier":
        raise UsageError(f"{flag} {file}: has no {head} head; it has {', '.join(there) or 'none'}")
    return TrainedModel(complete(args_from(checkpoint["flags"])), checkpoint, head, file, flag)


def nameless(count: int) -> TrainedOn:
    """What is known of the classes of a checkpoint that does not say."""
    numbers = [*range(count)]
    return TrainedOn([*map(str, numbers)], [numbers], cropped=False)


def newest_end(folder: Path, flag: str) -> Path:
    """The checkpoint of the last finished task of an experiment. Raises UsageError where there is none."""
    ends = {
        int(end.parent.name.removeprefix("task")): end
        for end in folder.glob("task*/final.ckpt")
        if end.parent.name.removeprefix("task").isdecimal() and (end.parent / "accuracy.json").is_file()
    }
    if not ends:
        raise UsageError(f"{flag} {folder}: holds no finished task; give an experiment or a task*/final.ckpt in it")
    return ends[max(ends)]
