"""Images as people have them, read as the test images of a training are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from kaizen.args import UsageError, one_line
from kaizen.data.decoding import decode, in_rgb
from kaizen.data.filters import resized_center_crop
from kaizen.data.images import LARGEST_KEPT, CentreCrop, to_tensor

OneImage = Image.Image | str | os.PathLike[str]
ONE_IMAGE = (Image.Image, str, os.PathLike)
GivenImages = Tensor | np.ndarray | OneImage | Sequence[OneImage]
ARRAYS = [np.dtype(kind) for kind in (np.uint8, np.float16, np.float32, np.float64)]
KINDS = (
    "give a uint8 tensor (N, 3, H, W) or (3, H, W), a float one in 0-1, an array (N, H, W, 3), a PIL image, a path, "
    "or a list of PIL images and paths"
)


@dataclass(frozen=True)
class Reader:
    """Reads images of any size as evaluation does, for an `EvalTransform` of the same size.

    Attributes:
        size: side of the images that the encoder sees.
        cropped: as in `TrainedOn`; where it is not known, images are cropped if a data set of them would be.
    """

    size: int
    cropped: bool | None

    def batches(self, images: GivenImages, batch_size: int) -> Iterator[Tensor]:
        """Uint8 (B, 3, H, W), at most `batch_size` at a time; files are opened when their batch is due.

        Raises:
            UsageError: it is something else than images.
        """
        if batch_size < 1:
            raise UsageError(f"batch_size {batch_size}: give at least 1")
        if isinstance(images, Tensor | np.ndarray):
            levels = to_levels(images)
            parts = levels.split(batch_size) if len(levels) else ()
            yield from (self._cropped(part) if self._crops(*part.shape[2:]) else part for part in parts)
            return
        if isinstance(images, ONE_IMAGE):
            images = [images]
        if not isinstance(images, Sequence) or not all(isinstance(image, ONE_IMAGE) for image in images):
            raise UsageError(f"images of type {type(images).__name__}: {KINDS}")
        for start in range(0, len(images), batch_size):
            yield self.stack([self.read(opened(image)) for image in images[start : start + batch_size]])

    def read(self, image: Image.Image) -> Tensor:
        """One image in RGB -> uint8 (3, H, W): as it is, if it is small; (3, size, size) if not."""
        if self._crops(image.height, image.width):
            return CentreCrop(self.size)(image)
        levels = to_tensor(image)
        return self._shrunk(levels) if max(image.size) > LARGEST_KEPT else levels

    def stack(self, images: Sequence[Tensor]) -> Tensor:
        """What `read` gave of some images, as one batch (B, 3, H, W)."""
        if len({image.shape for image in images}) > 1:
            images = [self._shrunk(image) for image in images]
        return torch.stack([*images])

    def _crops(self, height: int, width: int) -> bool:
        return max(height, width) > LARGEST_KEPT if self.cropped is None else self.cropped

    def _cropped(self, images: Tensor) -> Tensor:
        crop = CentreCrop(self.size)
        arrays = rearrange(images.cpu(), "n c h w -> n h w c").numpy()
        return torch.stack([crop(Image.fromarray(array)) for array in arrays])

    def _shrunk(self, image: Tensor) -> Tensor:
        """As `EvalTransform` begins; what comes out are whole levels."""
        return resized_center_crop(image[None], self.size)[0].to(torch.uint8)


def to_levels(images: Tensor | np.ndarray) -> Tensor:
    """Any tensor or array of images -> uint8 (N, 3, H, W). Raises UsageError where it holds something else."""
    what = f"images {tuple(images.shape)} of {str(images.dtype).removeprefix('torch.')}"
    if isinstance(images, np.ndarray):
        if images.dtype not in ARRAYS or images.ndim not in (3, 4):
            raise UsageError(f"{what}: {KINDS}")
        images = torch.from_numpy(np.require(images, requirements=["C", "W"])).movedim(-1, -3)
    levels = images[None] if images.ndim == 3 else images
    if levels.ndim != 4 or levels.shape[1] != 3 or 0 in levels.shape[2:]:
        raise UsageError(f"{what}: {KINDS}")
    if levels.is_floating_point():
        if not ((levels >= 0) & (levels <= 1)).all():
            raise UsageError(f"{what}: has values that are not in 0-1; {KINDS}")
        return (levels.detach().float() * 255).round().to(torch.uint8)
    if levels.dtype != torch.uint8:
        raise UsageError(f"{what}: {KINDS}")
    return levels


def opened(image: OneImage) -> Image.Image:
    """A PIL image, or the one in a file, in RGB. Raises UsageError naming what cannot be read, or has no pixels."""
    given = isinstance(image, Image.Image)
    try:
        found = in_rgb(image) if isinstance(image, Image.Image) else decode(Path(image))
        if 0 in found.size:
            raise ValueError("it has no pixels")
    except Exception as error:  # in a damaged file a decoder may stumble over anything
        name = "a PIL image" if given else image
        raise UsageError(f"{name}: cannot be read as an image ({one_line(error)}); repair or remove it") from None
    return found
