"""`python -m kaizen.page FOLDER`: write the report of an experiment's folder."""

from __future__ import annotations

import sys
from pathlib import Path

from kaizen.args import UsageError, shorten
from kaizen.page.report import write_report

USAGE = "python -m kaizen.page FOLDER: writes FOLDER/report.html, of an experiment's folder"


def main(argv: list[str]) -> int:
    """Returns the exit status: 0, or 2 for bad input, with one line."""
    if argv in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    try:
        if len(argv) != 1 or argv[0].startswith("-"):
            raise UsageError(f"give one folder; {USAGE}")
        if not argv[0].isprintable():
            raise UsageError(f"{shorten(ascii(argv[0]))}: cannot be printed; give an experiment's folder")
        print(f"open {write_report(Path(argv[0]))}")
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {argv[0]}: report.html cannot be written ({error.strerror})", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
