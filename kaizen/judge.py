"""Judging a model by a protocol: from a checkpoint to what it gets right on each test image."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kaizen.args import Args, UsageError
from kaizen.checkpoint import load_task
from kaizen.cli import image_size
from kaizen.data.identity import contents_digest, labels_digest
from kaizen.data.images import ImageSet
from kaizen.data.loaders import EVALUATION_BATCH, evaluation_loader
from kaizen.devices import gpu_index, uses_cuda
from kaizen.features import Features, extract_features, kept_features
from kaizen.knn import knn_correct
from kaizen.linear import train_linear
from kaizen.networks import HEADS, encoder_of, evaluation_view, head_of
from kaizen.plan import Data, channel_statistics, labelled_images
from kaizen.precision import evaluation_precision
from kaizen.progress import watched
from kaizen.protocols import Protocol

PARTS = {"method.encoder.": "encoder", "method.momentum.encoder.": "momentum_encoder"}


@dataclass(frozen=True)
class Weights:
    """A model to judge.

    Attributes:
        state: names of `ContinualLearner` -> tensors.
        key: what kept features of this model are known by.
        path, flag: where it comes from, for messages.
        kept: folder for its features, or None.
    """

    state: dict[str, Tensor]
    key: str
    path: Path
    flag: str
    kept: Path | None

    @classmethod
    def load(cls, path: Path, flag: str, kept: Path | None) -> Weights:
        """Those of a checkpoint. Raises UsageError where it is missing or damaged."""
        state = load_task(path, flag)["state"]
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        return cls(state, digest.hexdigest(), path, flag, kept)


class Judge:
    """Judges models on one data set.

    Args:
        args: flags of the model and its data.
        data: opened with them.
        protocol: how.

    Raises:
        UsageError: there is nothing to judge with.
    """

    def __init__(self, args: Args, data: Data, protocol: Protocol) -> None:
        self.args, self.data, self.protocol = args, data, protocol
        self.device = torch.device("cuda", gpu_index(args)) if uses_cuda(args) else torch.device("cpu")
        self.view = evaluation_view(args).to(self.device)
        self.contents: dict[str, dict[str, str]] = {}
        if not (data.test.targets >= 0).any():
            raise UsageError(f"--dataset {args.dataset}: has no labelled test images to judge with")

    def correct(self, weights: Weights, task_idx: int, title: str) -> dict[str, Tensor]:
        """What a model gets right.

        Args:
            weights: the model.
            task_idx: the task that it has learned last; --labels counts from there.
            title: for progress lines.

        Returns:
            Head -> one bool per test image.

        Raises:
            UsageError: the model is of another architecture, or lacks the head.
        """
        if self.protocol.name in HEADS:
            return self._heads(weights, title)
        labelled = labelled_images(self.data, self.protocol.labels, task_idx)
        bank = self._features(weights, "method.encoder.", "train", title).of(labelled)
        if not len(bank.targets):
            raise UsageError(f"--labels {self.protocol.labels}: no training image of task {task_idx} has a label")
        test = self._features(weights, "method.encoder.", "test", title)
        bank, test = bank.to(self.device), test.to(self.device)
        if self.protocol.name == "knn":
            found = knn_correct([bank], test, self.data.num_classes, self.protocol.knn_k)
        else:
            head = train_linear(bank, self.data.num_classes, self.protocol.linear, f"{title}: linear layer trained")
            found = head_correct(head, test)
        return {self.protocol.head: found}

    def _heads(self, weights: Weights, title: str) -> dict[str, Tensor]:
        """The heads of the checkpoint, as at the end of its training."""
        found = {}
        for name, (prefix, encoder) in HEADS.items():
            asked = name.endswith(self.protocol.name)  # "online" asks for both probes
            if not asked or not any(key.startswith(prefix) for key in weights.state):
                continue
            head = self._head(weights, prefix)
            test = self._features(weights, encoder, "test", title).to(self.device)
            with evaluation_precision(self.args.precision, self.device):
                found[name] = head_correct(head, test)
        if not found:
            raise UsageError(
                f"{weights.flag} {weights.path}: has no {self.protocol.name} head; use --protocol linear or knn"
            )
        return found

    def _head(self, weights: Weights, prefix: str) -> nn.Module:
        """A head of the checkpoint that is for the classes of the data."""
        head, outputs = head_of(self.args, weights.state, prefix, weights.path, weights.flag)
        if outputs != self.data.num_classes:
            raise UsageError(
                f"{weights.flag} {weights.path}: its {self.protocol.name} head has {outputs} classes and "
                f"{self.args.dataset} {self.data.num_classes}; give the --dataset it was trained on"
            )
        return head.to(self.device)

    def _features(self, weights: Weights, prefix: str, split: str, title: str) -> Features:
        """Features of all test images, or of all labelled training images, from disk where they are kept."""
        args, images = self.args, self.data.test if split == "test" else self.data.train
        indices = torch.arange(len(images)) if split == "test" else (images.targets >= 0).nonzero().flatten()

        def extract() -> Features:
            encoder, _ = encoder_of(args, weights.state, prefix, weights.path, weights.flag)
            encoder.to(self.device)
            loader = evaluation_loader(images, indices, image_size(args), EVALUATION_BATCH, args.num_workers)
            line = f"{title}: features of {len(indices)} {'test' if split == 'test' else 'training'} images"
            with evaluation_precision(self.args.precision, self.device):
                return extract_features(encoder, self.view, watched(loader, line, len(loader)), self.device)

        if weights.kept is None:
            return kept_features(None, {}, extract)
        return kept_features(weights.kept / f"{PARTS[prefix]}_{split}.pt", self._key(weights, split, images), extract)

    def _key(self, weights: Weights, split: str, images: ImageSet) -> dict[str, Any]:
        """What the features depend on."""
        names = ("dataset", "train_dir", "val_dir", "domain", "encoder", "stem_padding", "precision")
        flags = {name: getattr(self.args, name, None) for name in names}
        if split not in self.contents:
            self.contents[split] = {"labels": labels_digest(images), "images": contents_digest(images)}
        normalised = [list(values) for values in channel_statistics(self.args)]
        about = {"size": image_size(self.args), "norm": normalised, **self.contents[split]}
        return {**flags, "weights": weights.key, **about}


@torch.no_grad()
def head_correct(head: nn.Module, test: Features) -> Tensor:
    """Which images a head gets right, one bool per test image in the order of the image set."""
    logits = torch.cat([head(feats) for feats in test.feats.split(EVALUATION_BATCH)])
    return test.in_order_of_images(logits.argmax(dim=1) == test.targets)
