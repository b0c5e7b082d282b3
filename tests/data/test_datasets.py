from __future__ import annotations

import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from helpers import args_of, class_folders
from torchvision import datasets as vision

from kaizen.args import DataMissing, UsageError
from kaizen.data.datasets import DATASETS, dataset_info
from kaizen.data.images import MemoryImages

pytestmark = pytest.mark.usefixtures("tiny")


def write_batch(path: Path, labels: list[int], key: str, first: int) -> np.ndarray:
    """One file as the CIFAR archives hold it; returns its images, (N, 3, 32, 32)."""
    images = np.random.default_rng(first).integers(0, 256, (len(labels), 3 * 32 * 32), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({"data": images, key: labels, "filenames": ["x"] * len(labels)}))
    return images.reshape(-1, 3, 32, 32)


@pytest.fixture
def no_md5(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5: True)


@pytest.mark.usefixtures("no_md5")
def test_cifar10_in_its_true_format(tmp_path: Path) -> None:
    root = tmp_path / "cifar-10-batches-py"
    labels = [[(i + j) % 10 for j in range(4)] for i in range(6)]
    files = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    images = [write_batch(root / name, labels[i], "labels", i) for i, name in enumerate(files)]
    names = ["airplane", *"bcdefghij"]
    (root / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))

    train, test = DATASETS["cifar10"].open(args_of("--data_dir", str(tmp_path), dataset="cifar10"))
    assert isinstance(train, MemoryImages) and isinstance(test, MemoryImages)
    assert np.array_equal(train.images.numpy(), np.concatenate(images[:5]))
    assert np.array_equal(test.images.numpy(), images[5])
    assert train.targets.tolist() == sum(labels[:5], []) and test.targets.tolist() == labels[5]
    assert train.targets.dtype == torch.int64 and train.images.is_contiguous()
    assert train.class_names == test.class_names == names


@pytest.mark.usefixtures("no_md5")
def test_cifar100_in_its_true_format(tmp_path: Path) -> None:
    root = tmp_path / "cifar-100-python"
    images = [write_batch(root / name, [7, 99, 0], "fine_labels", i) for i, name in enumerate(("train", "test"))]
    names = [f"class {i}" for i in range(100)]
    (root / "meta").write_bytes(pickle.dumps({"fine_label_names": names}))

    train, test = DATASETS["cifar100"].open(args_of("--data_dir", str(tmp_path), dataset="cifar100"))
    assert isinstance(train, MemoryImages) and isinstance(test, MemoryImages)
    assert np.array_equal(train.images.numpy(), images[0]) and np.array_equal(test.images.numpy(), images[1])
    assert train.targets.tolist() == [7, 99, 0]
    assert train.class_names == names


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def offline(*args: object, **options: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", offline)
    with pytest.raises(DataMissing) as caught:
        DATASETS[name].open(args_of("--data_dir", str(tmp_path), dataset=name))
    message = str(caught.value)
    assert f"--data_dir {tmp_path}" in message and "no network" in message and "\n" not in message
    assert {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name] in message


def test_a_dry_run_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*args: object, **options: object) -> None:
        pytest.fail("downloads")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", download)
    with pytest.raises(DataMissing, match="a real run downloads it"):
        DATASETS["cifar100"].open(args_of("--data_dir", str(tmp_path), "--dry_run", dataset="cifar100"))


def test_a_damaged_cifar_is_never_unpickled(tmp_path: Path) -> None:
    """Without a patched checksum, a stranger's pickle under CIFAR's name runs no code."""

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (open, (str(tmp_path / "ran"), "w"))  # type: ignore[return-value]

    root = tmp_path / "cifar-100-python"
    root.mkdir()
    for name in ("train", "test", "meta"):
        (root / name).write_bytes(pickle.dumps(Payload()))
    with pytest.raises(DataMissing):
        DATASETS["cifar100"].open(args_of("--data_dir", str(tmp_path), "--dry_run", dataset="cifar100"))
    assert not (tmp_path / "ran").exists()


def test_the_digits() -> None:
    train, test = DATASETS["digits"].open(args_of())
    assert isinstance(train, MemoryImages) and isinstance(test, MemoryImages)
    assert len(train) + len(test) == 1797
    assert train.images.shape[1:] == (3, 8, 8) and train.images.dtype == torch.uint8
    assert (int(train.images.min()), int(train.images.max())) == (0, 255)
    assert torch.equal(train.images[:, 0], train.images[:, 2])
    assert train.class_names == [str(c) for c in range(10)]
    for c in range(10):
        ours, theirs = int((train.targets == c).sum()), int((test.targets == c).sum())
        assert theirs == (ours + theirs) // 5  # every fifth
    rows = {image.numpy().tobytes() for image in train.images[:, 0]}
    assert sum(image.numpy().tobytes() in rows for image in test.images[:, 0]) == 0  # no image in both


def test_the_statistics_of_the_digits() -> None:
    info = dataset_info("digits")
    train, _ = info.open(args_of())
    assert isinstance(train, MemoryImages)
    levels = train.images.float() / 255
    assert float(levels.mean()) == pytest.approx(info.mean[0], abs=2e-3)
    assert float(levels.std()) == pytest.approx(info.std[0], abs=2e-3)


def test_a_custom_data_set(tmp_path: Path) -> None:
    class_folders(tmp_path, [3, 2])
    (tmp_path / "val").rename(tmp_path / "test images")
    flags = ["--data_dir", str(tmp_path), "--val_dir", "test images"]
    train, test = DATASETS["custom"].open(args_of(*flags, dataset="custom"))
    assert (len(train), len(test)) == (5, 8)
    assert train.class_names == test.class_names == ["class0", "class1"]
    absolute = ["--train_dir", str(tmp_path / "train"), "--val_dir", str(tmp_path / "test images")]
    again, _ = DATASETS["custom"].open(args_of("--data_dir", "/", *absolute, dataset="custom"))
    assert torch.equal(again.targets, train.targets)


def test_custom_folders_with_other_classes(tmp_path: Path) -> None:
    class_folders(tmp_path, [3, 2])
    (tmp_path / "train" / "class1").rename(tmp_path / "train" / "class2")
    with pytest.raises(UsageError, match=r"--val_dir val: its classes differ .*\(class1, class2\)"):
        DATASETS["custom"].open(args_of("--data_dir", str(tmp_path), dataset="custom"))


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match=r"--dataset cifar: choose from .*\(did you mean cifar10\?\)"):
        dataset_info("cifar")
