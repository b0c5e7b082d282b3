"""Jobs on a real SLURM of one machine, where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import job_launcher

ROOT = Path(__file__).resolve().parent.parent
needs_slurm = pytest.mark.skipif(
    not (shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin") and os.geteuid() == 0),
    reason="no SLURM here: apt-get install slurm-wlm munge, as root",
)
QUICK = ("--set", "max_epochs=2", "num_tasks=2", "size=8", "disable_knn_eval=True", "checkpoint_every_n_steps=1")


@pytest.fixture(scope="module")
def real() -> Iterator[None]:
    """It runs, and SLURM_CONF says where."""
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))  # sockets have short paths
    setup = [str(ROOT / "tests" / "slurm" / "setup.sh"), str(folder)]
    try:
        subprocess.run(setup, check=True, timeout=120)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
            yield
    finally:
        subprocess.run([*setup, "stop"], check=True, timeout=60)
        shutil.rmtree(folder)


def launch(folder: Path, *flags: str) -> subprocess.Popen[str]:
    script = str(ROOT / "bash_files" / "quickstart_digits.sh")
    command = [sys.executable, job_launcher.__file__, "--script", script, *QUICK, *flags]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def submitted(folder: Path, *flags: str) -> str:
    """The number of a job."""
    launcher = launch(folder, "--mode", "slurm", "--partition", "all", *flags)
    printed = launcher.communicate(timeout=60)[0]
    (line,) = [line for line in printed.splitlines() if line.startswith("job ")]
    return line.split()[1].rstrip(":")


def of_job(number: str) -> str:
    return subprocess.run(["scontrol", "show", "job", number], capture_output=True, text=True, check=True).stdout


def until(condition: Callable[[], bool], number: str, output: Path, seconds: float = 400) -> None:
    """Wait for something that a job will do, while it lives."""
    end = time.monotonic() + seconds
    while not condition():
        failed = "JobState=FAILED" in of_job(number) and not condition()
        assert not failed and time.monotonic() < end, output.read_text() if output.exists() else of_job(number)
        time.sleep(0.2)


def begins_again(number: str, restarts: int, output: Path) -> None:
    """A job that was put back, which SLURM would let wait for two minutes.

    Within the second in which it ended, slurmd takes a new start for the one that was revoked.
    """
    until(lambda: f"Restarts={restarts} " in of_job(number) and "JobState=PENDING" in of_job(number), number, output)
    time.sleep(3)
    subprocess.run(["scontrol", "update", f"JobId={number}", "StartTime=now"], check=True)
    until(lambda: "JobState=RUNNING" in of_job(number), number, output)


def without_times(results: Any) -> Any:
    if isinstance(results, dict):
        return {key: without_times(value) for key, value in results.items() if "seconds" not in key}
    return results


@pytest.mark.slow
@pytest.mark.long
@needs_slurm
def test_a_job_that_is_put_back_twice_ends_as_one_that_was_not(real: None, tmp_path: Path) -> None:
    number = submitted(tmp_path, "--requeue", "--hours", "1", "--experiment_dir", "job")
    undisturbed = launch(tmp_path, "--experiment_dir", "plain", "--set", "gpus=0", "accelerator=cpu")
    folder = tmp_path / "experiments" / "job"
    output = folder / "output.txt"
    until(lambda: any((folder / "task0" / "progress").glob("step*.ckpt")), number, output)
    subprocess.run(["scontrol", "requeue", number], check=True)
    begins_again(number, 1, output)
    until(lambda: any((folder / "task1" / "progress").glob("step*.ckpt")), number, output)
    subprocess.run(["scancel", "--batch", "--signal=USR1", number], check=True)  # as before the limit
    begins_again(number, 2, output)
    until(lambda: "JobState=COMPLETED" in of_job(number), number, output)
    printed = undisturbed.communicate(timeout=400)[0]
    assert undisturbed.returncode == 0, printed
    found = [json.loads((tmp_path / "experiments" / name / "results.json").read_text()) for name in ("job", "plain")]
    assert found[0]["tasks_done"] == 2 and without_times(found[0]) == without_times(found[1])
    for task in ("task0", "task1"):
        assert json.loads((folder / task / "state.json").read_text())["starts"] == 2
    assert (folder / "launched.json").exists()


@pytest.mark.slow
@pytest.mark.long
@needs_slurm
def test_an_array_of_jobs_whose_tasks_share_each_step(real: None, tmp_path: Path) -> None:
    flags = ("--tasks", "2", "--array", "--seeds", "6", "7", "--set", "max_epochs=1", "num_tasks=1")
    number = submitted(tmp_path, *flags, "split_strategy=data", "--experiment_dir", "pair")
    array = tmp_path / "experiments" / "pair-array"
    until(lambda: of_job(number).count("JobState=COMPLETED") == 2, number, array / "output-0.txt")
    for place, seed in enumerate((6, 7)):
        folder = tmp_path / "experiments" / f"pair-seed{seed}"
        assert json.loads((folder / "experiment.json").read_text())["flags"]["devices"] == 2
        assert json.loads((folder / "results.json").read_text())["tasks_done"] == 1
        assert (array / f"output-{place}.txt").read_text().count("experiment folder:") == 1
