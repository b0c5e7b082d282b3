"""Images that cannot be read: named, or left out from the start."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import args_of, class_folders, command_line, domain_lists, run_experiment
from PIL import Image

from kaizen import evaluate, task
from kaizen.args import UsageError
from kaizen.cli import flags_of, read_args
from kaizen.data import readable
from kaizen.data.decoding import read_image
from kaizen.data.images import CentreCrop, FolderImages, image_folder
from kaizen.data.loaders import evaluation_loader
from kaizen.data.readable import Skipped, find_bad, without_bad
from kaizen.experiment import Experiment
from kaizen.files import read_json
from kaizen.plan import open_data
from main_continual import main

pytestmark = [pytest.mark.usefixtures("tiny")]

SMALL, LARGE = (8, 8), (100, 100)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def truncated_jpeg(path: Path) -> None:
    Image.effect_noise((100, 100), 50).convert("RGB").save(path, "jpeg")
    path.write_bytes(path.read_bytes()[:-500])


def no_bytes(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("<html>\n404 not found\n</html>\n")


def wrong_header_checksum(path: Path) -> None:
    Image.new("RGB", (100, 100)).save(path, "png")
    content = bytearray(path.read_bytes())
    content[29] ^= 1  # the checksum of IHDR
    path.write_bytes(content)


def wrong_pixels(path: Path) -> None:
    Image.effect_noise((100, 100), 50).save(path, "png")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def decompression_bomb(path: Path) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


def dangling_link(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("nowhere")


def without_rights(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    path.chmod(0)


DAMAGE = [truncated_jpeg, no_bytes, text, wrong_header_checksum, wrong_pixels, decompression_bomb]
DAMAGE += [dangling_link, without_rights]
SAYS = {
    "truncated_jpeg": "image file is truncated",
    "no_bytes": "cannot identify image file",
    "text": "cannot identify image file",
    "wrong_header_checksum": "cannot identify image file",
    "wrong_pixels": "broken data stream",
    "decompression_bomb": "could be decompression bomb",
    "dangling_link": "No such file",
    "without_rights": "Permission denied",
}


def data_with(tmp_path: Path, *damages: Callable[[Path], None], size: tuple[int, int] = LARGE) -> tuple[Path, Path]:
    """Folders of two classes of 12, and the file in the training set, the first one, that was damaged."""
    root = class_folders(tmp_path / "data", (12, 12), sizes=[size], suffix="jpg")
    files = sorted((root / "train" / "class0").iterdir())
    for damage, file in zip(damages, files, strict=False):
        damage(file)
    return root, files[0]


def flags_for(root: Path, *flags: str) -> list[str]:
    return command_line("--data_dir", str(root), "--num_tasks", "1", *flags, dataset="custom")


# Named


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "x.png"
    Image.new("RGB", (4, 4)).save(path)
    damage(path)
    with pytest.raises(UsageError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: cannot be read as an image (") and SAYS[damage.__name__] in message
    assert message.endswith("; repair or remove it, or use --skip_bad_images") and "\n" not in message


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_loader_process_hands_it_on(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    root, first = data_with(tmp_path)
    file = first.with_name("05.jpg")  # in the first one, the size of all is looked up before
    damage(file)
    images = image_folder(root / "train", "--train_dir")
    loader = evaluation_loader(images, torch.arange(len(images)), 8, 4, num_workers=1)
    with pytest.raises(UsageError) as caught:
        list(loader)
    assert str(caught.value).splitlines()[-1].startswith(f"kaizen.args.UsageError: {file}: cannot be read as an image")


@pytest.mark.parametrize(("size", "workers"), [(SMALL, "0"), (LARGE, "0"), (LARGE, "2")])
def test_a_task_stops_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: tuple[int, int], workers: str
) -> None:
    root, file = data_with(tmp_path, truncated_jpeg, size=size)
    args = read_args(flags_for(root, "--num_workers", workers))
    Experiment.start(tmp_path / "run", flags_of(args), [[0, 1]], ["all"])
    assert task.main([str(tmp_path / "run"), "0"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file}: cannot be read as an image (image file is truncated")
    assert error.count("\n") == 1


def test_a_png_whose_pixels_are_whole_is_read_whatever_its_checksum_says(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.effect_noise((9, 9), 50).save(path)
    whole = read_image(path)
    content = bytearray(path.read_bytes())
    content[-13] ^= 1  # the checksum of IDAT
    path.write_bytes(content)
    assert read_image(path).tobytes() == whole.tobytes()


# Left out


def opened(tmp_path: Path, root: Path, *flags: str) -> Skipped:
    return open_data(read_args(flags_for(root, "--skip_bad_images", *flags))).skipped


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_all_kinds_are_left_out_and_told_of(tmp_path: Path, size: tuple[int, int]) -> None:
    damages = [damage for damage in DAMAGE if damage is not without_rights or os.geteuid() != 0]
    root, first = data_with(tmp_path, *damages, size=size)
    (root / "val" / "class1" / "00.jpg").write_bytes(b"")
    data = open_data(read_args(flags_for(root, "--skip_bad_images")))
    count = len(damages)
    assert (len(data.train), len(data.test)) == (24 - count, 7)
    assert data.train.targets.tolist() == [0] * (12 - count) + [1] * 12
    names = [f"train/class0/{i:02d}.jpg" for i in range(count)]
    assert data.skipped.names == [*names, "val/class1/00.jpg"]
    assert str(data.skipped).startswith(
        f"skipped {count + 1} of 32 images that cannot be read, e.g. {first} (image file is truncated"
    )
    assert data.train.in_memory is (size == SMALL)
    everything = data.train.read(range(len(data.train)), CentreCrop(8))
    assert isinstance(everything, torch.Tensor) and len(everything) == 24 - count


def test_what_is_left_is_trained_on_in_every_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (task, evaluate):
        monkeypatch.setattr(module, "draw_plots", lambda results, folder: None)
    root, first = data_with(tmp_path, truncated_jpeg, text)
    flags = [
        "--skip_bad_images",
        "--num_tasks",
        "2",
        "--replay",
        "--replay_proportion",
        "0.5",
        "--replay_batch_size",
        "2",
        "--batch_size",
        "5",
    ]
    experiment = run_experiment(flags_for(root, *flags, "--num_workers", "1"), tmp_path / "run")
    assert read_json(experiment.folder / "experiment.json")["skipped_images"] == [
        "train/class0/00.jpg",
        "train/class0/01.jpg",
    ]
    assert read_json(experiment.folder / "results.json")["skipped_images"] == 2
    judging = ["--experiment", str(experiment.folder), "--protocol", "knn"]
    assert evaluate.main(judging) == 0
    Image.new("RGB", LARGE).save(first)  # repaired
    capsys.readouterr()
    assert evaluate.main(judging) == 2
    assert capsys.readouterr().err.startswith("error: --skip_bad_images: train/class0/00.jpg can be read now")
    with pytest.raises(UsageError, match=r"train/class0/00.jpg can be read now and could not when .* began \(1 such"):
        task.run_task(experiment, 1)
    args = read_args(flags_for(root, *flags))
    data = open_data(args)
    with pytest.raises(UsageError, match="use another folder$"):
        Experiment.start(experiment.folder, flags_of(args), data.split.classes, data.task_names, data.skipped.names)


def test_a_dry_run_tells_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, first = data_with(tmp_path, no_bytes)
    assert main(flags_for(root, "--skip_bad_images", "--dry_run")) == 0
    assert f"\nskipped 1 of 32 images that cannot be read, e.g. {first} (" in capsys.readouterr().out
    assert main(flags_for(root, "--dry_run")) == 0
    assert "skipped" not in capsys.readouterr().out


@pytest.mark.parametrize("labels", [True, False])
def test_nothing_left_is_refused(tmp_path: Path, labels: bool) -> None:
    root, _ = data_with(tmp_path, *[no_bytes] * 12)
    if labels:
        with pytest.raises(UsageError, match=r"^--skip_bad_images: class class0 has no training image left .*; repair"):
            opened(tmp_path, root)
        return
    flags = ["--train_dir", "train/class0", "--no_labels", "--split_strategy", "data", "--disable_knn_eval"]
    with pytest.raises(UsageError, match=r"^--skip_bad_images: there is no training image left that can be read, e.g."):
        opened(tmp_path, root, *flags, "--classifier_training", "False")


def test_a_class_without_test_images_and_a_task_with_too_few_are_refused(tmp_path: Path) -> None:
    root, _ = data_with(tmp_path, *[no_bytes] * 11)
    with pytest.raises(UsageError, match="leaves 1 training images to task [01]"):
        opened(tmp_path, root, "--num_tasks", "2")
    for file in (root / "val" / "class1").iterdir():
        file.write_bytes(b"")
    with pytest.raises(UsageError, match="class class1 has no test image left"):
        opened(tmp_path, root)


def test_a_domain_without_images_is_refused_and_classes_it_never_had_are_not(tmp_path: Path) -> None:
    root = domain_lists(tmp_path, ["real", "quickdraw"])
    flags = ["--data_dir", str(root), "--split_strategy", "domain", "--num_tasks", "2", "--batch_size", "4"]
    args = args_of(*flags, "--skip_bad_images", dataset="domainnet")
    (root / "real" / "thing0" / "00.png").write_bytes(b"")
    data = open_data(args)
    assert data.skipped.names == ["real/thing0/00.png"] and list(map(len, data.split.train)) == [15, 16]
    for file in (root / "quickdraw").glob("*/*.png"):
        file.write_bytes(b"")
    with pytest.raises(UsageError, match="domain quickdraw has no training image left"):
        open_data(args)


# Found out once


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were decoded to find out."""
    seen: list[Path] = []
    decode = readable.decode
    monkeypatch.setattr(readable, "decode", lambda path: (seen.append(path), decode(path))[1])
    return seen


def images_in(root: Path, cache: Path | None) -> FolderImages:
    return image_folder(root / "train", "--train_dir", cache)


def test_files_are_read_once_for_all_times(tmp_path: Path, decoded: list[Path]) -> None:
    root, first = data_with(tmp_path, truncated_jpeg)
    paths, cache = images_in(root, None).paths, tmp_path / "cache"
    bad = find_bad(paths, cache, "training")
    assert list(bad) == [0] and len(decoded) == 24
    assert find_bad(paths, cache, "training") == bad and len(decoded) == 24
    Image.new("RGB", LARGE).save(first)
    assert find_bad(paths, cache, "training") == {} and len(decoded) == 48
    assert find_bad(paths, cache, "training") == {} and len(decoded) == 48
    assert find_bad(paths, None, "training") == {} and len(decoded) == 72


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"faults": [[24, "x"]]}', b'{"faults": [["a", "x"]]}', b"\xff"]
)
def test_a_damaged_cache_is_made_again(tmp_path: Path, decoded: list[Path], content: bytes) -> None:
    root, _ = data_with(tmp_path, no_bytes)
    paths, cache = images_in(root, None).paths, tmp_path / "cache"
    bad = find_bad(paths, cache, "training")
    (file,) = cache.iterdir()
    file.write_bytes(content)
    assert find_bad(paths, cache, "training") == bad and len(decoded) == 48


@pytest.mark.parametrize("damage", [dangling_link, without_rights])
def test_what_the_file_system_refuses_is_asked_anew(
    tmp_path: Path, decoded: list[Path], damage: Callable[[Path], None]
) -> None:
    root, _ = data_with(tmp_path, damage)
    paths, cache = images_in(root, None).paths, tmp_path / "cache"
    assert list(find_bad(paths, cache, "training")) == [0]
    assert list(find_bad(paths, cache, "training")) == [0] and len(decoded) == 48


def test_images_in_memory_are_left_alone() -> None:
    args = args_of("--skip_bad_images")
    data = open_data(args)
    assert data.skipped.names == [] and data.skipped.total == 0
    assert without_bad(data.train, data.test, Path())[0] is data.train
