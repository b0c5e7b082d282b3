from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kaizen.args import UsageError
from kaizen.data.filters import resized_center_crop
from kaizen.data.given import Reader, opened, to_levels
from kaizen.data.images import CentreCrop, FolderImages
from kaizen.data.paths import Paths

LEVELS = torch.randint(0, 256, (2, 3, 30, 20), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_cropped_images_are_those_of_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(torch.randint(0, 256, (130, 97, 3), dtype=torch.uint8).numpy()).save(path)
    paths = Paths.below(tmp_path, ["x.png"])
    expected = FolderImages(paths, torch.zeros(1, dtype=torch.int64), ["a"]).read([0], CentreCrop(16))
    for cropped in (True, None):
        (found,) = Reader(16, cropped).batches(path, 8)
        assert isinstance(expected, torch.Tensor) and torch.equal(found, expected)


def test_whole_images_stay_as_they_are_unless_they_are_large_or_of_many_sizes() -> None:
    reader = Reader(16, False)
    assert torch.equal(torch.cat([*reader.batches(LEVELS, 1)]), LEVELS)
    small, large = Image.new("RGB", (20, 30), "red"), Image.new("RGB", (200, 300), "red")
    assert reader.read(small).shape == (3, 30, 20) and reader.read(large).shape == (3, 16, 16)
    (batch,) = reader.batches([small, large], 8)
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    assert batch.dtype == torch.uint8 and torch.equal(batch, red.expand(2, 3, 16, 16))
    (shrunk,) = Reader(4, False).batches([Image.fromarray(LEVELS[0].permute(1, 2, 0).numpy()), large], 2)
    assert torch.equal(shrunk[:1].float(), resized_center_crop(LEVELS[:1], 4))


def test_batches_are_read_when_they_are_due(tmp_path: Path) -> None:
    good = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(good)
    batches = Reader(4, False).batches([good, good, tmp_path / "none.png"], 2)
    assert next(batches).shape == (2, 3, 4, 4)
    with pytest.raises(UsageError, match=r"none.png: cannot be read as an image .*; repair or remove it"):
        next(batches)
    assert [len(batch) for batch in Reader(4, True).batches(LEVELS[:1].expand(5, -1, -1, -1), 2)] == [2, 2, 1]


def test_levels_come_back_from_fractions() -> None:
    every = torch.arange(256).view(1, 1, 16, 16).expand(1, 3, 16, 16).to(torch.uint8)
    for kind in (torch.float32, torch.float64):
        assert torch.equal(to_levels(every.to(kind) / 255), every)
    assert torch.equal(to_levels(every.permute(0, 2, 3, 1).numpy()), every)
    read_only = np.ones((4, 4, 3), np.float32)
    read_only.setflags(write=False)
    assert to_levels(read_only).shape == (1, 3, 4, 4)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(3, 4, 4, dtype=torch.int64),
        torch.zeros(1, 1, 4, 4),
        torch.zeros(4, 4),
        torch.zeros(1, 3, 0, 4),
        torch.full((3, 4, 4), 1.5),
        torch.full((3, 4, 4), -0.1),
        torch.full((3, 4, 4), torch.nan),
        torch.zeros(3, 4, 4, dtype=torch.complex64),
        np.zeros((2, 3, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.int64),
        np.zeros((4, 4, 3), ">f4"),
        np.zeros((4, 4, 3), object),
        np.zeros(3, np.uint8),
        5,
        None,
        [1, 2],
        [LEVELS[0]],
        {"a.png"},
        b"a.png",
    ],
)
def test_what_are_no_images(images: Any) -> None:
    with pytest.raises(UsageError) as caught:
        list(Reader(4, False).batches(images, 8))
    message = str(caught.value)
    assert message.startswith("images ") and "give a uint8 tensor (N, 3, H, W)" in message and "\n" not in message


def test_a_pil_image_that_cannot_be_read(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "x.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "x.png").read_bytes()[:60])
    closed = Image.open(tmp_path / "x.png")
    closed.close()
    for image in (Image.open(tmp_path / "half.png"), closed, Image.new("RGB", (0, 5)), Image.new("F", (4, 4))):
        with pytest.raises(UsageError, match="^a PIL image: cannot be read as an image"):
            list(Reader(4, False).batches([image], 8))
    for size in (0, -1):
        with pytest.raises(UsageError, match=f"batch_size {size}: give at least 1"):
            list(Reader(4, False).batches([tmp_path / "x.png"], size))


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("text")
    for path in (tmp_path / "x.png", tmp_path, tmp_path / "none.jpg"):
        with pytest.raises(UsageError) as caught:
            opened(path)
        assert str(caught.value).startswith(f"{path}: cannot be read") and "\n" not in str(caught.value)
