"""A study of real runs, through failures: whatever happened, the same command completes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import wait_for
from torture import processes_of

import job_launcher
from kaizen.files import read_json

ROOT = Path(job_launcher.__file__).parent
SEEDS = (5, 6, 7)
SHORT = ("max_epochs=2", "num_tasks=2", "size=8", "disable_knn_eval=True", "accelerator=cpu", "gpus=0")


def recipe(folder: Path, name: str, method: str) -> None:
    text = (ROOT / "bash_files" / "quickstart_digits.sh").read_text()
    (folder / name).write_text(text.replace("--method mocov2plus", f"--method {method}"))


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, job_launcher.__file__, "--script", "A.sh", "B.sh", "--seeds", *map(str, SEEDS)]
    command += ["--slots", "2", "--experiment_dir", "study", "--set", *SHORT]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
@pytest.mark.long
def test_a_study_with_a_run_and_the_launcher_killed_is_completed_by_the_same_command(tmp_path: Path) -> None:
    recipe(tmp_path, "A.sh", "mocov2plus")
    recipe(tmp_path, "B.sh", "simclr")
    folders = {
        f"{name}-seed{seed}": tmp_path / "experiments" / f"study-{name}-seed{seed}" for name in "AB" for seed in SEEDS
    }
    launcher = start(tmp_path)
    unlucky = folders["B-seed5"] / "task0"
    wait_for(lambda: bool(processes_of(unlucky.parent)) and unlucky.exists(), 300)
    for process in processes_of(unlucky.parent):
        os.kill(process, signal.SIGKILL)
    # The other recipe's runs go on, and the next one begins.
    wait_for(lambda: (folders["A-seed5"] / "launched.json").exists() and bool(processes_of(folders["A-seed6"])), 300)
    launcher.kill()
    launcher.wait()
    assert processes_of(folders["A-seed6"]), "its runs do not die with the launcher"
    again = start(tmp_path)
    printed = again.communicate(timeout=600)[0]
    assert again.returncode == 0, printed
    assert f"{Path('experiments', 'study-A-seed6')} is in use by" in printed and "A-seed5 is done" in printed
    for folder in folders.values():
        results = read_json(folder / "results.json")
        assert results["tasks_done"] == results["num_tasks"] == 2, folder
    starts = {name: read_json(folder / "task1" / "state.json")["starts"] for name, folder in folders.items()}
    assert starts == dict.fromkeys(folders, 1)  # nothing was done twice
    rows = (tmp_path / "experiments" / "study-comparison" / "runs.csv").read_text().splitlines()
    assert {name for name in folders if any(f"study-{name}" in row for row in rows)} == set(folders)
