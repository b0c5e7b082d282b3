from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import args_of, class_folders, domain_lists

from kaizen.data import images
from kaizen.data.cache import cache_folder
from kaizen.data.images import CentreCrop, FolderImages, image_folder
from kaizen.plan import open_data

pytestmark = pytest.mark.usefixtures("tiny")

CENTRE = CentreCrop(8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "data", [3, 2]) / "train"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were decoded."""
    seen: list[Path] = []
    read = images.read_image
    monkeypatch.setattr(images, "read_image", lambda path: (seen.append(path), read(path))[1])
    return seen


def pixels(root: Path, cache: Path | None) -> torch.Tensor:
    """All images of the folder, opened anew."""
    data = image_folder(root, "--train_dir", cache)
    found = data.read(range(len(data)), CENTRE)
    assert isinstance(found, torch.Tensor)
    return found


def test_a_second_opening_decodes_nothing(data: Path, cache: Path, decoded: list[Path]) -> None:
    first = pixels(data, cache)
    assert len(decoded) == 5 and first.dtype == torch.uint8 and first.shape == (5, 3, 8, 8)
    second = pixels(data, cache)
    assert len(decoded) == 5
    assert torch.equal(second, first) and torch.equal(pixels(data, None), first)
    assert [path.suffix for path in cache.iterdir()] == [".npy"]


def test_without_a_cache_nothing_is_kept(data: Path, tmp_path: Path, decoded: list[Path]) -> None:
    before = set(tmp_path.rglob("*"))
    pixels(data, None)
    pixels(data, None)
    assert len(decoded) == 10 and set(tmp_path.rglob("*")) == before


def test_the_path_to_a_folder_does_not_matter_but_the_folder_does(
    data: Path, cache: Path, tmp_path: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels(data, cache)
    (tmp_path / "link").symlink_to(data)
    pixels(tmp_path / "link", cache)
    monkeypatch.chdir(data.parent)
    pixels(Path("train"), cache)
    assert len(decoded) == 5
    pixels(data.parent / "val", cache)
    assert len(decoded) == 5 + 8 and len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("change", ["size", "time", "name", "fewer"])
def test_a_change_decodes_anew(data: Path, cache: Path, decoded: list[Path], change: str) -> None:
    pixels(data, cache)
    path = data / "class1" / "00.png"
    about = path.stat()
    if change == "size":
        path.write_bytes(path.read_bytes() + b"0")
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    if change == "time":
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    if change == "name":
        path.rename(path.with_name("000.png"))
    if change == "fewer":
        path.unlink()
    decoded.clear()
    pixels(data, cache)
    assert len(decoded) == (4 if change == "fewer" else 5)


def test_another_decoder_decodes_anew(
    data: Path, cache: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels(data, cache)
    monkeypatch.setattr("kaizen.data.cache.VERSION", "another")
    pixels(data, cache)
    assert len(decoded) == 10


def foreign(array: np.ndarray) -> bytes:
    path = Path("foreign.npy")
    np.save(path, array, allow_pickle=True)
    return path.read_bytes()


@pytest.mark.parametrize(
    "damage",
    ["empty", "short", "checksum", "pixel", "header", "text", "dtype", "shape", "order", "objects"],
)
def test_a_damaged_file_heals(
    data: Path, cache: Path, decoded: list[Path], damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    right = pixels(data, cache)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    middle = len(whole) // 2
    file.write_bytes(
        {
            "empty": lambda: b"",
            "short": lambda: whole[:middle],
            "checksum": lambda: whole[:-1],
            "pixel": lambda: whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            "header": lambda: b"\x93NUMPY\x01\x00" + whole[middle:],
            "text": lambda: b"nothing of the kind" * 100,
            "dtype": lambda: foreign(np.zeros((5, 3, 8, 8), dtype=np.int8)),
            "shape": lambda: foreign(np.zeros((6, 3, 8, 8), dtype=np.uint8)),
            "order": lambda: foreign(np.asfortranarray(np.zeros((5, 3, 8, 8), dtype=np.uint8))),
            "objects": lambda: foreign(np.array([{}] * 5)),
        }[damage]()
    )
    decoded.clear()
    assert torch.equal(pixels(data, cache), right) and len(decoded) == 5
    assert file.read_bytes() == whole and list(cache.iterdir()) == [file]
    assert torch.equal(pixels(data, cache), right) and len(decoded) == 5


def test_what_is_written_to_the_pixels_stays_private(data: Path, cache: Path) -> None:
    right = pixels(data, cache)
    mapped = image_folder(data, "--train_dir", cache)
    assert mapped._pixels is not None
    mapped._pixels.zero_()
    assert torch.equal(pixels(data, cache), right)


def test_a_cache_that_cannot_be_a_folder_is_gone_without(data: Path, tmp_path: Path, decoded: list[Path]) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        decoded.clear()
        assert len(pixels(data, place)) == len(decoded) == 5
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_without_the_right_to_write_is_gone_without(data: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o500)
    assert len(pixels(data, cache)) == 5 and list(cache.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        right = pixels(data, cache)
    assert len(right) == 5 and list(cache.iterdir()) == []
    assert torch.equal(pixels(data, cache), right) and len(list(cache.iterdir())) == 1


def test_a_file_that_is_gone_is_named(data: Path, cache: Path) -> None:
    opened = image_folder(data, "--train_dir", cache)
    opened.paths[3].unlink()
    with pytest.raises(images.UsageError, match=str(opened.paths[3])):
        opened.read([0], CENTRE)


@pytest.mark.parametrize("sizes", [[(100, 100)], [(8, 8), (9, 8)]])
def test_large_images_and_mixed_sizes_are_not_kept(tmp_path: Path, cache: Path, sizes: list[tuple[int, int]]) -> None:
    data = image_folder(class_folders(tmp_path / "odd", [2], sizes=sizes) / "train", "--train_dir", cache)
    assert not data.in_memory and not cache.exists()


# The flag.


def test_the_flag_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder(args_of("--image_cache", "here")) == Path("here")
    assert cache_folder(args_of("--image_cache", "none")) is None
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder(args_of()) == Path("/x/kaizen")
    for unset in (lambda: monkeypatch.setenv("XDG_CACHE_HOME", ""), lambda: monkeypatch.delenv("XDG_CACHE_HOME")):
        unset()
        assert cache_folder(args_of()) == tmp_path / ".cache" / "kaizen"


@pytest.mark.parametrize("labels", [True, False])
def test_data_sets_in_folders_use_it(data: Path, cache: Path, decoded: list[Path], labels: bool) -> None:
    unlabelled = ["--no_labels", "--split_strategy", "data", "--classifier_training", "False", "--disable_knn_eval"]
    flags = [*([] if labels else unlabelled), "--batch_size", "2", "--image_cache", str(cache)]
    for _ in range(2):
        opened = open_data(args_of("--data_dir", str(data.parent), *flags, dataset="custom"))
        assert isinstance(opened.train, FolderImages) and opened.train.in_memory and opened.test.in_memory
    assert len(decoded) == 5 + (8 if labels else 0)


def test_domains_use_it(tmp_path: Path, cache: Path, decoded: list[Path]) -> None:
    domain_lists(tmp_path / "net", ["real", "quickdraw"])
    flags = ["--split_strategy", "domain", "--num_tasks", "2", "--batch_size", "4", "--image_cache", str(cache)]
    for _ in range(2):
        opened = open_data(args_of("--data_dir", str(tmp_path / "net"), *flags, dataset="domainnet"))
        assert opened.train.in_memory and opened.test.in_memory
    assert len(decoded) == 2 * (16 + 4)
