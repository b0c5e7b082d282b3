"""Images named by lists, one file for each domain and split: lines of a path and a class number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from kaizen.args import DataMissing, UsageError
from kaizen.data.images import FolderImages
from kaizen.data.paths import Paths


def domain_images(
    root: Path, domains: Sequence[str], split: str, num_classes: int, cache: Path | None = None
) -> FolderImages:
    """The images in `root`/<domain>_<split>.txt, domain after domain.

    A class is called like the folder of its first image, or else by its number.

    Args:
        root: folder of the lists, and where their paths begin.
        domains: whose lists are read.
        split: "train" or "test".
        num_classes: class numbers are below it.
        cache: folder where decoded images are kept.

    Raises:
        DataMissing: a list, or the first image in it, is not there.
        UsageError: naming the line that is not a path below `root` and a class number.
    """
    rows = [read_list(root, f"{domain}_{split}.txt", num_classes) for domain in domains]
    names = [str(number) for number in range(num_classes)]
    for path, label in reversed([row for part in rows for row in part]):
        names[label] = path.split("/")[-2] if "/" in path else names[label]
    return FolderImages(
        Paths.below(root, [path for part in rows for path, _ in part]),
        torch.tensor([label for part in rows for _, label in part]),
        names,
        torch.repeat_interleave(torch.arange(len(rows)), torch.tensor([len(part) for part in rows])),
        domains,
        cache,
    )


def read_list(root: Path, name: str, num_classes: int) -> list[tuple[str, int]]:
    """Paths relative to `root` and class numbers, in the order of the file."""
    file = root / name
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # as some editors begin a file
    except FileNotFoundError:
        raise DataMissing(f"--data_dir {root}: lacks the list {name}; put the published lists there") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"--data_dir {root}: {name} cannot be read ({error}); repair it") from None
    rows = [_row(line, f"{file}:{number}", num_classes) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise UsageError(f"--data_dir {root}: the list {name} is empty; put the published one there")
    if not (root / rows[0][0]).is_file():
        raise DataMissing(f"--data_dir {root}: lacks {rows[0][0]}, the first image of {name}; unpack the images there")
    return rows


def _row(line: str, place: str, num_classes: int) -> tuple[str, int]:
    words = line.rsplit(maxsplit=1)
    if len(words) != 2 or not words[1].isdecimal():
        raise UsageError(f"{place}: {line.strip()!r} is not a path and a class number; repair the line")
    path, number = words[0].strip(), words[1]
    if int(number) >= num_classes:
        raise UsageError(f"{place}: class {number} is not one of 0 to {num_classes - 1}; repair the line")
    if path.startswith("/") or ".." in path.split("/"):
        raise UsageError(f"{place}: {path} leads out of --data_dir; name an image below it")
    return path, int(number)
