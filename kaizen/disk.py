"""A disk that is full or closed to us is told in one line; what was saved before stays whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kaizen.args import UsageError

CURES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space of your quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "make the disk writable",
}
LONGEST_NAME = 240  # bytes: a file that is being written has some more
DENIED = {errno.EACCES: "give yourself the right to write there", errno.EPERM: "allow to write there"}


def check_writable(flag: str, path: Path) -> None:
    """Raises UsageError where a file cannot be made, before anything is computed for it."""
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(f"{flag} {path}: there is no folder {folder}; make it, or name another file")
    if path.exists() and not path.is_file():
        raise UsageError(f"{flag} {path}: is {'a folder' if path.is_dir() else 'no regular file'}; name a file")
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise UsageError(f"{flag} {path.name[:20]}...: is too long; give a name of at most {LONGEST_NAME} bytes")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{flag} {path}: may not be written; give yourself the right to, or name another file")


@contextmanager
def disk_told(given: str, folder: Path) -> Iterator[None]:
    """Turn errors of writing into a folder into one line.

    Args:
        given: the flag and its value that go on in the folder.
        folder: of the experiment, or of an evaluation. That a right is lacking elsewhere is no matter of writing, and
            goes through.

    Raises:
        UsageError: the disk is full or closed to us.
    """
    try:
        yield
    except OSError as error:
        path = folder if error.filename is None else Path(os.fsdecode(error.filename))
        inside = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
        cure = CURES.get(error.errno or 0) or (DENIED.get(error.errno or 0) if inside else None)
        if cure is None:
            raise
        raise UsageError(
            f"{given}: cannot write {path} ({error.strerror}); what was saved before is whole; "
            f"{cure} and start the same command again, with {given}"
        ) from None
