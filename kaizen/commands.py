"""What the programs beside the training have in common, such as `python -m kaizen.predict`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TypeVar

from kaizen.args import UsageError, flags_of_fields, parse_values, printable
from kaizen.files import path_error

T = TypeVar("T")


def ask(kind: type[T], argv: list[str], usage: str) -> T:
    """Read a command line into a dataclass of flags; one whose default is "" must be given.

    Raises:
        UsageError: an unknown flag, a value that it cannot have, or a flag that is missing.
    """
    flags = flags_of_fields(kind)
    values = parse_values(argv, flags, usage)
    for item in flags:
        if item.default == "" and not values.get(item.name):
            raise UsageError(f"--{item.name}: is missing; {usage}")
    return kind(**values)


def status_of(run: Callable[[list[str]], None], argv: list[str]) -> int:
    """The exit status of a program: 0, or 2 for bad input, which is told in one line."""
    try:
        run(argv)
    except (UsageError, argparse.ArgumentError) as error:
        print(f"error: {reason_of(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {printable(path_error(error))}", file=sys.stderr)
        return 2
    return 0


def reason_of(error: Exception) -> str:
    """Its one line; where it comes from a loader process, that puts its traceback before it."""
    return str(error).splitlines()[-1].removeprefix("kaizen.args.UsageError: ")
