"""Commands run one after the other, which hear of the signals that ask for an end."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence


class Relay:
    """Runs one command after the other and passes on the signals that ask for an end.

    SIGTERM goes to the child, SIGINT and SIGHUP to its whole process group, as a terminal does; the group is its
    own, so that Ctrl-C in a terminal arrives once, through here. What arrived is in `received`.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        self._early: list[int] = []  # while there is no child to tell
        self._child: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup goes on protecting
                signal.signal(number, self._receive)

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run a command to its end and return its exit code; killed by signal N it is 128 + N, as in a shell."""
        self._child = subprocess.Popen(command, env=environment, start_new_session=True)
        for number in self._early:
            self._pass_on(self._child, number)
        code = self._child.wait()
        self._child = None
        return code if code >= 0 else 128 - code

    def _receive(self, number: int, _frame: object) -> None:
        self.received.append(number)
        if self._child is None:
            self._early.append(number)
        else:
            self._pass_on(self._child, number)

    def _pass_on(self, child: subprocess.Popen[bytes], number: int) -> None:
        if number == signal.SIGTERM:
            child.send_signal(number)
        elif child.poll() is None:
            os.killpg(child.pid, number)
