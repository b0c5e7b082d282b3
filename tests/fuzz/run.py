"""The long search for inputs that end in anything but the right result or one clear line.

python tests/fuzz/run.py --command_lines 2000 --files 200 [--seed N]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "fuzz")]

from checks import Folder, check_command_line, check_script, reproducible  # noqa: E402
from generators import command_lines, damaged_bytes, damaged_json, scripts  # noqa: E402
from helpers import tiny_encoder  # noqa: E402
from hypothesis import HealthCheck, given, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from kaizen.models.encoders import ENCODERS  # noqa: E402

PROCESSES = 40  # each takes some seconds


def search(kind: str, cases: st.SearchStrategy[Any], check: Callable[[Any], None], count: int, start: int) -> None:
    """Try `count` cases, print how many ended well, and leave with status 1 at the first that does not."""
    tried = 0

    @seed(start)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(cases)
    def look(case: Any) -> None:
        nonlocal tried
        tried += 1
        check(case)

    try:
        look()
    except AssertionError as error:
        print(f"{kind}: violated after {tried}: {error}")
        sys.exit(1)
    print(f"{kind}: {tried} tried, {tried} ended well", flush=True)


@reproducible
def check_process(argv: list[str]) -> None:
    """The program ends with 0, or with 2 and one line."""
    command = [sys.executable, str(ROOT / "main_continual.py"), *argv, "--dry_run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        ended = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", timeout=120
        )
        assert os.listdir(folder) == [], "a dry run wrote files"
    assert ended.returncode in (0, 2), f"exit status {ended.returncode}: {ended.stderr[-500:]}"
    if ended.returncode == 2:
        assert ended.stderr.startswith("error: ") and len(ended.stderr.splitlines()) == 1, ended.stderr[-500:]


def main() -> None:
    """Read the flags and search each kind in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command_lines", type=int, default=2000, help="command lines, and as many scripts")
    parser.add_argument("--files", type=int, default=200, help="damaged JSON files, and as many checkpoints")
    parser.add_argument("--processes", type=int, default=PROCESSES, help="command lines for a program of their own")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    ENCODERS["tiny"] = tiny_encoder
    search("command lines", command_lines(), check_command_line, asked.command_lines, asked.seed)
    search("scripts", scripts(), check_script, asked.command_lines, asked.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Folder(Path(place))
        damaged = st.sampled_from(sorted(folder.whole)).flatmap(
            lambda path: st.tuples(st.just(path), damaged_json(json.loads(folder.whole[path])))
        )
        with contextlib.redirect_stdout(io.StringIO()):
            for use in folder.uses():  # what the first use imports takes its time
                use()
        search("JSON files", damaged, lambda case: folder.check_json(*case), asked.files, asked.seed)
        search("checkpoints", damaged_bytes(folder.checkpoint), folder.check_checkpoint, asked.files, asked.seed)
    passable = command_lines().filter(lambda argv: all("\0" not in word for word in argv))
    if asked.processes:
        search("processes", passable, check_process, asked.processes, asked.seed)


if __name__ == "__main__":
    main()
