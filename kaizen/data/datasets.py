"""The data sets by name: what each one is, and how its two splits are opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat

from kaizen.args import Args, DataMissing, UsageError, nearest
from kaizen.data.cache import cache_folder
from kaizen.data.images import ImageSet, MemoryImages, image_folder, unlabelled_folder
from kaizen.data.lists import domain_images

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before it is opened.

    Attributes:
        open: flags -> (training images, test images). Raises UsageError where they cannot be had.
        num_classes: None where only the folder tells.
        size: side of the images that the encoder sees, in pixels.
        mean, std: of the channels, in 0-1.
        domains: in the order in which they become tasks; none for most.
        unlabelled: are there training images without labels beside those with labels.
    """

    open: Callable[[Args], tuple[ImageSet, ImageSet]]
    num_classes: int | None
    size: int
    mean: Channels
    std: Channels
    domains: tuple[str, ...] = ()
    unlabelled: bool = False


def _open_cifar(args: Args) -> tuple[ImageSet, ImageSet]:
    from torchvision import datasets

    kind = datasets.CIFAR100 if args.dataset == "cifar100" else datasets.CIFAR10

    def part(train: bool) -> ImageSet:
        found = _fetch(args, kind.base_folder, lambda download: kind(args.data_dir, train=train, download=download))
        return _in_memory(rearrange(found.data, "n h w c -> n c h w"), found.targets, found.classes)

    return part(True), part(False)


def _open_stl10(args: Args) -> tuple[ImageSet, ImageSet]:
    from torchvision.datasets import STL10

    def part(split: str) -> ImageSet:
        found = _fetch(args, STL10.base_folder, lambda download: STL10(args.data_dir, split=split, download=download))
        names = getattr(found, "classes", None) or [str(c) for c in range(10)]
        return _in_memory(found.data, found.labels, names)

    return part("train+unlabeled"), part("test")


def _open_fashion_mnist(args: Args) -> tuple[ImageSet, ImageSet]:
    from torchvision.datasets import FashionMNIST

    def part(train: bool) -> ImageSet:
        found = _fetch(
            args, "FashionMNIST/raw", lambda download: FashionMNIST(args.data_dir, train=train, download=download)
        )
        return _in_memory(repeat(found.data, "n h w -> n c h w", c=3), found.targets, found.classes)

    return part(True), part(False)


def _open_svhn(args: Args) -> tuple[ImageSet, ImageSet]:
    from torchvision.datasets import SVHN

    def part(split: str) -> ImageSet:
        file = SVHN.split_list[split][1]
        found = _fetch(args, file, lambda download: SVHN(args.data_dir, split=split, download=download))
        return _in_memory(found.data, found.labels, [str(c) for c in range(10)])

    return part("train"), part("test")


def _open_digits(args: Args) -> tuple[ImageSet, ImageSet]:
    """The 1,797 handwritten digits of 8x8 pixels inside scikit-learn; every fifth of a class is a test image."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))
    images = repeat(grey, "n h w -> n c h w", c=3).contiguous()
    targets = torch.from_numpy(digits.target).long()
    number_in_class = torch.zeros_like(targets)
    for c in range(10):
        members = targets == c
        number_in_class[members] = torch.arange(int(members.sum()))
    test = number_in_class % 5 == 4
    names = [str(c) for c in range(10)]
    return MemoryImages(images[~test], targets[~test], names), MemoryImages(images[test], targets[test], names)


def _open_folders(args: Args) -> tuple[ImageSet, ImageSet]:
    """Training and test images in class folders. ImageNet's probes, too, train on training images."""
    root = _data_folder(args)
    train_dir, val_dir = args.train_dir or "train", args.val_dir or "val"
    train = image_folder(root / train_dir, "--train_dir", cache_folder(args))
    test = image_folder(root / val_dir, "--val_dir", cache_folder(args))
    expected = DATASETS[args.dataset].num_classes
    if expected is not None and len(train.class_names) != expected:
        raise UsageError(
            f"--train_dir {train_dir}: has {len(train.class_names)} class folders and {args.dataset} {expected} "
            "classes; name the right folder, or use --dataset custom"
        )
    if train.class_names != test.class_names:
        odd = sorted(set(train.class_names) ^ set(test.class_names))
        raise UsageError(
            f"--val_dir {val_dir}: its classes differ from the training ones ({', '.join(odd[:5])}); "
            "both folders need the same class folders"
        )
    return train, test


def _open_custom(args: Args) -> tuple[ImageSet, ImageSet]:
    if not args.no_labels:
        return _open_folders(args)
    root = _data_folder(args) / (args.train_dir or "train")
    train = unlabelled_folder(root, "--train_dir", cache_folder(args))
    nothing = MemoryImages(torch.empty(0, 3, 1, 1, dtype=torch.uint8), torch.empty(0, dtype=torch.int64), [])
    return train, nothing


def _open_domainnet(args: Args) -> tuple[ImageSet, ImageSet]:
    """The published lists; of the domains only those that are used."""
    info, root = DATASETS["domainnet"], _data_folder(args)
    domains = info.domains[: args.num_tasks] if args.split_strategy == "domain" else info.domains
    used = (args.domain,) if args.domain else domains
    assert info.num_classes is not None
    count, cache = info.num_classes, cache_folder(args)
    return domain_images(root, used, "train", count, cache), domain_images(root, used, "test", count, cache)


def _data_folder(args: Args) -> Path:
    root = Path(args.data_dir)
    if not root.is_dir():
        raise DataMissing(f"--data_dir {root}: no such folder; it must hold the data of {args.dataset}")
    return root


def _fetch(args: Args, files: str, find: Callable[[bool], Any]) -> Any:
    """A data set of torchvision; what is there and whole is not fetched again, and a dry run fetches nothing.

    Args:
        args: flags.
        files: what must lie in --data_dir.
        find: opens it, given whether it may download.
    """
    try:
        return find(not args.dry_run)
    except Exception as error:  # over damaged files and a missing network, readers stumble in many ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if args.dry_run:
        raise DataMissing(f"--data_dir {args.data_dir}: {args.dataset} is not there; a real run downloads it")
    raise DataMissing(
        f"--data_dir {args.data_dir}: {args.dataset} is not there or damaged, and could not be downloaded "
        f"({reason}); put {files} into that folder"
    )


def _in_memory(images: Any, targets: Any, names: Sequence[str]) -> MemoryImages:
    """Arrays, tensors or lists as they come: uint8 (N, 3, H, W), and labels (N,)."""
    return MemoryImages(torch.as_tensor(images).contiguous(), torch.as_tensor(targets).long(), list(names))


IMAGENET: tuple[int, Channels, Channels] = (224, (0.485, 0.456, 0.406), (0.228, 0.224, 0.225))

DATASETS: dict[str, DatasetInfo] = {
    "cifar10": DatasetInfo(_open_cifar, 10, 32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": DatasetInfo(_open_cifar, 100, 32, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "digits": DatasetInfo(_open_digits, 10, 16, (0.3053, 0.3053, 0.3053), (0.3760, 0.3760, 0.3760)),
    "fashion_mnist": DatasetInfo(_open_fashion_mnist, 10, 28, (0.2860, 0.2860, 0.2860), (0.3530, 0.3530, 0.3530)),
    "svhn": DatasetInfo(_open_svhn, 10, 32, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    # The published statistics of STL-10, which are those of CIFAR-10.
    "stl10": DatasetInfo(_open_stl10, 10, 96, (0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261), unlabelled=True),
    "imagenet100": DatasetInfo(_open_folders, 100, *IMAGENET),
    "imagenet": DatasetInfo(_open_folders, 1000, *IMAGENET),
    "domainnet": DatasetInfo(
        _open_domainnet, 345, *IMAGENET, domains=("real", "quickdraw", "painting", "sketch", "infograph", "clipart")
    ),
    "custom": DatasetInfo(_open_custom, None, *IMAGENET),
}


def dataset_info(name: str) -> DatasetInfo:
    """What is known of a data set.

    Raises:
        UsageError: the name is not in DATASETS.
    """
    if name not in DATASETS:
        raise UsageError(
            f"--dataset {name or '(not given)'}: choose from {', '.join(DATASETS)}{nearest(name, DATASETS)}"
        )
    return DATASETS[name]
