"""Being asked to end: SIGTERM, SIGINT, and SIGHUP, when a terminal is closed or a connection lost."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def exit_status(code: int) -> int:
    """A child's return code as a shell has it: 128 + n where signal n, for which Popen has -n, has ended it."""
    return code if code >= 0 else 128 - code


@contextmanager
def handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Have all handled while the block runs, but for one that is ignored, as SIGINT is in a script's background."""
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, frame: object) -> None:
        if number == signal.SIGHUP:
            leave_closed_terminal()
        handler(number, frame)

    for number, old in before.items():
        if old != signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def leave_closed_terminal() -> None:
    """Let what is still said go nowhere where a terminal was closed, as writing to it would fail."""
    for output in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(output).st_mode) and not os.isatty(output):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, output)
                os.close(nowhere)
