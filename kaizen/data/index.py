"""Which images lie below a folder: found out by looking through it, and kept in an index for the next start.

An index is a file of the cache, keyed by the folder. It counts for as long as no folder in it has changed, which takes
one look at each folder instead of one at each image: for ImageNet a thousand instead of a million.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kaizen.data.cache import keep
from kaizen.data.paths import Paths

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
VERSION = "2"  # of the file's layout and of what counts as an image
SETTLED = 2.0  # seconds: two changes within a tick of the file system's clock give a folder one time


@dataclass(frozen=True)
class Listing:
    """The images below a folder at any depth, sorted by the parts of their paths.

    Attributes:
        paths: of all of them.
        folders: names of the folders directly below, sorted, also of those without images, but no hidden ones.
        starts: int64 (folders,), the position of the first image below each; the others follow it.
        counts: int64 (folders,), how many lie below each.
    """

    paths: Paths
    folders: list[str]
    starts: np.ndarray
    counts: np.ndarray


def listing(root: Path, cache: Path | None) -> Listing:
    """What lies below `root`: from the index in the folder `cache`, or found out now and kept there.

    The index only saves time: where it cannot be read or written, all folders are looked through as if there were
    none. Links to folders are followed, each folder once; what is hidden, its name beginning with ".", is left out.
    """
    file = None if cache is None else _file(cache, root)
    if file is not None and (kept := _read(file, root)) is not None:
        return kept
    began = time.time()
    found, places = _look_through(root)
    times = None if file is None else _times(root, places)
    if file is not None and times is not None and times.max() < (began - SETTLED) * 1e9:
        _write(file, found, places, times)
    return found


def _look_through(root: Path) -> tuple[Listing, list[str]]:
    """The listing, and all folders, relative to `root`."""
    with os.scandir(root) as entries:
        tops = sorted((entry.name, entry.is_dir()) for entry in entries if not _is_hidden(entry.name))
    places, names, folders, starts, counts = [""], list[str](), list[str](), list[int](), list[int]()
    for top, is_folder in tops:
        if not is_folder:
            names += filter(_is_image, [top])
            continue
        below = dict(_walk(root, top))
        images = sorted((image for found in below.values() for image in found), key=lambda name: name.split(os.sep))
        folders.append(top)
        starts.append(len(names))
        counts.append(len(images))
        places += below
        names += images
    found = Listing(Paths.below(root, names), folders, np.array(starts, np.int64), np.array(counts, np.int64))
    return found, places


def _walk(root: Path, top: str) -> Iterator[tuple[str, list[str]]]:
    """Each folder from `top` downwards with its images, all relative to `root`."""
    seen = set()
    for folder, folders, files in os.walk(root / top, followlinks=True):
        about = os.stat(folder)
        if (about.st_dev, about.st_ino) in seen:  # a link leads back to it
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders[:] = [name for name in folders if not _is_hidden(name)]
        place = os.path.relpath(folder, root)
        yield place, [os.path.join(place, name) for name in files if _is_image(name)]


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _is_image(name: str) -> bool:
    return not _is_hidden(name) and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _times(root: Path, places: list[str]) -> np.ndarray | None:
    """When each of the folders last changed, in nanoseconds; None where one cannot be seen."""
    try:
        return np.array([os.stat(root / place).st_mtime_ns for place in places], np.int64)
    except OSError:
        return None


def _file(cache: Path, root: Path) -> Path:
    key = f"{VERSION}\0{root.resolve()}"
    return cache / f"index-{hashlib.sha256(os.fsencode(key)).hexdigest()}.npz"


def _read(file: Path, root: Path) -> Listing | None:
    try:
        with np.load(file, allow_pickle=False) as kept:  # a zip file, whose checksums show damage
            times = _times(root, ["", *_split(kept["places"])])
            if times is None or not np.array_equal(kept["times"], times):
                return None
            paths = Paths.joined(root, kept["text"], kept["ends"])
            return Listing(paths, _split(kept["folders"]), kept["starts"], kept["counts"])
    except Exception:  # missing or damaged in whatever way: it can be made again
        return None


def _write(file: Path, found: Listing, places: list[str], times: np.ndarray) -> None:
    arrays: dict[str, Any] = {"places": _joined(places[1:]), "times": times, "folders": _joined(found.folders)}
    arrays |= {"starts": found.starts, "counts": found.counts, "text": found.paths.text, "ends": found.paths.ends}
    keep(file, lambda stream: np.savez(stream, **arrays))


def _joined(names: list[str]) -> np.ndarray:
    return np.frombuffer(os.fsencode("\0".join(names)), np.uint8)


def _split(names: np.ndarray) -> list[str]:
    text = os.fsdecode(names.tobytes())
    return text.split("\0") if text else []
