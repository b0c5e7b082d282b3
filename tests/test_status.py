from __future__ import annotations

from pathlib import Path

import pytest
from helpers import args_of

import main_continual
from kaizen.cli import flags_of
from kaizen.experiment import Experiment
from kaizen.lock import held
from kaizen.states import begin, end

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """Five tasks: one done, one failed, the others not begun."""
    tasks = [[0], [1], [2], [3], [4]]
    made = Experiment.start(tmp_path / "run", flags_of(args_of("--num_tasks", "5")), tasks, list("abcde"))
    finish(made, 0)
    fail(made, 1, 1)
    return made


def finish(experiment: Experiment, task: int) -> None:
    state = begin(experiment.make_task_folder(task), 1, {})
    experiment.finish_task(task, {"knn": [0.5, 0.25, 0.5, 0.75, 0], "classifier": [0.125] * 5}, None, 1.0)
    experiment.checkpoint(task).write_bytes(b"")
    end(experiment.task_folder(task), state, 0)


def fail(experiment: Experiment, task: int, status: int) -> None:
    end(experiment.task_folder(task), begin(experiment.make_task_folder(task), 1, {}), status)


def said(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The words of the lines of --status, which changes nothing."""
    before = {path: path.stat().st_mtime_ns for path in experiment.folder.rglob("*")}
    assert main_continual.main(["--status", str(experiment.folder)]) == 0
    out, error = capsys.readouterr()
    assert error == "" and {path: path.stat().st_mtime_ns for path in experiment.folder.rglob("*")} == before
    assert all(len(line) <= 80 for line in out.splitlines()[1:-1])
    return [line.split() for line in out.splitlines()]


def names(lines: list[list[str]]) -> list[str]:
    """What became of the tasks, as the first table says."""
    rows = [line for line in lines if line and line[0].isdigit()]
    return [" ".join(line[1:3]) if line[1] in ("not", "no") else line[1] for line in rows]


def test_a_table_of_the_tasks_and_what_comes_next(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(experiment, capsys)
    assert names(lines) == ["done", "failed", *["not begun"] * 3]
    assert next(line for line in lines if line[:1] == ["1"])[:3] == ["1", "failed", "(1)"]
    assert next(line for line in lines if line[:1] == ["0"])[-3:] == ["0:00:00", "1", "1"]
    assert ["after", "knn", "classifier"] in lines and ["task", "0", "0.500", "0.125"] in lines
    assert " ".join(lines[-1]) == "next start: takes up task 1 of 5 (failed)"
    finish(experiment, 1)
    lines = said(experiment, capsys)
    assert ["task", "1", "0.375", "0.125"] in lines  # over the two tasks seen
    assert " ".join(lines[-1]) == "next start: begins task 2 of 5 (not begun)"
    fail(experiment, 2, 143)
    assert ["2", "interrupted", "(143)"] in [line[:3] for line in said(experiment, capsys)]
    for task in (2, 3, 4):
        finish(experiment, task)
    assert " ".join(said(experiment, capsys)[-1]) == "next start: nothing is left to train; it shows the results"


def test_running_or_killed_is_told_by_the_lock(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    begin(experiment.make_task_folder(1), 1, {})
    with held(experiment.folder):
        lines = said(experiment, capsys)
    assert names(lines)[1] == "running" and lines[-1][:4] == ["in", "use", "by", "process"]
    lines = said(experiment, capsys)
    assert names(lines)[1] == "interrupted"
    assert next(line for line in lines if line[:1] == ["1"])[-2:] == ["2", "1"]  # starts, epochs
    assert " ".join(lines[-1]) == "next start: takes up task 1 of 5 (interrupted)"


def test_what_a_start_would_refuse(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    finish(experiment, 2)
    assert " ".join(said(experiment, capsys)[-1]).startswith("next start: is refused; --task_idx 0: would train task 1")


def test_a_task_without_a_model(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    experiment.checkpoint(0).unlink()
    assert names(said(experiment, capsys))[0] == "no checkpoint"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"null", b'{"heads": 3}', b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("file", ["task0/accuracy.json", "task0/state.json", "task1/state.json", ".lock"])
def test_damaged_files_are_called_so(
    experiment: Experiment, capsys: pytest.CaptureFixture[str], file: str, content: bytes
) -> None:
    (experiment.folder / file).write_bytes(content)
    lines = said(experiment, capsys)
    assert ("damaged" in " ".join(word for line in lines[1:] for word in line)) is (file != ".lock")
    if file.endswith("accuracy.json"):
        assert f"ends with an error; {experiment.folder / file} is damaged" in " ".join(lines[-1])
    if file.endswith("state.json"):
        assert names(lines)[int(file[4])] == "damaged"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"flags": {"num_tasks": "x"}}', b"[" * 100_000])
def test_a_damaged_experiment_still_shows_its_tasks(
    experiment: Experiment, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (experiment.folder / "experiment.json").write_bytes(content)
    lines = said(experiment, capsys)
    assert names(lines) == ["done", "failed"]
    assert "is refused; experiment.json is damaged" in " ".join(lines[-1])


@pytest.mark.parametrize("given", ["", "none", ".", "..", "a\0b", "a\nb", "x" * 5000, "\x1b[2J", "file"])
def test_what_is_no_experiment_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main_continual.main(["--status", given]) == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1) and error.startswith(("error: --status ", "error: '--status' "))
    assert error[:-1].isprintable() and len(error) < 250


def test_the_flag_is_one_like_the_others(capsys: pytest.CaptureFixture[str], experiment: Experiment) -> None:
    with pytest.raises(SystemExit):
        main_continual.main(["--help"])
    assert "--status" in capsys.readouterr().out
    for wrong, word in (
        (["--statsu", "x"], "--status?"),
        (["--status"], "argument"),
        (["--status", "a", "--lrr", "1"], "--lr?"),
    ):
        assert main_continual.main(wrong) == 2
        assert word in capsys.readouterr().err
    assert main_continual.main(["--status", str(experiment.folder), "--dataset", "digits"]) == 0
    assert "status" not in experiment.flags
