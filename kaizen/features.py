"""Features of images: each image goes through a frozen encoder once, and what comes out can be kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kaizen.data.loaders import Batch
from kaizen.files import atomic_path
from kaizen.models.frozen import evaluating
from kaizen.precision import float32
from kaizen.published import read_weights


@dataclass(frozen=True)
class Features:
    """What an encoder says of some images.

    Attributes:
        feats: (N, D) as the encoder gives them, float32 from half precision.
        targets: (N,) int64, -1 = unlabelled.
        indices: (N,) int64, into the image set.
    """

    feats: Tensor
    targets: Tensor
    indices: Tensor

    def to(self, device: torch.device) -> Features:
        """The same on another device."""
        return Features(self.feats.to(device), self.targets.to(device), self.indices.to(device))

    def of(self, images: Tensor) -> Features:
        """The labelled ones among the given images, in the order in which they stand here."""
        chosen = torch.isin(self.indices, images.to(self.indices.device)) & (self.targets >= 0)
        return Features(self.feats[chosen], self.targets[chosen], self.indices[chosen])

    def in_order_of_images(self, values: Tensor) -> Tensor:
        """One bool per feature (N,) -> one per image of the set, on the CPU; False for images without features."""
        ordered = torch.zeros(int(self.indices.max()) + 1, dtype=torch.bool)
        ordered[self.indices.cpu()] = values.cpu()
        return ordered


@torch.no_grad()
def features_by_batch(
    encoder: nn.Module, view: nn.Module, loader: Iterable[Batch], device: torch.device
) -> Iterator[Features]:
    """The batches of a loader through an encoder in evaluation mode, one after the other.

    Args:
        encoder: images (B, 3, size, size) -> features (B, D).
        view: uint8 images -> normalised images.
        loader: batches of (images, targets, indices).
        device: where it runs, and where the features lie.
    """
    with evaluating(encoder):
        for images, labels, chosen in loader:
            assert isinstance(images, Tensor)  # random crops are for training
            feats = float32(encoder(view(images.to(device))))
            yield Features(feats, labels.to(device), chosen.to(device))


def extract_features(encoder: nn.Module, view: nn.Module, loader: Iterable[Batch], device: torch.device) -> Features:
    """All of `features_by_batch`."""
    parts = [*features_by_batch(encoder, view, loader, device)]
    rows = zip(*((part.feats, part.targets, part.indices) for part in parts), strict=True)
    return Features(*map(torch.cat, map(list, rows)))


def kept_features(path: Path | None, key: dict[str, Any], extract: Callable[[], Features]) -> Features:
    """Features from a file, or extracted now and written there for the next time.

    Args:
        path: the file; None keeps nothing.
        key: plain values that say what the features are of. With another key they are extracted anew.
        extract: makes them.

    Returns:
        On the CPU.
    """
    if path is not None and (found := _read(path, key)) is not None:
        return found
    features = extract().to(torch.device("cpu"))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            torch.save({"key": key, **asdict(features)}, stream)
    return features


def _read(path: Path, key: dict[str, Any]) -> Features | None:
    try:
        content = read_weights(path)
        if content.pop("key") == key:
            return Features(**content)
    except Exception:  # missing or damaged in whatever way: it can be made again
        return None
    return None
