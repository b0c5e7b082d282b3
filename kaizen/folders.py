"""Where an experiment's folder is, and what it may be called."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from kaizen.args import UsageError, shorten

LONGEST_NAME = 255  # bytes, of a folder on all common disks
LONGEST_TITLE = 50  # characters, of up to four bytes each


def make_folder(folder: Path) -> None:
    """Make an experiment's folder if need be. Raises UsageError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--base_experiment_dir {folder.parent}: cannot make {folder} ({error.strerror}); name another folder"
        ) from None


def experiment_folder(base: str, name: str | None, title: str) -> Path:
    """BASE/NAME, or a new BASE/<time>-<title>.

    Raises:
        UsageError: the name leads out of the base folder, also through a link, or is none that a folder can have.
    """
    _check_name("base_experiment_dir", base)
    root = Path(base)
    if name is None:
        safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in title[:LONGEST_TITLE])
        return root / f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{safe}"
    _check_name("experiment_dir", name)
    for folder in (root / name, Path(name)):  # the second: a path as the shell completes it
        if folder.resolve().parent == root.resolve():
            return root / folder.resolve().name
    raise UsageError(f"--experiment_dir {name}: is not directly below --base_experiment_dir {base}; give a plain name")


def task_folder(folder: Path, task_idx: int) -> Path:
    """Where everything of one task of an experiment lies."""
    return folder / f"task{task_idx}"


def _check_name(flag: str, path: str) -> None:
    """Refuse what no folder can be called, or what would break the lines in which it is told."""
    if not path.isprintable():
        raise UsageError(f"--{flag} {shorten(ascii(path))}: has characters that cannot be printed; give a plain name")
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in Path(path).parts):
        raise UsageError(f"--{flag} {shorten(path)}: is longer than {LONGEST_NAME} bytes; give a shorter name")
