from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import changed, state_of
from torch import Tensor, nn

from kaizen.data.images import MemoryImages
from kaizen.data.loaders import evaluation_loader
from kaizen.features import Features, extract_features, kept_features

CPU = torch.device("cpu")


class MeanLevel(nn.Module):
    """Features (mean level, its square), behind a BatchNorm that must stay untouched."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, eps=0)

    def forward(self, images: Tensor) -> Tensor:
        level = self.norm(images.float()).mean(dim=(1, 2, 3))
        return torch.stack([level, level**2], dim=1)


def features_of(levels: list[float], targets: list[int], indices: list[int]) -> Features:
    return Features(torch.tensor(levels)[:, None], torch.tensor(targets), torch.tensor(indices))


def test_each_image_once_in_the_order_of_the_loader_and_nothing_is_changed() -> None:
    pixels = torch.arange(9, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    images = MemoryImages(pixels, torch.arange(9) % 3, [])
    encoder = MeanLevel().train()
    before = state_of(encoder)
    found = extract_features(encoder, nn.Identity(), evaluation_loader(images, torch.tensor([8, 0, 4]), 4, 2, 0), CPU)
    torch.testing.assert_close(found.feats, torch.tensor([[8.0, 64], [0, 0], [4, 16]]))
    assert (found.targets.tolist(), found.indices.tolist()) == ([2, 0, 1], [8, 0, 4])
    assert changed(encoder, before) == set() and encoder.training and encoder.norm.training
    assert not found.feats.requires_grad


def test_only_labelled_ones_of_the_given_images() -> None:
    features = features_of([0, 10, 20, 30], [1, -1, 2, 3], [7, 3, 5, 1])
    chosen = features.of(torch.tensor([5, 3, 7, 99]))
    assert (chosen.feats[:, 0].tolist(), chosen.targets.tolist(), chosen.indices.tolist()) == ([0, 20], [1, 2], [7, 5])
    ordered = features.in_order_of_images(torch.tensor([True, False, True, False]))
    assert ordered.nonzero().flatten().tolist() == [5, 7]


def test_what_is_kept_is_not_extracted_again(tmp_path: Path) -> None:
    path, calls = tmp_path / "features" / "encoder_train.pt", []

    def extract() -> Features:
        calls.append(1)
        return features_of([float(len(calls))], [0], [0])

    key = {"weights": "abc", "size": 8}
    first = kept_features(path, key, extract)
    again = kept_features(path, dict(key), extract)
    assert len(calls) == 1 and torch.equal(first.feats, again.feats) and again.targets.tolist() == [0]
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    kept_features(path, {**key, "size": 16}, extract)
    assert len(calls) == 2
    kept_features(path, key, extract)
    assert len(calls) == 3  # one file, of the last key
    kept_features(None, key, extract)
    assert len(calls) == 4


@pytest.mark.parametrize("content", [b"", b"PK half a file", None])
def test_a_damaged_file_is_made_again(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "features.pt"
    if content is None:
        torch.save({"key": {}, "feats": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    for _ in range(2):
        assert kept_features(path, {}, lambda: features_of([3], [0], [0])).feats.item() == 3
    assert torch.load(path, weights_only=True)["feats"].item() == 3
