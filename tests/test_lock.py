"""One run at a time, as the processes of a run see it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import wait_for

import main_continual
from kaizen.args import UsageError
from kaizen.lock import held, in_use, owner
from kaizen.states import read_state

FLAGS = [
    *("--dataset", "digits", "--size", "8", "--num_tasks", "2", "--max_epochs", "1", "--batch_size", "64"),
    *("--method", "simclr", "--proj_hidden_dim", "8", "--output_dim", "6"),
    *("--encoder", "resnet9", "--encoder_width", "0.25", "--experiment_dir", "run"),
]


def test_a_second_holder_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    assert in_use(tmp_path) is False
    with held(tmp_path) as lock:
        assert lock is not None and in_use(tmp_path) is True
        with pytest.raises(UsageError) as refused, held(tmp_path):
            pass
        message = str(refused.value)
        assert message.startswith(
            f"--experiment_dir {tmp_path.name}: {tmp_path} is in use by process {os.getpid()} on "
        )
        assert socket.gethostname() in message and "wait until that run is over" in message
        lock.note(4321)
        assert f"process {os.getpid()} (its task: process 4321) on " in owner(tmp_path)
        lock.note()
        assert "task" not in owner(tmp_path)
    assert in_use(tmp_path) is False and (tmp_path / ".lock").read_bytes() == b""
    with held(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"process": "x\\ny", "task_process": 0, "host": "h"}'])
def test_an_owner_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    (tmp_path / ".lock").write_text(content)
    assert owner(tmp_path) == "another process"


def test_looking_never_turns_a_start_away(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from kaizen.lock import in_use
print("ready", flush=True)
while True:
    in_use(Path({str(tmp_path)!r}))
"""
    with held(tmp_path):
        pass
    with subprocess.Popen([sys.executable, "-c", code], cwd=main_continual.ROOT, stdout=subprocess.PIPE) as looking:
        assert looking.stdout is not None and looking.stdout.readline() == b"ready\n"
        for _ in range(20):
            with held(tmp_path):
                pass
        looking.kill()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_disk_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with held(tmp_path) as lock:
        assert lock is None
    assert capsys.readouterr().out.startswith("warning: ") and in_use(tmp_path) is None


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Path]:
    """In the place of Python, a program that writes down its process id and sleeps as long as nobody ends it."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/.pid && mv {tmp_path}/.pid {tmp_path}/pid\nexec sleep 100\n")
    program.chmod(0o755)
    yield program
    with suppress(OSError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_a_task_that_outlives_its_killed_chain_keeps_the_lock(
    tmp_path: Path, sleeper: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, pid = Path("experiments/run"), tmp_path / "pid"
    code = f"import sys, main_continual; sys.executable = {str(sleeper)!r}; sys.exit(main_continual.main({FLAGS}))"
    environment = {**os.environ, "PYTHONPATH": str(main_continual.ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL) as chain:
        wait_for(pid.exists)
        wait_for(lambda: "its task" in owner(folder))
        task = int(pid.read_text())
        before = files(folder)
        for killed in (False, True):
            if killed:
                chain.kill()
                chain.wait()
            assert main_continual.main(FLAGS) == 2
            error = capsys.readouterr().err
            assert error.count("\n") == 1
            assert f"is in use by process {chain.pid} (its task: process {task}) on " in error
            assert main_continual.main(["--status", str(folder)]) == 0
            out = capsys.readouterr().out
            assert " running " in out and f"in use by process {chain.pid}" in out
        assert files(folder) == before
    os.kill(task, signal.SIGKILL)
    wait_for(lambda: in_use(folder) is False)
    assert main_continual.main(["--status", str(folder)]) == 0
    out = capsys.readouterr().out
    assert " interrupted " in out and "next start: takes up task 0 of 2 (interrupted)" in out
    assert files(folder) == before

    sleeper.write_text("#!/bin/sh\nkill -TERM $$\n")
    monkeypatch.setattr(sys, "executable", str(sleeper))
    assert main_continual.main(FLAGS) == 143
    state = read_state(folder / "task0")
    assert state is not None and (state.state, state.exit_status, state.starts) == ("interrupted", 143, 2)
    assert in_use(folder) is False
