"""Millions of paths in little memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

AT_ONCE = 50_000  # entries, of some megabytes


class Paths(Sequence[Path]):
    """Paths that share one array of bytes. An entry costs its length and 16 bytes; as a `Path`, some hundred.

    A part of them shares the bytes, too, and so does each process that was forked.
    """

    def __init__(self, root: Path, text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        """Entry i is `root` / text[starts[i]:ends[i]]; text: uint8; starts and ends: int64 (N,)."""
        self.root, self.text, self.starts, self.ends = root, text, starts, ends

    @classmethod
    def below(cls, root: Path, names: Iterable[str]) -> Paths:
        """`root` / name for each of the names."""
        encoded = [os.fsencode(name) for name in names]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        return cls.joined(root, np.frombuffer(b"".join(encoded), dtype=np.uint8), ends)

    @classmethod
    def joined(cls, root: Path, text: np.ndarray, ends: np.ndarray) -> Paths:
        """Entries that follow each other in the text without a gap."""
        return cls(root, text, np.concatenate([np.zeros(1, dtype=np.int64), ends[:-1]])[: len(ends)], ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> Paths: ...
    def __getitem__(self, index: int | slice) -> Path | Paths:
        if isinstance(index, slice):
            return Paths(self.root, self.text, self.starts[index], self.ends[index])
        return self.root / os.fsdecode(self.text[self.starts[index] : self.ends[index]].tobytes())

    def __iter__(self) -> Iterator[Path]:
        return (self[i] for i in range(len(self)))

    def names(self) -> Iterator[bytes]:
        """All entries below the root, joined without a gap, after their lengths; some thousand at a time."""
        for first in range(0, len(self), AT_ONCE):
            starts, ends = self.starts[first : first + AT_ONCE], self.ends[first : first + AT_ONCE]
            lengths = ends - starts
            places = np.repeat(starts - lengths.cumsum() + lengths, lengths) + np.arange(lengths.sum())
            yield lengths.astype(np.int64).tobytes() + self.text[places].tobytes()

    def select(self, indices: Tensor) -> Paths:
        """Those at the positions `indices`, int64 (M,)."""
        chosen = torch.as_tensor(indices).numpy()
        return Paths(self.root, self.text, self.starts[chosen], self.ends[chosen])
