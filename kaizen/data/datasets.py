"""The data sets by name: what each one is, and how its two splits are opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, repeat

from kaizen.args import Args, DataMissing, UsageError, nearest
from kaizen.data.images import ImageSet, MemoryImages, image_folder

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before it is opened.

    Attributes:
        open: flags -> (training images, test images). Raises UsageError where they cannot be had.
        num_classes: None where only the folder tells.
        size: side of the images that the encoder sees, in pixels.
        mean, std: of the channels, in 0-1.
    """

    open: Callable[[Args], tuple[ImageSet, ImageSet]]
    num_classes: int | None
    size: int
    mean: Channels
    std: Channels


def _open_cifar(args: Args) -> tuple[ImageSet, ImageSet]:
    from torchvision import datasets

    kind = datasets.CIFAR100 if args.dataset == "cifar100" else datasets.CIFAR10
    splits = []
    for train in (True, False):
        try:
            # What is there and whole is not fetched again; a dry run fetches nothing.
            found = kind(args.data_dir, train=train, download=not args.dry_run)
        except (OSError, RuntimeError, EOFError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            if args.dry_run:
                raise DataMissing(
                    f"--data_dir {args.data_dir}: {args.dataset} is not there; a real run downloads it"
                ) from None
            raise DataMissing(
                f"--data_dir {args.data_dir}: {args.dataset} is not there or damaged, and could not be downloaded "
                f"({reason}); put {kind.base_folder} into that folder"
            ) from None
        images = rearrange(torch.from_numpy(found.data), "n h w c -> n c h w").contiguous()
        splits.append(MemoryImages(images, torch.tensor(found.targets), list(found.classes)))
    return splits[0], splits[1]


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


def _open_custom(args: Args) -> tuple[ImageSet, ImageSet]:
    root = Path(args.data_dir)
    if not root.is_dir():
        raise DataMissing(f"--data_dir {root}: no such folder; it must hold the train and val folders")
    train = image_folder(root / (args.train_dir or "train"), "--train_dir")
    test = image_folder(root / (args.val_dir or "val"), "--val_dir")
    if train.class_names != test.class_names:
        odd = sorted(set(train.class_names) ^ set(test.class_names))
        raise UsageError(
            f"--val_dir {args.val_dir or 'val'}: its classes differ from the training ones ({', '.join(odd[:5])}); "
            "both folders need the same class folders"
        )
    return train, test


DATASETS: dict[str, DatasetInfo] = {
    "cifar10": DatasetInfo(_open_cifar, 10, 32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": DatasetInfo(_open_cifar, 100, 32, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "digits": DatasetInfo(_open_digits, 10, 16, (0.3053, 0.3053, 0.3053), (0.3760, 0.3760, 0.3760)),
    "custom": DatasetInfo(_open_custom, None, 224, (0.485, 0.456, 0.406), (0.228, 0.224, 0.225)),
}


def dataset_info(name: str) -> DatasetInfo:
    """Raises UsageError for a name that is not in DATASETS."""
    if name not in DATASETS:
        raise UsageError(
            f"--dataset {name or '(not given)'}: choose from {', '.join(DATASETS)}{nearest(name, DATASETS)}"
        )
    return DATASETS[name]
