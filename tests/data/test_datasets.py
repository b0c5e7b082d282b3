from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
import torch
from helpers import args_of, class_folders, domain_lists
from torchvision import datasets as vision

from kaizen.args import DataMissing, UsageError
from kaizen.data.datasets import DATASETS, dataset_info
from kaizen.data.images import CentreCrop, FolderImages, MemoryImages
from kaizen.plan import open_data, probe_indices

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


# STL-10, Fashion-MNIST and SVHN in their true formats.


STL10_LABELS = [1, 10, 3, 2, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5]


@pytest.fixture
def stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The binary files: column after column of each channel, labels from 1. Returns the images (N, 3, 96, 96)."""
    monkeypatch.setattr(vision.STL10, "_check_integrity", lambda self: True)
    root = tmp_path / "stl10_binary"
    root.mkdir()
    made = {}
    for number, (split, labels) in enumerate((("train", STL10_LABELS), ("test", range(1, 11)), ("unlabeled", None))):
        count = 9 if labels is None else len(labels)
        made[split] = np.random.default_rng(number).integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)
        (root / f"{split}_X.bin").write_bytes(made[split].transpose(0, 1, 3, 2).tobytes())
        if labels is not None:
            (root / f"{split}_y.bin").write_bytes(bytes(labels))
    (root / "class_names.txt").write_text("airplane\n" + "\n".join("bcdefghij") + "\n")
    return made


def test_stl10_in_its_true_format(tmp_path: Path, stl10: dict[str, np.ndarray]) -> None:
    train, test = DATASETS["stl10"].open(args_of("--data_dir", str(tmp_path), dataset="stl10"))
    assert isinstance(train, MemoryImages) and isinstance(test, MemoryImages)
    assert np.array_equal(train.images.numpy(), np.concatenate([stl10["train"], stl10["unlabeled"]]))
    assert np.array_equal(test.images.numpy(), stl10["test"])
    assert train.targets.tolist() == [*(label - 1 for label in STL10_LABELS), *([-1] * 9)]
    assert test.targets.tolist() == list(range(10))
    assert train.targets.dtype == test.targets.dtype == torch.int64 and train.images.is_contiguous()
    assert train.class_names == test.class_names == ["airplane", *"bcdefghij"]


def test_unlabelled_images_of_stl10_are_trained_on_and_judge_nothing(
    tmp_path: Path, stl10: dict[str, np.ndarray]
) -> None:
    flags = ["--data_dir", str(tmp_path), "--batch_size", "4", "--semi_supervised", "0.5"]
    for strategy, unlabelled in (("class", [5, 4]), ("data", None)):
        args = args_of(*flags, "--split_strategy", strategy, dataset="stl10")
        data = open_data(args)
        assert sum(map(len, data.split.train)) == 24
        if unlabelled is not None:
            assert [int((data.train.targets[part] == -1).sum()) for part in data.split.train] == unlabelled
        probed = probe_indices(args, data, 1)  # and so for k nearest neighbours
        assert (data.train.targets[probed] >= 0).all() and len(probed) == 15
        assert bool((data.visible_targets[15:] == -1).all()) and 10 <= int((data.visible_targets >= 0).sum()) < 15


def write_idx(path: Path, values: np.ndarray) -> None:
    """One file as the Fashion-MNIST site serves it: gzip of a header and bytes."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + values.astype(np.uint8).tobytes())


def test_fashion_mnist_in_its_true_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    images = {"train": np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)}
    images["t10k"] = 255 - images["train"][:2]
    for split, pixels in images.items():
        write_idx(raw / f"{split}-images-idx3-ubyte.gz", pixels)
        write_idx(raw / f"{split}-labels-idx1-ubyte.gz", np.array([9, 0, 5, 1])[: len(pixels)])
    # The archives are there: what is left of a download is to unpack them.
    monkeypatch.setattr("torchvision.datasets.utils.check_integrity", lambda path, md5=None: Path(path).is_file())
    train, test = DATASETS["fashion_mnist"].open(args_of("--data_dir", str(tmp_path), dataset="fashion_mnist"))
    assert isinstance(train, MemoryImages) and isinstance(test, MemoryImages)
    assert train.images.shape == (4, 3, 28, 28) and train.images.is_contiguous()
    for found, split in ((train, "train"), (test, "t10k")):
        assert all(np.array_equal(found.images[:, channel].numpy(), images[split]) for channel in range(3))
    assert (train.targets.tolist(), test.targets.tolist()) == ([9, 0, 5, 1], [9, 0])
    assert train.targets.dtype == torch.int64 and train.class_names[9] == "Ankle boot"


def test_svhn_in_its_true_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    for split, count in (("train", 5), ("test", 2)):
        labels = np.array([[10], [1], [9], [2], [10]], dtype=np.uint8)[:count]  # 10 is the digit 0
        scipy.io.savemat(tmp_path / f"{split}_32x32.mat", {"X": images[..., :count], "y": labels})
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda path, md5: True)
    monkeypatch.setattr("torchvision.datasets.utils.check_integrity", lambda path, md5: True)
    train, test = DATASETS["svhn"].open(args_of("--data_dir", str(tmp_path), dataset="svhn"))
    assert isinstance(train, MemoryImages)
    assert np.array_equal(train.images.numpy(), images.transpose(3, 2, 0, 1)) and train.images.is_contiguous()
    assert (train.targets.tolist(), test.targets.tolist()) == ([0, 1, 9, 2, 0], [0, 1])
    assert train.targets.dtype == torch.int64 and train.class_names == [str(c) for c in range(10)]


OFFLINE = {
    "stl10": ("torchvision.datasets.stl10.download_and_extract_archive", "stl10_binary"),
    "fashion_mnist": ("torchvision.datasets.mnist.download_and_extract_archive", "FashionMNIST/raw"),
    "svhn": ("torchvision.datasets.svhn.download_url", "train_32x32.mat"),
}


@pytest.mark.parametrize("name", OFFLINE)
def test_what_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def offline(*args: object, **options: object) -> None:
        raise URLError("no network")

    function, files = OFFLINE[name]
    monkeypatch.setattr(function, offline)
    with pytest.raises(DataMissing) as caught:
        DATASETS[name].open(args_of("--data_dir", str(tmp_path), dataset=name))
    message = str(caught.value)
    assert f"--data_dir {tmp_path}: {name} is not there" in message and "\n" not in message
    assert f"put {files} into that folder" in message


@pytest.mark.parametrize("name", OFFLINE)
def test_a_dry_run_downloads_nothing_of_these_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(OFFLINE[name][0], lambda *args, **options: pytest.fail("downloads"))
    with pytest.raises(DataMissing, match="a real run downloads it"):
        DATASETS[name].open(args_of("--data_dir", str(tmp_path), "--dry_run", dataset=name))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{split}-{kind}-ubyte").write_bytes(b"\0\0\x08")
    with pytest.raises(DataMissing, match="fashion_mnist is not there or damaged"):
        DATASETS["fashion_mnist"].open(args_of("--data_dir", str(tmp_path), dataset="fashion_mnist"))


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


def test_imagenet100_in_the_published_folders(tmp_path: Path) -> None:
    class_folders(tmp_path / "imagenet-100", [1] * 100)
    folders = ["--train_dir", "imagenet-100/train", "--val_dir", "imagenet-100/val", "--num_tasks", "5"]
    train, test = DATASETS["imagenet100"].open(args_of("--data_dir", str(tmp_path), *folders, dataset="imagenet100"))
    assert (len(train), len(test)) == (100, 400)
    assert len(train.class_names) == 100
    again, _ = DATASETS["imagenet100"].open(
        args_of("--data_dir", str(tmp_path / "imagenet-100"), dataset="imagenet100")
    )
    assert torch.equal(again.targets, train.targets)


@pytest.mark.parametrize(("name", "classes"), [("imagenet", "1000"), ("imagenet100", "100")])
def test_another_number_of_class_folders(tmp_path: Path, name: str, classes: str) -> None:
    class_folders(tmp_path, [1, 1])
    with pytest.raises(UsageError) as caught:
        DATASETS[name].open(args_of("--data_dir", str(tmp_path), dataset=name))
    assert f"--train_dir train: has 2 class folders and {name} {classes} classes" in str(caught.value)
    assert "--dataset custom" in str(caught.value)


NO_LABELS = ["--no_labels", "--split_strategy", "data", "--classifier_training", "False", "--disable_knn_eval"]


def test_images_without_labels_at_any_depth(tmp_path: Path) -> None:
    class_folders(tmp_path, [3, 2])
    (tmp_path / "train" / "class0" / "00.png").rename(tmp_path / "train" / "top.png")
    (tmp_path / "train" / "notes.txt").write_text("no image")
    for more in ([], ["--train_dir", "train"]):
        flags = ["--data_dir", str(tmp_path), *NO_LABELS, *more]
        train, test = DATASETS["custom"].open(args_of(*flags, dataset="custom"))
        assert (len(train), len(test)) == (5, 0)
        assert train.targets.tolist() == [-1] * 5 and train.class_names == []
    everything, _ = DATASETS["custom"].open(
        args_of("--data_dir", str(tmp_path), "--train_dir", ".", *NO_LABELS, dataset="custom")
    )
    assert len(everything) == 13
    (tmp_path / "empty").mkdir()
    for folder, problem in (("none", "no such folder"), ("empty", "holds no .jpg or .png image")):
        flags = ["--data_dir", str(tmp_path), "--train_dir", folder, *NO_LABELS]
        with pytest.raises(UsageError, match=f"--train_dir .*/{folder}: {problem}"):
            DATASETS["custom"].open(args_of(*flags, dataset="custom"))


# DomainNet.

DATA_SPLIT = ["--split_strategy", "data"]


def test_domainnet_from_its_lists(tmp_path: Path) -> None:
    domain_lists(tmp_path, ["sketch", "real", "quickdraw", "painting", "infograph", "clipart"], counts=[3, 2])
    train, test = DATASETS["domainnet"].open(args_of("--data_dir", str(tmp_path), *DATA_SPLIT, dataset="domainnet"))
    order = ["real", "quickdraw", "painting", "sketch", "infograph", "clipart"]
    assert train.domain_names == test.domain_names == order
    assert (len(train), len(test)) == (30, 24)
    assert train.domains is not None and train.domains.tolist() == [i for i in range(6) for _ in range(5)]
    assert train.targets.tolist() == [0, 0, 0, 1, 1] * 6
    assert len(train.class_names) == 345 and train.class_names[:3] == ["thing0", "thing1", "2"]
    assert isinstance(train, FolderImages) and train.paths[0] == tmp_path / "real" / "thing0" / "00.png"
    assert train.read([0, 5], CentreCrop(8)).shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("flags", "used"),
    [
        (["--split_strategy", "domain", "--num_tasks", "2"], ["real", "quickdraw"]),
        (["--split_strategy", "domain", "--domain", "clipart"], ["clipart"]),
        (["--split_strategy", "data", "--domain", "clipart"], ["clipart"]),
        (["--classes_per_task", "45", "300", "--domain", "clipart"], ["clipart"]),
    ],
)
def test_only_the_domains_in_use_are_read(tmp_path: Path, flags: list[str], used: list[str]) -> None:
    domain_lists(tmp_path, used)
    train, test = DATASETS["domainnet"].open(args_of("--data_dir", str(tmp_path), *flags, dataset="domainnet"))
    assert train.domain_names == test.domain_names == used


def test_lists_or_images_that_are_missing(tmp_path: Path) -> None:
    args = args_of("--data_dir", str(tmp_path / "data"), "--split_strategy", "domain", dataset="domainnet")
    with pytest.raises(DataMissing, match=r"--data_dir .*/data: no such folder"):
        DATASETS["domainnet"].open(args)
    domain_lists(tmp_path / "data", ["real"])
    with pytest.raises(DataMissing, match="lacks the list quickdraw_train.txt"):
        DATASETS["domainnet"].open(args)
    (tmp_path / "data" / "real" / "thing0" / "00.png").unlink()
    with pytest.raises(DataMissing, match="lacks real/thing0/00.png, the first image of real_train.txt"):
        DATASETS["domainnet"].open(args)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("../../etc/passwd 3", "../../etc/passwd leads out of --data_dir"),
        ("real/../../x.png 3", "leads out of --data_dir"),
        ("/etc/passwd 3", "/etc/passwd leads out of --data_dir"),
        ("real/thing0/00.png 345", "class 345 is not one of 0 to 344"),
        ("real/thing0/00.png", "'real/thing0/00.png' is not a path and a class number"),
        ("real/thing0/00.png -1", "is not a path and a class number"),
        ("real/thing0/00.png one", "is not a path and a class number"),
        ("17", "'17' is not a path and a class number"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    file = domain_lists(tmp_path, ["real"]) / "real_train.txt"
    file.write_text(file.read_text() + f"\n{line}\n")
    with pytest.raises(UsageError) as caught:
        DATASETS["domainnet"].open(
            args_of("--data_dir", str(tmp_path), "--domain", "real", *DATA_SPLIT, dataset="domainnet")
        )
    assert str(caught.value).startswith(f"{file}:18: ") and problem in str(caught.value)


@pytest.mark.parametrize(("content", "problem"), [(b"\n\n", "is empty"), (b"\xff\xfe", "cannot be read")])
def test_a_list_that_is_no_good(tmp_path: Path, content: bytes, problem: str) -> None:
    (domain_lists(tmp_path, ["real"]) / "real_test.txt").write_bytes(content)
    with pytest.raises(UsageError, match=f"real_test.txt {problem}"):
        DATASETS["domainnet"].open(
            args_of("--data_dir", str(tmp_path), "--domain", "real", *DATA_SPLIT, dataset="domainnet")
        )


def test_a_list_may_begin_as_some_editors_begin_files(tmp_path: Path) -> None:
    file = domain_lists(tmp_path, ["real"]) / "real_train.txt"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    args = args_of("--data_dir", str(tmp_path), "--domain", "real", *DATA_SPLIT, dataset="domainnet")
    train, _ = DATASETS["domainnet"].open(args)
    assert len(train) == 16


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match=r"--dataset cifar: choose from .*\(did you mean cifar10\?\)"):
        dataset_info("cifar")
