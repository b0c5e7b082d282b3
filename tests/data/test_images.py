from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import args_of, class_folders
from PIL import Image

from kaizen.args import UsageError
from kaizen.data.decoding import read_image
from kaizen.data.filters import gaussian_blur
from kaizen.data.images import (
    LARGEST_KEPT,
    CentreCrop,
    FolderImages,
    MemoryImages,
    RandomCrop,
    image_folder,
)
from kaizen.plan import load_data

CENTRE = CentreCrop(8)
TWO_CROPS = [RandomCrop(8, 0.2, 1.0), RandomCrop(6, 0.2, 1.0)]


def folder(root: Path, **options: object) -> FolderImages:
    return image_folder(class_folders(root, [3, 2], **options) / "train", "--train_dir")  # type: ignore[arg-type]


def pixels(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy()).permute(2, 0, 1)


def test_the_higher_bits_of_sixteen_count(tmp_path: Path) -> None:
    levels = np.array([[0, 255, 256], [32768, 65279, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.mode == "RGB" and np.asarray(image)[..., 1].tolist() == [[0, 0, 1], [128, 254, 255]]
    Image.fromarray(levels.astype(np.float32)).save(tmp_path / "b.tiff")
    with pytest.raises(UsageError, match="b.tiff: cannot be read as an image .levels of 32 bits, mode F"):
        read_image(tmp_path / "b.tiff")


def test_no_image_is_an_empty_batch_of_each_crop(tmp_path: Path) -> None:
    data = folder(tmp_path, sizes=[(100, 120)])
    assert [crop.shape for crop in data.read([], TWO_CROPS)] == [(0, 3, 8, 8), (0, 3, 6, 6)]
    assert gaussian_blur(torch.empty(0, 3, 8, 8), torch.empty(0)).shape == (0, 3, 8, 8)


def test_images_in_memory_are_gathered() -> None:
    images = torch.arange(5 * 3 * 4 * 4, dtype=torch.uint8).view(5, 3, 4, 4)
    data = MemoryImages(images, torch.arange(5), list("abcde"))
    assert data.in_memory and len(data) == 5
    assert torch.equal(data.read([4, 0, 4], CENTRE), images[[4, 0, 4]])


@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGB", "png"), ("RGB", "jpg"), ("L", "jpg"), ("RGBA", "png"), ("L", "png")]
)
def test_small_files_of_one_size_are_kept_in_memory(tmp_path: Path, mode: str, suffix: str) -> None:
    data = folder(tmp_path, mode=mode, suffix=suffix, sizes=[(9, 7)])
    assert data.in_memory
    assert data.class_names == ["class0", "class1"]
    assert data.targets.tolist() == [0, 0, 0, 1, 1]
    batch = data.read([4, 1], CENTRE)
    assert batch.shape == (2, 3, 7, 9) and batch.dtype == torch.uint8
    assert torch.equal(batch[0], pixels(tmp_path / "train" / "class1" / f"01.{suffix}"))
    assert torch.equal(batch[1], pixels(tmp_path / "train" / "class0" / f"01.{suffix}"))


def test_files_are_decoded_once(tmp_path: Path) -> None:
    data = folder(tmp_path)
    before = data.read([0], CENTRE)
    for path in data.paths:
        path.unlink()
    assert torch.equal(data.read([0], CENTRE), before)


@pytest.mark.parametrize("sizes", [[(LARGEST_KEPT + 1, 90)], [(90, LARGEST_KEPT + 1)], [(8, 8), (9, 8)]])
def test_large_files_and_mixed_sizes_are_cropped_while_they_are_read(
    tmp_path: Path, sizes: list[tuple[int, int]]
) -> None:
    data = folder(tmp_path, sizes=sizes)
    assert not data.in_memory
    assert data.read([0, 3], CENTRE).shape == (2, 3, 8, 8)
    crops = data.read([0, 3], TWO_CROPS)
    assert [(crop.shape, crop.dtype) for crop in crops] == [((2, 3, side, side), torch.uint8) for side in (8, 6)]


def test_the_largest_kept_image_is_kept(tmp_path: Path) -> None:
    assert folder(tmp_path, sizes=[(LARGEST_KEPT, LARGEST_KEPT)]).in_memory


@pytest.mark.parametrize("size", [(9, 7), (100, 100)])
def test_images_that_are_kept_can_lie_on_a_device(tmp_path: Path, size: tuple[int, int]) -> None:
    data = folder(tmp_path, sizes=[size])
    data.domains, data.domain_names = torch.arange(5), list("vwxyz")
    moved = data.to(torch.device("meta"))
    if size == (100, 100):
        assert moved is data and data.nbytes == 0 and data.device == torch.device("cpu")
        return
    assert data.nbytes == moved.nbytes == 5 * 3 * 9 * 7
    assert (data.device.type, moved.device.type) == ("cpu", "meta")
    here = data.to(torch.device("cpu"))
    for other in (moved, here, here.to(torch.device("cpu"))):
        assert isinstance(other, MemoryImages) and other.in_memory and len(other) == 5
        assert other.targets.tolist() == [0, 0, 0, 1, 1] and other.class_names == data.class_names
        assert other.domains is data.domains and other.domain_names == data.domain_names
    assert torch.equal(here.read([4, 1], CENTRE), data.read([4, 1], CENTRE))


@pytest.mark.parametrize("size", [(9, 7), (100, 100)])
def test_indices_may_be_a_tensor(tmp_path: Path, size: tuple[int, int]) -> None:
    data = folder(tmp_path, sizes=[size])
    assert torch.equal(data.read(torch.tensor([4, 1]), CENTRE), data.read([4, 1], CENTRE))


def test_crops_follow_from_torchs_seed(tmp_path: Path) -> None:
    data = folder(tmp_path, sizes=[(100, 100)])
    torch.manual_seed(3)
    first = data.read([0, 1], TWO_CROPS)
    torch.manual_seed(3)
    again = data.read([0, 1], TWO_CROPS)
    assert all(map(torch.equal, again, first))
    assert not any(map(torch.equal, data.read([0, 1], TWO_CROPS), first))


def test_a_crop_of_everything_is_the_image(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    whole = RandomCrop(8, 1.0, 1.0)
    crops = torch.stack([whole(image) for _ in range(20)])  # some boxes with another aspect ratio do not fit
    assert any(torch.equal(crop, torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)) for crop in crops)


@pytest.mark.parametrize(("width", "height"), [(81, 41), (41, 81), (7, 7), (5, 201)])
def test_the_centre_crop_takes_the_centre(width: int, height: int) -> None:
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[height // 2 - 1 : height // 2 + 2, width // 2 - 1 : width // 2 + 2] = 255  # a spot in the middle
    crop = CentreCrop(14)(Image.fromarray(image)).float().mean(dim=0)
    assert crop.shape == (14, 14)
    weights = crop / crop.sum()
    line = torch.arange(14.0)
    assert float((weights.sum(1) * line).sum()) == pytest.approx(6.5, abs=0.6)
    assert float((weights.sum(0) * line).sum()) == pytest.approx(6.5, abs=0.6)


def test_classes_are_sorted_files_are_found_below_and_others_left_aside(tmp_path: Path) -> None:
    root = tmp_path / "train"
    for name in ("b/deep/er/2.PNG", "b/1.jpeg", "a/x.Jpg", ".hidden/y.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / name)
    (root / "a" / "notes.txt").write_text("no image")
    (root / "readme.png").write_text("no class")
    (root / "b" / "folder.png").mkdir()
    data = image_folder(root, "--train_dir")
    assert data.class_names == ["a", "b"]
    assert [str(path.relative_to(root)) for path in data.paths] == ["a/x.Jpg", "b/1.jpeg", "b/deep/er/2.PNG"]
    assert data.targets.tolist() == [0, 1, 1]


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--val_dir .*/none: no such folder; it must hold one folder per class$"):
        image_folder(tmp_path / "none", "--val_dir")
    with pytest.raises(UsageError, match=r"holds no class folder with images; expected .*<class>/<image>.jpg"):
        image_folder(tmp_path, "--val_dir")
    class_folders(tmp_path / "data", [1])
    (tmp_path / "data" / "train" / "z").mkdir()
    with pytest.raises(UsageError, match="class folder z holds no images; add some or remove it"):
        image_folder(tmp_path / "data" / "train", "--val_dir")


@pytest.mark.parametrize("sizes", [[(8, 8)], [(100, 100)]])
def test_a_corrupt_file_is_named(tmp_path: Path, sizes: list[tuple[int, int]]) -> None:
    data = folder(tmp_path, sizes=sizes, suffix="jpg")
    whole = data.paths[1].read_bytes()
    data.paths[1].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        UsageError, match=f"^{data.paths[1]}: cannot be read as an image .*; repair or remove it, or use"
    ):
        data.read([0, 1], CENTRE)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("suffix", ["png", "jpeg", "bmp", "ppm", "tiff", "webp"])
def test_damage_of_any_kind_is_a_usage_error_or_harmless(tmp_path: Path, suffix: str) -> None:
    path, chance = tmp_path / f"x.{suffix}", random.Random(0)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
    whole, refused = path.read_bytes(), 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[chance.randrange(min(len(damaged), 100))] = chance.randrange(256)
        path.write_bytes(bytes(damaged[: chance.randrange(len(damaged))]))
        try:
            assert read_image(path).mode == "RGB"
        except UsageError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 10


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("odd", ["train", "val"])
def test_training_and_test_images_are_seen_alike(tmp_path: Path, odd: str) -> None:
    root = class_folders(tmp_path, [3, 3], sizes=[(12, 12)])
    shutil.copy(min((root / "train" / "class0").iterdir()), root / "val" / "class0" / "same.png")
    data = load_data(args_of("--data_dir", str(root), "--num_tasks", "1", dataset="custom"))
    assert data.train.in_memory and data.test.in_memory
    Image.new("RGB", (13, 13)).save(root / odd / "class1" / "odd.png")
    data = load_data(args_of("--data_dir", str(root), "--num_tasks", "1", dataset="custom"))
    assert not data.train.in_memory and not data.test.in_memory
    place = data.test.paths.index(root / "val" / "class0" / "same.png")
    assert torch.equal(data.train.read([0], CentreCrop(8)), data.test.read([place], CentreCrop(8)))
