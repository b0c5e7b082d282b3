from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from kaizen.args import UsageError
from kaizen.data import index
from kaizen.data.images import image_folder, unlabelled_folder
from kaizen.data.index import listing
from kaizen.data.paths import Paths

FILES = ("b/2.png", "b/10.png", "b/deep/er/1.jpg", "a/x.png", "a-c/y.png", "aa.png")
HIDDEN = (".hidden/z.png", "b/.ipynb_checkpoints/2-checkpoint.png", "b/deep/._1.jpg", "._aa.png")
LONG_AGO = 1_000_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of images that nobody has touched for long."""
    root = tmp_path / "images"
    for name in (*FILES, *HIDDEN):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    rest(root)
    return root


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were looked through."""
    seen: list[str] = []
    walk = os.walk

    def noted(top: Path, followlinks: bool) -> Iterator[tuple[str, list[str], list[str]]]:
        seen.append(top.name)
        return walk(top, followlinks=followlinks)

    monkeypatch.setattr(index.os, "walk", noted)
    return seen


def rest(root: Path) -> None:
    for folder, _, _ in os.walk(root):
        os.utime(folder, (LONG_AGO, LONG_AGO))


def names(root: Path, cache: Path | None) -> list[str]:
    return [str(path.relative_to(root)) for path in listing(root, cache).paths]


def test_images_are_sorted_by_the_parts_of_their_paths(root: Path) -> None:
    found = listing(root, None)
    assert list(found.paths) == sorted(root / name for name in FILES)
    assert found.folders == ["a", "a-c", "b"]
    assert found.counts.tolist() == [1, 1, 3] and found.starts.tolist() == [0, 1, 3]


def test_a_second_start_looks_through_no_folder(root: Path, cache: Path, walks: list[str]) -> None:
    first = listing(root, cache)
    looked_through = list(walks)
    again = listing(root, cache)
    assert walks == looked_through == ["a", "a-c", "b"]
    assert list(again.paths) == list(first.paths) and again.folders == first.folders
    assert np.array_equal(again.starts, first.starts) and np.array_equal(again.counts, first.counts)
    for open_folder in (image_folder, unlabelled_folder):
        cached, fresh = open_folder(root, "--train_dir", cache), open_folder(root, "--train_dir")
        assert list(cached.paths) == list(fresh.paths) and torch.equal(cached.targets, fresh.targets)
        assert cached.class_names == fresh.class_names


def test_classes_keep_to_what_lies_in_them(root: Path, cache: Path) -> None:
    data = image_folder(root, "--train_dir", cache)
    assert data.class_names == ["a", "a-c", "b"] and data.targets.tolist() == [0, 1, 2, 2, 2]
    assert [path.name for path in data.paths] == ["x.png", "y.png", "10.png", "2.png", "1.jpg"]


@pytest.mark.parametrize("change", ["a/new.png", "b/deep/er/new.png", "new.png", "c/new.png"])
def test_an_image_that_came_is_seen(root: Path, cache: Path, change: str) -> None:
    before = names(root, cache)
    (root / change).parent.mkdir(exist_ok=True)
    (root / change).touch()
    assert set(names(root, cache)) - set(before) == {change}


@pytest.mark.parametrize("change", ["a/x.png", "b/deep/er/1.jpg", "aa.png"])
def test_an_image_that_went_is_seen(root: Path, cache: Path, change: str) -> None:
    before = names(root, cache)
    (root / change).unlink()
    assert set(before) - set(names(root, cache)) == {change}


def test_a_folder_that_went_is_seen(root: Path, cache: Path) -> None:
    listing(root, cache)
    (root / "a" / "x.png").unlink()
    (root / "a").rmdir()
    assert listing(root, cache).folders == ["a-c", "b"]


def test_a_folder_that_changed_just_now_is_not_trusted(root: Path, cache: Path) -> None:
    """Another change in the same tick of the clock would leave its time as it is."""
    (root / "a" / "new.png").touch()
    listing(root, cache)
    assert not cache.exists()
    rest(root)
    listing(root, cache)
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"no zip file", None])
def test_a_damaged_index_is_made_again(root: Path, cache: Path, content: bytes | None) -> None:
    expected = names(root, cache)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    middle = len(whole) // 3
    damaged = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    file.write_bytes(damaged if content is None else content)
    assert names(root, cache) == expected
    assert names(root, cache) == expected


def test_a_cache_that_cannot_be_written_is_done_without(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert names(root, tmp_path / "file" / "cache") == names(root, None)


def test_two_folders_have_two_indices(root: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "1.png").touch()
    rest(tmp_path / "other")
    listing(root, cache)
    assert names(tmp_path / "other", cache) == ["1.png"] and len(list(cache.iterdir())) == 2


def test_a_class_folder_may_be_a_link(root: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.png").touch()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    rest(root)
    rest(tmp_path / "elsewhere")
    assert "link/1.png" in names(root, cache)
    (tmp_path / "elsewhere" / "2.png").touch()
    assert "link/2.png" in names(root, cache)


def test_links_to_folders_are_followed_at_any_depth_and_not_in_circles(root: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "more").mkdir(parents=True)
    (tmp_path / "elsewhere" / "more" / "1.png").touch()
    (root / "b" / "deep" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root / "b")
    for folder in (root, tmp_path / "elsewhere"):
        rest(folder)
    for _ in range(2):
        assert sorted(names(root, cache)) == sorted([*FILES, "b/deep/link/more/1.png"])
    (tmp_path / "elsewhere" / "more" / "2.png").touch()
    assert "b/deep/link/more/2.png" in names(root, cache)


@pytest.mark.parametrize("files", [[], ["1.png", "2.png"]])
def test_a_folder_without_class_folders_is_told_at_every_start(files: list[str], tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "val"
    root.mkdir()
    for name in files:
        (root / name).touch()
    rest(root)
    for _ in range(2):
        with pytest.raises(UsageError, match=r"^--val_dir .*: holds no class folder with images"):
            image_folder(root, "--val_dir", cache)
        assert names(root, cache) == files
    assert len([*cache.iterdir()]) == 1


def test_a_class_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    os.mkdir(folder)
    open(os.path.join(folder, b"1.png"), "wb").close()
    with pytest.raises(UsageError, match=r"class folder 'caf\\udce9' is not in UTF-8; rename it"):
        image_folder(tmp_path, "--train_dir")


def test_names_that_are_no_text_come_back(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "images"
    folder = os.fsencode(root / "ordner-ä")
    os.makedirs(folder)
    for name in (b"\xff\xfe.png", "ü 1.png".encode()):
        open(os.path.join(folder, name), "wb").close()
    rest(root)
    for _ in range(2):
        assert all(path.is_file() for path in listing(root, cache).paths) and len(listing(root, cache).paths) == 2


def test_a_million_paths_take_their_letters_and_two_numbers_each() -> None:
    paths = Paths.below(Path("/data/train"), (f"n{i // 1300:08d}/n{i // 1300:08d}_{i}.JPEG" for i in range(100_000)))
    assert paths[77_777] == Path("/data/train/n00000059/n00000059_77777.JPEG") and len(paths) == 100_000
    letters = sum(len(str(path.relative_to(paths.root))) for path in paths)
    assert paths.text.nbytes + paths.ends.nbytes + paths.starts.nbytes == letters + 16 * len(paths)
    part = paths.select(torch.tensor([5, 99_999, 5]))
    assert list(part) == [paths[5], paths[-1], paths[5]] and part.text is paths.text
    assert list(paths[3:6]) == [paths[3], paths[4], paths[5]]
    with pytest.raises(IndexError):
        paths[100_000]


def test_no_paths_at_all() -> None:
    assert list(Paths.below(Path("/data"), [])) == []
