"""One run at a time in an experiment's folder: a lock that the system lifts when the last of its holders ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kaizen.args import UsageError
from kaizen.files import read_json

LOCK = ".lock"
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
PATIENCE = 0.2  # seconds: a look at the lock holds it for an instant, and must not turn a start away


@dataclass(frozen=True)
class Lock:
    """A lock that is held. It goes with the open file: a process that inherits the descriptor holds it too."""

    descriptor: int

    def note(self, task_process: int | None = None) -> None:
        """Write down who holds it: this process, and the one that trains a task."""
        owner = {"process": os.getpid(), "task_process": task_process, "host": socket.gethostname()}
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, json.dumps(owner).encode(), 0)


@contextmanager
def held(folder: Path) -> Iterator[Lock | None]:
    """Hold the lock of an experiment's folder, which exists; None, with a warning, on a disk that knows no locks.

    Raises:
        UsageError: another run holds it.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        free = _take(descriptor, fcntl.LOCK_EX)
        if free is False:
            time.sleep(PATIENCE)
            free = _take(descriptor, fcntl.LOCK_EX)
        if free is False:
            raise UsageError(
                f"--experiment_dir {folder.name}: {folder} is in use by {owner(folder)}; wait until that run is over, "
                "end it, or use another folder"
            )
        if free is None:
            print(f"warning: {folder} is on a disk without locks; let no second run use it at the same time")
            yield None
            return
        lock = Lock(descriptor)
        lock.note()
        yield lock
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def in_use(folder: Path) -> bool | None:
    """Does a run hold the lock of a folder, of which nothing is changed; None where that cannot be known."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        free = _take(descriptor, fcntl.LOCK_SH)  # several may look at once
    finally:
        os.close(descriptor)
    return None if free is None else not free


def owner(folder: Path) -> str:
    """Who holds the lock of a folder, as it stands there."""
    try:
        found = read_json(folder / LOCK)
        task = f" (its task: process {int(found['task_process'])})" if found["task_process"] else ""
        return f"process {int(found['process'])}{task} on {str(found['host'])!r}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _take(descriptor: int, kind: int) -> bool | None:
    """True: taken; False: others hold it; None: the disk knows no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return None
        raise
    return True
