"""A disk that is full, closed or limited: one line, exit status 2, and what was saved stays whole."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from test_lock import FLAGS

from kaizen.args import UsageError
from kaizen.disk import check_writable, disk_told
from kaizen.experiment import Experiment
from kaizen.files import atomic_path, read_json, write_json
from main_continual import ROOT

CONTINUAL = [sys.executable, str(ROOT / "main_continual.py"), *FLAGS]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM])
def test_an_error_of_the_disk_is_one_line(tmp_path: Path, number: int) -> None:
    with pytest.raises(UsageError) as told, disk_told("--experiment_dir run", tmp_path), atomic_path(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    message = str(told.value)
    assert message.startswith(f"--experiment_dir run: cannot write {tmp_path / 'a'} ({os.strerror(number)}); ")
    assert "\n" not in message and message.endswith("start the same command again, with --experiment_dir run")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_go_their_way(tmp_path: Path) -> None:
    for error in (
        *(FileNotFoundError(errno.ENOENT, "no", "x"), ValueError("x"), OSError("without a number")),
        PermissionError(errno.EACCES, "no right", "/elsewhere/image.png"),
        PermissionError(errno.EACCES, "no right", str(tmp_path) + "-other/image.png"),
    ):
        with pytest.raises(type(error)) as found, disk_told("--experiment_dir run", tmp_path):
            raise error
        assert found.value is error


def start(place: Path, *more: str, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """Start the experiment; no file may become larger than `limit` bytes."""

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*CONTINUAL, *more]
    return subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, timeout=280, preexec_fn=limited
    )


@pytest.mark.slow
def test_a_task_that_cannot_save_its_model_is_taken_up_when_it_can(tmp_path: Path) -> None:
    done = start(tmp_path, "--num_tasks", "1", limit=20_000)
    folder = tmp_path / "experiments" / "run"
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if "font_manager" not in line]  # matplotlib has a cache too
    assert len(lines) == 2, done.stderr
    told, stopped = lines
    checkpoint = Path("experiments/run/task0/final.ckpt")
    assert told.startswith(f"error: --experiment_dir run: cannot write {checkpoint} (File too large); what was saved")
    assert stopped.startswith("task 0 stopped with exit status 2")
    assert not (tmp_path / checkpoint).exists() and not list(folder.rglob("*.tmp"))
    state = read_json(folder / "task0" / "state.json")
    assert (state["state"], state["exit_status"], state["starts"]) == ("failed", 2, 1)

    done = start(tmp_path, "--num_tasks", "1")
    assert (done.returncode, done.stderr) == (0, "")
    state = read_json(folder / "task0" / "state.json")
    assert (state["state"], state["starts"]) == ("done", 2)
    assert read_json(folder / "results.json")["tasks_done"] == 1
    assert len(list((folder / "plots").iterdir())) == 4


def test_a_full_disk_changes_nothing_that_is_there(tmp_path: Path) -> None:
    """A small file system of its own, where the system lets us mount one."""
    script = """
set -e
mount -t tmpfs -o size=64k,nr_inodes=100 none "$1" && echo mounted
cd "$1"; shift
mkdir -p experiments/run; echo '{' > experiments/run/kept
head -c 1000000 /dev/zero > filler 2> /dev/null || true
"$@" || echo status $?
ls -A experiments/run
"""
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), *CONTINUAL],
        **{"capture_output": True, "text": True, "timeout": 280, "env": {**os.environ, "OMP_NUM_THREADS": "1"}},
    )
    if not done.stdout.startswith("mounted"):
        pytest.skip("file systems may not be mounted here")
    assert done.stdout.splitlines()[1:] == ["status 2", ".lock", "kept"]
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --experiment_dir run: cannot write experiments/run")
    assert "(No space left on device); what was saved before is whole; free some space and start the same" in line


def test_a_file_keeps_its_old_content_on_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"old": 1})
    code = f"""
import resource
from pathlib import Path
from kaizen.files import write_json
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
write_json(Path({str(path)!r}), {{"new": "x" * 1000}})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and f"[Errno {errno.EFBIG}] File too large: '{path}'" in done.stderr
    assert read_json(path) == {"old": 1} and list(tmp_path.iterdir()) == [path]


def test_a_plot_that_was_not_drawn_is_made_up_for(tmp_path: Path) -> None:
    from kaizen.report import draw_plots

    head = {"accuracy_matrix": [[0.5]], "baseline": None}
    results = {"heads": {"knn": head, "online": head}, "task_names": ["a"]}
    draw_plots(results, tmp_path)
    drawn = {path: path.stat().st_mtime_ns for path in (tmp_path / "plots").iterdir()}
    lost = tmp_path / "plots" / "accuracy_over_tasks_online.png"
    lost.unlink()
    draw_plots(results, tmp_path, missing_only=True)
    now = {path: path.stat().st_mtime_ns for path in (tmp_path / "plots").iterdir()}
    assert lost in now and {path for path in drawn if drawn[path] != now[path]} == {lost}


def test_an_experiment_in_a_place_that_is_closed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--base_experiment_dir .*: cannot make .* name another folder"):
        Experiment.start(tmp_path / "file" / "run", {"task_idx": 0, "num_tasks": 1}, [[0]], ["a"])


def test_a_file_that_cannot_be_made_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable("--out", tmp_path / "x.csv")
    check_writable("--out", Path("x.csv"))
    with pytest.raises(UsageError, match="is too long"):
        check_writable("--out", tmp_path / ("x" * 250))
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for path, problem in (
        (tmp_path, "is a folder"),
        (tmp_path / "a" / "b", "no folder"),
        (tmp_path / "file" / "b", "no folder"),
        (tmp_path / "pipe", "no regular file"),
    ):
        with pytest.raises(UsageError, match=f"--out {path}: .*{problem}"):
            check_writable("--out", path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root, who may write anywhere
    with pytest.raises(UsageError, match="may not be written"):
        check_writable("--out", tmp_path / "x.csv")
