"""On disk, what reading images in files gave, so that each is decoded once, and not once in every process.

Of small ones that is the pixels; of all, where that is asked for, which ones cannot be read.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL
import torch
from torch import Tensor

from kaizen.args import Args
from kaizen.files import atomic_path, read_json

# What else the pixels depend on: the layout of the file, and the decoder.
VERSION = f"1 {PIL.__version__}"
CHECKSUM = 4  # bytes of a CRC-32 behind the array: damage in the middle would go unseen otherwise


def cache_folder(args: Args) -> Path | None:
    """The folder that --image_cache names, by default the user's own; None where nothing is kept."""
    if args.image_cache is not None:
        return None if args.image_cache == "none" else Path(args.image_cache)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "kaizen"
    try:
        return Path.home() / ".cache" / "kaizen"
    except RuntimeError:  # a user without a home
        return None


def cached_pixels(
    folder: Path | None, paths: Sequence[Path], shape: tuple[int, ...], decode: Callable[[], Tensor | None]
) -> Tensor | None:
    """Pixels from the cache, or decoded now and kept there for the next time.

    The cache only saves time: where it cannot be read or written, images are decoded as if there were none.

    Args:
        folder: of the cache; None keeps nothing.
        paths: the files. With another path, size or time of change of any of them, they are decoded anew.
        shape: of the pixels.
        decode: makes them, uint8. What it cannot put into one tensor is None, and is not kept.

    Returns:
        From the cache, a map of the file into memory, which processes share; what is written to it stays private.
    """
    file = None if folder is None else _file(folder, paths)
    if file is not None and (found := _read(file, shape)) is not None:
        return found
    pixels = decode()
    if file is not None and pixels is not None:
        keep(file, partial(_write, pixels=pixels.numpy()))
    return pixels


def cached_faults(
    folder: Path | None, paths: Sequence[Path], find: Callable[[], tuple[dict[int, str], bool]]
) -> dict[int, str]:
    """Which of the files cannot be read, from the cache, or found out now and kept there like pixels.

    Args:
        folder, paths: as of `cached_pixels`.
        find: finds out: position among the paths -> why; and whether that will stay so, or else it is not kept.
    """
    pixels = None if folder is None else _file(folder, paths)
    file = None if pixels is None else pixels.with_suffix(".json")
    if file is not None and (found := _read_faults(file, len(paths))) is not None:
        return found
    faults, lasting = find()
    if file is not None and lasting:
        text = json.dumps({"faults": sorted(faults.items())})
        keep(file, lambda stream: stream.write(text.encode()))
    return faults


def keep(file: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file of the cache in one piece; where there is no room, or no right to write, do without."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary, temporary.open("wb") as stream:
            write(stream)
    except OSError:
        return


def _file(folder: Path, paths: Sequence[Path]) -> Path | None:
    """Where the pixels of these files are kept; None where one of the files cannot be seen."""
    parents: dict[Path, Path] = {}  # to resolve each file takes far longer than all else
    digest = hashlib.sha256(VERSION.encode())
    try:
        for path in paths:
            parent = path.parent
            if parent not in parents:
                parents[parent] = parent.resolve()
            about = path.stat()
            digest.update(os.fsencode(f"\0{parents[parent] / path.name}\0{about.st_size}\0{about.st_mtime_ns}"))
    except OSError:
        return None
    return folder / f"{digest.hexdigest()}.npy"


def _read(file: Path, shape: tuple[int, ...]) -> Tensor | None:
    try:
        pixels = np.lib.format.open_memmap(file, mode="c")  # it never unpickles
        if pixels.shape == shape and pixels.dtype == np.uint8 and pixels.flags.c_contiguous:
            with file.open("rb") as stream:
                stream.seek(-CHECKSUM, os.SEEK_END)
                if stream.read() == _checksum(pixels):
                    return torch.from_numpy(pixels)
    except Exception:  # missing or damaged in whatever way: it can be made again
        return None
    return None


def _read_faults(file: Path, count: int) -> dict[int, str] | None:
    try:
        faults = {int(i): str(fault) for i, fault in read_json(file)["faults"]}
    except Exception:  # as above
        return None
    return faults if all(0 <= i < count for i in faults) else None


def _write(stream: BinaryIO, pixels: np.ndarray) -> None:
    np.save(stream, pixels, allow_pickle=False)
    stream.write(_checksum(pixels))


def _checksum(pixels: np.ndarray) -> bytes:
    return zlib.crc32(pixels.data).to_bytes(CHECKSUM, "little")
