"""Which images a set has, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kaizen.data import paths
from kaizen.data.identity import identity
from kaizen.data.images import FolderImages, MemoryImages
from kaizen.data.paths import Paths

NAMES = ["a/1.png", "a/22.png", "b/1.png", "b/3.png"]
LABELS = torch.tensor([0, 0, 1, 1])


def files(names: list[str], root: str = "x", labels: torch.Tensor = LABELS) -> FolderImages:
    return FolderImages(Paths.below(Path(root), names), labels, ["a", "b"])


def test_the_same_images_elsewhere_are_the_same() -> None:
    assert identity(files(NAMES)) == identity(files(NAMES, root="/far/away"))


@pytest.mark.parametrize(
    "names",
    [
        ["a/22.png", "a/1.png", "b/1.png", "b/3.png"],
        ["a/1.png", "a/22.png", "b/1.png", "b/4.png"],
        ["a/1.pnga", "/22.png", "b/1.png", "b/3.png"],  # the same bytes, cut elsewhere
    ],
)
def test_other_names_or_another_order_are_not(names: list[str]) -> None:
    assert identity(files(names)) != identity(files(NAMES))


def test_other_labels_numbers_or_domains_are_not() -> None:
    images = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    sets = [
        files(NAMES),
        files(NAMES, labels=torch.tensor([0, 1, 1, 1])),
        files(NAMES[:3], labels=LABELS[:3]),
        MemoryImages(images, LABELS, ["a", "b"]),
        MemoryImages(images, LABELS, ["a", "b"], torch.tensor([0, 0, 0, 1]), ["d", "e"]),
        MemoryImages(images[:3], LABELS[:3], ["a", "b"]),
    ]
    assert len({identity(images) for images in sets}) == len(sets)


def test_a_part_of_the_paths_is_what_it_would_be_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    part = Paths.below(Path("x"), NAMES).select(torch.tensor([3, 0, 1]))
    alone = Paths.below(Path("y"), [NAMES[3], NAMES[0], NAMES[1]])
    assert list(part.names()) == list(alone.names()) and next(part.names()).endswith(b"b/3.pnga/1.pnga/22.png")
    monkeypatch.setattr(paths, "AT_ONCE", 2)
    assert [block[16:] for block in part.names()][0] == b"b/3.pnga/1.png" and len([*part.names()]) == 2
