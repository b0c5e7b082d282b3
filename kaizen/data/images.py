"""Image sets: where pixels come from. Both kinds hand out uint8 batches; views are made of them afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from kaizen.args import DataMissing, UsageError
from kaizen.data.cache import cached_pixels
from kaizen.data.decoding import named, read_image
from kaizen.data.index import listing
from kaizen.data.paths import Paths

# Beyond this side an image is read anew for each batch by a loader process instead of being kept in memory.
LARGEST_KEPT = 96


@dataclass(frozen=True)
class RandomCrop:
    """A crop of `min_scale` to `max_scale` of the image's area, resized to `size` pixels."""

    size: int
    min_scale: float
    max_scale: float

    def __call__(self, image: Image.Image) -> Tensor:
        """PIL image -> (3, size, size) uint8."""
        from torchvision.transforms import InterpolationMode, RandomResizedCrop
        from torchvision.transforms import functional as vision

        scale, ratio = [self.min_scale, self.max_scale], [3 / 4, 4 / 3]
        box = RandomResizedCrop.get_params(image, scale=scale, ratio=ratio)
        return to_tensor(vision.resized_crop(image, *box, [self.size, self.size], InterpolationMode.BICUBIC))


@dataclass(frozen=True)
class CentreCrop:
    """The whole image as evaluation sees it: shorter side to `size` x 256 / 224, then the centre."""

    size: int

    @property
    def shorter_side(self) -> int:
        """What it is resized to before the centre is cut out."""
        return round(self.size * 256 / 224)

    def __call__(self, image: Image.Image) -> Tensor:
        """PIL image -> (3, size, size) uint8."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as vision

        image = vision.resize(image, [self.shorter_side], InterpolationMode.BICUBIC)
        return to_tensor(vision.center_crop(image, [self.size, self.size]))


# What is cut out of a large image while it is read: a crop for each view, or the one that is judged.
Crops = Sequence[RandomCrop] | CentreCrop
# uint8: whole images (B, 3, H, W), or where each view was cropped while reading, a (B, 3, size, size) for each; or
# where views are made while reading, the views, float.
Images = Tensor | list[Tensor]


class ImageSet(Protocol):
    """Images with labels."""

    targets: Tensor  # (N,) int64, -1 = unlabelled
    class_names: list[str]
    domains: Tensor | None  # (N,) int64, numbers into domain_names; None without domains
    domain_names: list[str]

    @property
    def in_memory(self) -> bool:
        """True where reading is a gather, so that loader processes would only cost."""

    @property
    def nbytes(self) -> int:
        """How much memory the images take; nothing where they stay in files."""

    @property
    def device(self) -> torch.device:
        """Where images are when they are read."""

    def __len__(self) -> int:
        """Number of images."""

    def to(self, device: torch.device) -> ImageSet:
        """The same with the images in the memory of a device; labels stay where they are, and so do files."""

    def select(self, indices: Tensor) -> ImageSet:
        """A part of the images, int64 (M,), as an image set of its own."""

    def read(self, indices: Sequence[int] | Tensor, crops: Crops) -> Images:
        """Whole images from memory, cropped ones from large files."""


class MemoryImages:
    """Small images, all of one size, in one uint8 tensor; they are cropped later, in batches on the device."""

    in_memory = True

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        class_names: list[str],
        domains: Tensor | None = None,
        domain_names: Sequence[str] = (),
    ) -> None:
        """images: uint8 (N, 3, H, W); targets and domains: int64 (N,)."""
        self.images = images
        self.targets = targets
        self.class_names = class_names
        self.domains, self.domain_names = domains, list(domain_names)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def nbytes(self) -> int:
        """Of all images."""
        return self.images.nbytes

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.images.device

    def to(self, device: torch.device) -> MemoryImages:
        """The same with the images on another device."""
        return MemoryImages(self.images.to(device), self.targets, self.class_names, self.domains, self.domain_names)

    def select(self, indices: Tensor) -> MemoryImages:
        """A part of the images, int64 (M,), as an image set of its own."""
        domains = None if self.domains is None else self.domains[indices]
        images = self.images[indices.to(self.device)]
        return MemoryImages(images, self.targets[indices], self.class_names, domains, self.domain_names)

    def read(self, indices: Sequence[int] | Tensor, crops: Crops) -> Images:
        """uint8 (B, 3, H, W), on the device of the images."""
        return self.images[torch.as_tensor(indices, device=self.device)]


class FolderImages:
    """Images in files. Small ones of one size are decoded once, at the first read; others anew for each batch."""

    device = torch.device("cpu")

    def __init__(
        self,
        paths: Paths,
        targets: Tensor,
        class_names: list[str],
        domains: Tensor | None = None,
        domain_names: Sequence[str] = (),
        cache: Path | None = None,
    ) -> None:
        """Targets and domains: int64 (N,), in the order of the paths; cache: folder where decoded images are kept."""
        self.paths, self.cache = paths, cache
        self.targets = targets
        self.class_names = class_names
        self.domains, self.domain_names = domains, list(domain_names)
        self.beside: FolderImages | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def in_memory(self) -> bool:
        """True where the images are small enough to be kept."""
        return self._pixels is not None

    @property
    def first_size(self) -> tuple[int, int]:
        """Width and height of the first image."""
        with named(self.paths[0]), Image.open(self.paths[0]) as image:
            return image.size

    @property
    def _pixels(self) -> Tensor | None:
        if self._decoded is not None and self.beside is not None and self.beside._decoded is None:
            return None
        return self._decoded

    @cached_property
    def _decoded(self) -> Tensor | None:
        width, height = self.first_size
        if max(width, height) > LARGEST_KEPT:
            return None
        shape = (len(self.paths), 3, height, width)
        return cached_pixels(self.cache, self.paths, shape, lambda: _decode_all(self.paths, width, height))

    def select(self, indices: Tensor) -> FolderImages:
        """A part of the images, int64 (M,), as an image set of its own."""
        domains = None if self.domains is None else self.domains[indices]
        paths, targets = self.paths.select(indices), self.targets[indices]
        return FolderImages(paths, targets, self.class_names, domains, self.domain_names, self.cache)

    @property
    def nbytes(self) -> int:
        """Of the images that are kept."""
        return 0 if self._pixels is None else self._pixels.nbytes

    def to(self, device: torch.device) -> ImageSet:
        """Kept images on another device; others stay in their files."""
        if self._pixels is None:
            return self
        return MemoryImages(self._pixels.to(device), self.targets, self.class_names, self.domains, self.domain_names)

    def read(self, indices: Sequence[int] | Tensor, crops: Crops) -> Images:
        """uint8 (B, 3, H, W) from memory; from files a (B, 3, size, size) for each random crop, or the central one."""
        chosen = torch.as_tensor(indices)
        if self._pixels is not None:
            return self._pixels[chosen]
        images = (read_image(self.paths[i]) for i in chosen.tolist())
        if isinstance(crops, CentreCrop):
            return torch.stack([crops(image) for image in images])
        rows = [[crop(image) for crop in crops] for image in images]
        if not rows:  # of few images, a process that shares them may have none
            return [torch.empty(0, 3, crop.size, crop.size, dtype=torch.uint8) for crop in crops]
        return [torch.stack(view) for view in zip(*rows, strict=True)]


def see_alike(train: ImageSet, test: ImageSet) -> None:
    """Keep both in memory or neither: of images in files the encoder is shown less when it is judged (`CentreCrop`)."""
    if isinstance(train, FolderImages) and isinstance(test, FolderImages):
        train.beside, test.beside = test, train


def image_folder(root: Path, flag: str, cache: Path | None = None) -> FolderImages:
    """A folder of class folders, sorted by name.

    Raises:
        DataMissing: the folder is missing.
        UsageError: it has no class folder with images.
    """
    if not root.is_dir():
        raise DataMissing(f"{flag} {root}: no such folder; it must hold one folder per class")
    found = listing(root, cache)
    names, counts = found.folders, torch.from_numpy(found.counts)
    if not counts.any():
        raise UsageError(
            f"{flag} {root}: holds no class folder with images; expected {root}/<class>/<image>.jpg or .png"
        )
    if not counts.all():
        empty = names[int(counts.argmin())]
        raise UsageError(f"{flag} {root}: class folder {empty} holds no images; add some or remove it")
    for name in names:
        if any("\udc80" <= letter <= "\udcff" for letter in name):
            raise UsageError(f"{flag} {root}: the name of class folder {ascii(name)} is not in UTF-8; rename it")
    targets = torch.repeat_interleave(torch.arange(len(names)), counts)
    starts = torch.from_numpy(found.starts) - counts.cumsum(0) + counts  # what lies between the classes
    return FolderImages(found.paths.select(torch.arange(len(targets)) + starts[targets]), targets, names, cache=cache)


def unlabelled_folder(root: Path, flag: str, cache: Path | None = None) -> FolderImages:
    """All images below a folder at any depth, sorted by path, with the label -1.

    Raises:
        DataMissing: the folder is missing.
        UsageError: it holds no image.
    """
    if not root.is_dir():
        raise DataMissing(f"{flag} {root}: no such folder; it must hold the images, at any depth")
    paths = listing(root, cache).paths
    if not paths:
        raise UsageError(f"{flag} {root}: holds no .jpg or .png image; name the folder with the images")
    return FolderImages(paths, torch.full((len(paths),), -1), [], cache=cache)


def _decode_all(paths: Sequence[Path], width: int, height: int) -> Tensor | None:
    """All images as uint8 (N, 3, H, W), or None where one is of another size."""
    images = np.empty((len(paths), height, width, 3), dtype=np.uint8)

    def decode(i: int) -> bool:
        image = read_image(paths[i])
        if image.size != (width, height):
            return False
        images[i] = np.asarray(image)
        return True

    with ThreadPoolExecutor() as pool:  # the decoder releases the interpreter's lock
        if not all(pool.map(decode, range(len(paths)), chunksize=64)):
            return None
    return rearrange(torch.from_numpy(images), "n h w c -> n c h w").contiguous()


def to_tensor(image: Image.Image) -> Tensor:
    """RGB image -> uint8 (3, H, W)."""
    return rearrange(torch.from_numpy(np.array(image)), "h w c -> c h w")
