"""Which images can be read: found out once and up front, so that every task and every resume has the same ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from kaizen.args import UsageError, one_line
from kaizen.data.cache import cached_faults
from kaizen.data.decoding import decode
from kaizen.data.images import FolderImages, ImageSet

CHUNK = 64  # files that a thread takes at once


@dataclass(frozen=True)
class Skipped:
    """Images that --skip_bad_images leaves out.

    Attributes:
        root: folder of the data.
        total: how many images there are, with those.
        faults: file -> why it cannot be read.
    """

    root: Path = Path()
    total: int = 0
    faults: dict[Path, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The files, below the folder of the data where they lie there."""
        return sorted(in_utf8(p.relative_to(self.root) if p.is_relative_to(self.root) else p) for p in self.faults)

    def tell(self) -> None:
        """Say how many are left out, where any are."""
        if self.faults:
            print(self, flush=True)

    def __str__(self) -> str:
        file, fault = min(self.faults.items())
        return f"skipped {len(self.faults)} of {self.total} images that cannot be read, e.g. {in_utf8(file)} ({fault})"


def in_utf8(path: Path) -> str:
    """A path as text that can be written, bytes that are none of UTF-8 as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def without_bad(train: ImageSet, test: ImageSet, root: Path) -> tuple[ImageSet, ImageSet, Skipped]:
    """Both image sets without the files that cannot be read. Each file is decoded for this, once for all times.

    Raises:
        UsageError: a class or a domain is left without images.
    """
    faults: dict[Path, str] = {}
    parts, sets = [], {"training": train, "test": test}
    for kind, images in sets.items():
        if isinstance(images, FolderImages):
            bad = find_bad(images.paths, images.cache, kind)
            faults |= {images.paths[i]: fault for i, fault in bad.items()}
            _refuse_empty(images, bad, kind)
            images = images.select(torch.tensor([i for i in range(len(images)) if i not in bad], dtype=torch.int64))
        parts.append(images)
    total = sum(len(images) for images in sets.values() if isinstance(images, FolderImages))
    return parts[0], parts[1], Skipped(root, total, faults)


def find_bad(paths: Sequence[Path], cache: Path | None, kind: str) -> dict[int, str]:
    """Positions of files that cannot be read -> why, from the cache where they have been read before."""
    chunks = [range(start, min(start + CHUNK, len(paths))) for start in range(0, len(paths), CHUNK)]

    def look(chunk: range) -> dict[int, Exception]:
        found = {i: _fault(paths[i]) for i in chunk}
        return {i: fault for i, fault in found.items() if fault is not None}

    def read_all() -> tuple[dict[int, str], bool]:
        print(f"--skip_bad_images: reading all {len(paths)} {kind} images once", flush=True)
        with ThreadPoolExecutor() as pool:  # the decoder releases the interpreter's lock
            faults = {i: fault for found in pool.map(look, chunks) for i, fault in found.items()}
        return {i: one_line(fault) for i, fault in faults.items()}, not any(map(_may_pass, faults.values()))

    return cached_faults(cache, paths, read_all)


def _fault(path: Path) -> Exception | None:
    try:
        decode(path)
    except Exception as error:  # in a damaged file a decoder may stumble over anything
        return error
    return None


def _may_pass(fault: Exception) -> bool:
    """Is it the system, and not the file's content: rights, a network, memory. The decoder's errors have no number."""
    return isinstance(fault, MemoryError) or (isinstance(fault, OSError) and fault.errno is not None)


def _refuse_empty(images: FolderImages, bad: dict[int, str], kind: str) -> None:
    """Raises UsageError where a class or a domain that has images has none left."""
    good = torch.tensor([i not in bad for i in range(len(images))], dtype=torch.bool)
    labels: list[tuple[str, Tensor, list[str]]] = [("class", images.targets, images.class_names)]
    if images.domains is not None:
        labels.append(("domain", images.domains, images.domain_names))
    for what, numbers, names in labels:
        for number in sorted({*numbers.tolist()} - {*numbers[good].tolist()}):
            i = int((numbers == number).nonzero()[0])
            who = f"{what} {names[number]} has" if number >= 0 else "there is"
            raise UsageError(
                f"--skip_bad_images: {who} no {kind} image left that can be read, e.g. {images.paths[i]} ({bad[i]}); "
                "repair some"
            )
