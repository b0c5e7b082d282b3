"""Commands, one after the other or some at a time, which hear of the signals that ask for an end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from kaizen.signals import SIGNALS, exit_status, leave_closed_terminal

Child = subprocess.Popen[bytes]
PAUSE = 0.1  # seconds between looks at several children


class Relay:
    """Starts commands, waits for them, and passes on the signals that ask for an end.

    SIGTERM goes to each child, SIGINT and SIGHUP to its whole process group, as a terminal does; the groups are their
    own, so that Ctrl-C in a terminal arrives once, through here. What arrived is in `received`.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        self.children: list[Child] = []
        self._early: list[int] = []  # while there is no child to tell, or one is just being started
        self._starting = False
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup goes on protecting
                signal.signal(number, self._receive)

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run a command to its end, alone, and return its exit code."""
        self.start(command, environment)
        return self.wait()[1]

    def start(self, command: Sequence[str], environment: Mapping[str, str], output: Path | None = None) -> Child:
        """Start a command.

        Args:
            command: program and arguments.
            environment: that it sees.
            output: a file for what it prints, after what is in it; None: it prints where this process does.
        """
        self._starting = True
        try:
            if output is None:
                child = subprocess.Popen(command, env=environment, start_new_session=True)
            else:
                with output.open("ab") as file:
                    child = subprocess.Popen(
                        command, env=environment, start_new_session=True, stdout=file, stderr=subprocess.STDOUT
                    )
            self.children.append(child)
        finally:
            self._starting = False
        while self._early:
            self._tell(self._early.pop(0))
        return child

    def wait(self) -> tuple[Child, int]:
        """Wait until a child ends; its exit code, which is 128 + N where signal N killed it, as in a shell."""
        while (ended := self.look()) is None:
            if len(self.children) == 1:
                self.children[0].wait()
            else:
                time.sleep(PAUSE)
        return ended

    def look(self) -> tuple[Child, int] | None:
        """A child that has ended, as `wait` tells of it; None where none has."""
        for child in self.children:
            if (code := child.poll()) is not None:
                self.children.remove(child)
                return child, exit_status(code)
        return None

    def _receive(self, number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            leave_closed_terminal()
        self.received.append(number)
        if self._starting or not self.children:
            self._early.append(number)
        else:
            self._tell(number)

    def _tell(self, number: int) -> None:
        for child in self.children:
            if number == signal.SIGTERM:
                child.send_signal(number)
            elif child.poll() is None:
                os.killpg(child.pid, number)
