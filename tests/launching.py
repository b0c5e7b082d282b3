"""The launcher in a folder of its own, with stand-ins of main_continual.py."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import job_launcher

STAND_IN = """
import json, os, sys
print(json.dumps({"argv": sys.argv[1:], "marker": os.environ.get("MARKER"), "cwd": os.getcwd()}))
sys.exit(int(os.environ.get("EXIT_WITH", "0")))
"""
STARTED = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-")


class Place:
    """A folder with the launcher, a stand-in and one script; `start` runs the launcher there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.launcher = folder / "code" / "job_launcher.py"
        own = Path(job_launcher.__file__)
        (self.launcher.parent / "kaizen").mkdir(parents=True)
        shutil.copy(own, self.launcher)
        parts = (
            "__init__",
            "args",
            "bash_script",
            "files",
            "jobs",
            "lock",
            "processes",
            "recipe",
            "relay",
            "signals",
            "slots",
            "slurm",
        )
        for name in parts:
            shutil.copy(own.parent / "kaizen" / f"{name}.py", self.launcher.parent / "kaizen")
        self.stand_in(STAND_IN)
        self.script("python3 main_continual.py --lars\n")

    @property
    def experiments(self) -> list[str]:
        base = self.folder / "experiments"
        return sorted(path.name for path in base.iterdir()) if base.exists() else []

    def stand_in(self, code: str) -> None:
        self.launcher.with_name("main_continual.py").write_text(code)

    def script(self, text: str) -> None:
        (self.folder / "X.sh").write_bytes(text.encode())

    def command(self, *flags: str) -> list[str]:
        return [sys.executable, str(self.launcher), *flags]

    def start(self, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
        given = flags if "--script" in flags else ("--script", "X.sh", *flags)
        env = os.environ | environment
        return subprocess.run(
            self.command(*given), cwd=self.folder, env=env, capture_output=True, text=True, timeout=60
        )

    def argv(self, *flags: str, **environment: str) -> list[str]:
        done = self.start(*flags, **environment)
        assert done.returncode == 0, done.stderr
        argv: list[str] = json.loads(done.stdout.splitlines()[-1])["argv"]
        return argv


WAITS = """
import signal, sys, time
def stop(number, frame):
    print("got", number, flush=True)
    time.sleep(0.3)
    print("saved", flush=True)
    sys.exit(7)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGHUP, stop)
print("ready", flush=True)
time.sleep(60)
"""


STARTS_ONE_THAT_WAITS = f"""
import signal, subprocess, sys
with subprocess.Popen([sys.executable, "-c", {WAITS!r}]) as process:
    signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    signal.signal(signal.SIGINT, lambda number, _: None)
    sys.exit(process.wait())
"""


def interrupt(place: Place, stand_in: str, send: Callable[[int], None], *flags: str) -> tuple[int, list[str]]:
    place.stand_in(stand_in)
    child = subprocess.Popen(
        place.command("--script", "X.sh", *flags),
        cwd=place.folder,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout
    lines = iter(child.stdout.readline, "")
    assert any(line == "ready\n" for line in lines)
    send(child.pid)
    rest = [line.strip() for line in lines]
    return child.wait(timeout=60), rest
