"""From a bash script to results, in processes of their own as users run it."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import args_of, class_folders, command_line

import main_continual
from kaizen.bash_script import Script, parse_script
from kaizen.building import build_learner
from kaizen.checkpoint import save_task
from kaizen.cli import flags_of, read_args
from kaizen.experiment import Experiment
from kaizen.files import read_json, write_json
from kaizen.metrics import METRICS, summarize
from kaizen.saving import Saved
from kaizen.states import read_state
from main_continual import ROOT, chain, environment_of, run_process

HEADS = ["classifier", "online", "momentum_online", "knn"]
SCRIPT = """#!/usr/bin/env bash
# Two tasks of digits with everything on.
EPOCHS=${EPOCHS:-2}

python3 main_continual.py \\
    --name "digits, tiny" \\
    --dataset digits --num_tasks 2 --size 8 \\
    --method mocov2plus --encoder resnet9 --encoder_width 0.25 \\
    --proj_hidden_dim 16 --output_dim 8 --queue_size 64 \\
    --batch_size 128 --max_epochs $EPOCHS \\
    --lr 0.4 --classifier_lr 0.1 --lars --eta_lars 0.02 --exclude_bias_n_norm \\
    --scheduler warmup_cosine --warmup_epochs 1 \\
    --replay --replay_proportion 0.05 --replay_batch_size 16 \\
    --distiller contrastive --feature_extractor_distill_proj_hidden_dim 16 \\
    --distiller_classifier soft_label --classifier_distill_proj_hidden_dim 16 --classifier_distill_lamb 2 \\
    --online_evaluation --online_eval_batchnorm frozen --momentum_classifier \\
    --log_every_n_steps 2 --wandb --offline
"""
STEPS = 5  # of an epoch: 727 or 715 images in batches of 128


def environment() -> dict[str, str]:
    """This one, without anybody's WandB settings."""
    quiet = {"OMP_NUM_THREADS": "1", "WANDB_SILENT": "true"}
    return {name: value for name, value in os.environ.items() if not name.startswith("WANDB")} | quiet


def complaints(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What was said on stderr, but for WandB's opinions."""
    return [line for line in done.stderr.splitlines() if not line.startswith("wandb: ")]


def start(place: Path, program: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / program), *args]
    return subprocess.run(command, cwd=place, env=environment(), capture_output=True, text=True, timeout=280)


def flags_in(script: str) -> list[str]:
    """What the script hands to main_continual.py."""
    return parse_script(Script("digits.sh", script), {})[0]


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A place with a script whose experiment "run" is through, and what was said."""
    place = tmp_path_factory.mktemp("place")
    (place / "digits.sh").write_text(SCRIPT)
    return place, start(place, "job_launcher.py", "--script", "digits.sh", "--experiment_dir", "run")


Finished = tuple[Path, subprocess.CompletedProcess[str]]


def test_an_experiment_ends_well_and_says_what_it_did(finished: Finished) -> None:
    place, done = finished
    assert done.returncode == 0, done.stderr
    assert complaints(done) == []
    lines = done.stdout.splitlines()
    assert lines[0] == "experiment folder: experiments/run"
    assert lines[-1].endswith("open experiments/run/report.html")
    for text in ("task 0 epoch 1/2  ssl ", "task 1 epoch 2/2  ssl ", "final", "forgetting", "after task 1"):
        assert text in done.stdout, text
    assert "distill_features" in next(line for line in lines if line.startswith("task 1 epoch"))
    assert "distill_features" not in next(line for line in lines if line.startswith("task 0 epoch"))


def test_the_files_of_an_experiment(finished: Finished) -> None:
    folder = finished[0] / "experiments" / "run"
    assert (folder / "digits.sh").read_text() == SCRIPT
    plots = [f"{kind}_{head}.png" for kind in ("accuracy_matrix", "accuracy_over_tasks") for head in HEADS]
    assert sorted(path.name for path in (folder / "plots").iterdir()) == sorted(plots)
    assert all((folder / "plots" / name).read_bytes().startswith(b"\x89PNG") for name in plots)
    for task in range(2):
        assert {path.name for path in (folder / f"task{task}").iterdir()} == {
            *("accuracy.json", "final.ckpt", "metrics.csv", "state.json", "views.json", "views.png", "wandb"),
            *["replay.json"] * task,
        }
        (run,) = (folder / f"task{task}" / "wandb").glob("offline-run-*/*.wandb")
        assert b"train/ssl" in run.read_bytes()
    runs = [*(folder / "wandb").glob("offline-run-*/*.wandb")]  # of the experiment, gone on with by each task
    assert len(runs) == 2 and len({run.name for run in runs}) == 1
    assert all(name in run.read_bytes() for run in runs for name in (b"matrix/knn", b"plots/", b"knn/final_accuracy"))
    assert not [path for path in folder.rglob("*") if path.suffix == ".tmp"]


def test_the_results_follow_from_what_each_task_reached(finished: Finished) -> None:
    folder = finished[0] / "experiments" / "run"
    results = read_json(folder / "results.json")
    tasks = [read_json(folder / f"task{i}" / "accuracy.json") for i in range(2)]
    assert list(results["heads"]) == HEADS
    assert (results["num_tasks"], results["tasks_done"], len(results["seconds_per_task"])) == (2, 2, 2)
    assert sorted(c for classes in results["tasks"] for c in classes) == list(range(10))
    assert results["flags"]["classifier_distill_lamb"] == 2 and results["flags"]["max_epochs"] == 2
    for head in HEADS:
        matrix = [task["heads"][head] for task in tasks]
        baseline = tasks[0]["baseline"].get(head)
        assert (baseline is None) == (head != "classifier")
        expected = {"accuracy_matrix": matrix, "baseline": baseline, **summarize(matrix, baseline)}
        assert results["heads"][head] == expected
    assert results["heads"]["knn"]["final_accuracy"] > 0.5  # it has learned something: chance is 0.1

    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(HEADS) * (4 + len(METRICS)) + 2
    cells = {(r["head"], r["trained_task"], r["tested_task"]): r["value"] for r in rows if r["kind"] == "accuracy"}
    assert float(cells["online", "1", "0"]) == results["heads"]["online"]["accuracy_matrix"][1][0]


def test_the_log_of_a_task(finished: Finished) -> None:
    folder = finished[0] / "experiments" / "run"
    for task, terms in enumerate(
        ({"ssl", "classifier"}, {"ssl", "classifier", "distill_features", "distill_classifier"})
    ):
        with (folder / f"task{task}" / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        steps = [int(row["step"]) for row in rows]
        assert steps == sorted(steps) and steps[-1] == 2 * STEPS
        logged = {name.removeprefix("train/") for name in rows[0] if name.startswith("train/")}
        assert logged & {"ssl", "classifier", "distill_features", "distill_classifier"} == terms
        assert {"online", "momentum_online", "loss", "tau", "z_std", "classifier_acc1"} <= logged
        row = next(row for row in rows if row["train/loss"])
        weights = {"distill_classifier": 2.0}
        total = sum(
            weights.get(name, 1.0) * float(row[f"train/{name}"]) for name in terms | {"online", "momentum_online"}
        )
        assert float(row["train/loss"]) == pytest.approx(total, rel=1e-4)


def test_an_experiment_that_is_through_is_left_as_it_is(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    place, done = finished
    monkeypatch.chdir(place)
    before = snapshot(place / "experiments" / "run")
    assert main_continual.main([*flags_in(SCRIPT), "--experiment_dir", "run"]) == 0
    after = snapshot(place / "experiments" / "run")
    out, error = capfd.readouterr()
    assert error == ""
    assert out.splitlines()[:3] == ["experiment experiments/run", "task 0 is done", "task 1 is done"]
    assert "epoch" not in out
    tables = out[out.index("classifier: accuracy on each task") :]
    assert done.stdout.endswith(tables)
    written = {".lock", "experiment.json", "results.json", "results.csv", "report.html"}
    assert {name for name in after if after[name] != before[name]} <= written
    assert {name: content for name, (_, content) in after.items()} == {n: c for n, (_, c) in before.items()}


def test_a_task_that_was_deleted_is_trained_again_to_the_same_numbers(finished: Finished) -> None:
    place, _ = finished
    folder = place / "experiments" / "copy"
    shutil.copytree(place / "experiments" / "run", folder)
    wanted = {name: read_json(folder / name) for name in ("results.json", "task1/accuracy.json")}
    log = (folder / "task1" / "metrics.csv").read_text()
    first = snapshot(folder / "task0")
    shutil.rmtree(folder / "task1")
    shutil.rmtree(folder / "plots")
    (folder / "results.json").unlink()

    (place / "quiet.sh").write_text(SCRIPT.replace(" --wandb --offline", ""))  # logging may change on the way
    done = start(place, "job_launcher.py", "--script", "quiet.sh", "--experiment_dir", "experiments/copy")
    assert (done.returncode, done.stderr) == (0, "")
    assert "task 0 is done" in done.stdout and "task 1 epoch 2/2" in done.stdout
    assert snapshot(folder / "task0") == first
    found = {name: read_json(folder / name) for name in wanted}
    for content in (*wanted.values(), *found.values()):
        content.pop("seconds", None), content.pop("seconds_per_task", None)
    for flags in (wanted["results.json"]["flags"], found["results.json"]["flags"]):
        flags.pop("wandb"), flags.pop("offline")
    assert found == wanted
    assert (folder / "task1" / "metrics.csv").read_text() == log
    assert len(list((folder / "plots").iterdir())) == 2 * len(HEADS)
    assert {path.name for path in (folder / "task1").iterdir()} == {
        "accuracy.json",
        "final.ckpt",
        "metrics.csv",
        "replay.json",
        "state.json",
        "views.json",
        "views.png",
    }


def test_other_flags_are_refused_and_nothing_is_touched(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    place, _ = finished
    monkeypatch.chdir(place)
    before = snapshot(place)
    other = SCRIPT.replace("--lr 0.4", "--lr 0.5").replace("--output_dim 8", "--output_dim 4")
    for more in ([], ["--dry_run"]):
        assert main_continual.main([*flags_in(other), "--experiment_dir", "run", *more]) == 2
        error = capfd.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        assert "--lr 0.4 (now 0.5), --output_dim 8 (now 4)" in error
    assert snapshot(place) == before


def test_a_bad_flag_is_one_line_from_the_real_program(tmp_path: Path) -> None:
    flags = ["--dataset", "digits", "--method", "simclr", "--max_epoch", "3"]
    done = start(tmp_path, "main_continual.py", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown flag --max_epoch (did you mean --max_epochs?)\n"
    assert list(tmp_path.iterdir()) == []


def test_a_task_that_is_terminated_leaves_nothing_half_done(tmp_path: Path) -> None:
    flags = flags_in(SCRIPT.replace(" --wandb --offline", "").replace("$EPOCHS", "40"))
    experiment = Experiment.start(tmp_path / "run", flags_of(read_args(flags)), [[0], [1]], ["a", "b"])
    command = [sys.executable, "-m", "kaizen.task", str(experiment.folder), "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=environment(), text=True, **pipes) as run:  # type: ignore[call-overload]
        assert run.stdout.readline().startswith("task 0 epoch 4/40  ssl ")
        run.send_signal(signal.SIGTERM)
        _, error = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in error
    assert not experiment.checkpoint(0).exists() and not experiment.accuracy(0).exists()


@pytest.mark.long
def test_a_terminal_that_is_closed_ends_a_run_as_a_signal_does(tmp_path: Path) -> None:
    """The one epoch of task 0 has no checkpoint inside it but for the one that the hangup asks for."""
    (tmp_path / "digits.sh").write_text(SCRIPT.replace(" --wandb --offline", "").replace("size 128", "size 4"))
    flags = ["--script", "digits.sh", "--experiment_dir", "run", "--set", "max_epochs=1"]
    command = [sys.executable, str(ROOT / "job_launcher.py"), *flags]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment() | {"TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),
    ) as run:  # fmt: skip
        os.close(theirs)
        said = b""
        while b"classifier" not in said:  # in the bar, after the first steps
            said += os.read(ours, 4096)
        os.close(ours)
        assert run.wait(timeout=240) == 128 + signal.SIGHUP
    folder = tmp_path / "experiments" / "run" / "task0"
    state, saved = read_state(folder), Saved(folder / "progress").newest()
    assert state is not None and (state.state, state.signal) == ("interrupted", "SIGHUP")
    assert saved is not None and saved[1]["epoch"] == 0 and saved[1]["batch"] > 0


WAITS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(5))
print("ready", flush=True)
time.sleep(60)
"""


def test_a_termination_is_passed_on_to_the_process_that_trains() -> None:
    code = f"import sys, main_continual; sys.exit(main_continual.run_process([sys.executable, '-c', {WAITS!r}], {{}}))"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None and run.stdout.readline() == "ready\n"
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=30) == 5


def test_a_termination_that_comes_too_late_for_a_task_is_none_too_late_for_the_next() -> None:
    waits = WAITS.replace("sys.exit(5)", "sys.exit(0)")
    code = f"import sys, main_continual; sys.exit(main_continual.run_process([sys.executable, '-c', {waits!r}], {{}}))"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None and run.stdout.readline() == "ready\n"
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=30) == 128 + signal.SIGTERM


# The chain in this process


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The chain leaves the handlers as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before


def test_an_interrupt_that_is_ignored_stays_so() -> None:
    """As a shell has it for what a script starts in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        command = "import signal, sys; sys.exit(3 if signal.getsignal(signal.SIGINT) == signal.SIG_IGN else 4)"
        assert run_process([sys.executable, "-c", command], {}) == 3
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of Python, a program that writes down how it was called and fails with 7 at task 1."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n[ "$4" = 1 ] && exit 7\nexit 0\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return tmp_path / "calls"


@pytest.fixture
def experiment(tmp_path: Path, tiny: None) -> Experiment:
    tasks = [[0, 1], [2, 3], [4, 5]]
    return Experiment.start(tmp_path / "run", flags_of(args_of()), tasks, ["a", "b", "c"])


@pytest.mark.parametrize("first", [0, 1])
def test_a_task_that_fails_stops_the_chain_with_its_own_exit_status(
    stand_in: Path, experiment: Experiment, first: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert chain(experiment, first, 3) == 7
    calls = stand_in.read_text().splitlines()
    assert calls == [f"-m kaizen.task {experiment.folder} {task}" for task in range(first, 2)]
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "task 1 stopped with exit status 7" in error and "--experiment_dir run goes on" in error
    assert "failed in task 1 (exit status 7)" in (experiment.folder / "report.html").read_text()


def test_a_chain_writes_down_how_each_task_ended(
    stand_in: Path, experiment: Experiment, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert chain(experiment, 0, 3) == 7
    Path(sys.executable).write_text(f"#!/bin/sh\ncp $3/task$4/state.json {tmp_path}/meanwhile$4; kill -9 $$\n")
    assert chain(experiment, 1, 3) == 137
    meanwhile = read_json(tmp_path / "meanwhile1")
    assert (meanwhile["state"], meanwhile["starts"], meanwhile["end"]) == ("running", 2, None)
    states = [read_state(experiment.folder / f"task{task}") for task in range(3)]
    assert states[2] is None and states[0] is not None and states[1] is not None
    assert (states[0].state, states[0].exit_status, states[0].starts, states[0].max_epochs) == ("done", 0, 1, 1)
    assert (states[1].state, states[1].signal, states[1].starts) == ("interrupted", "SIGKILL", 2)
    assert states[1].start == meanwhile["start"] and states[1].end is not None
    assert states[0].versions is not None and "torch" in states[0].versions


def test_other_epochs_for_the_tasks_to_come(
    tmp_path: Path, tiny: None, stand_in: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = command_line("--num_tasks", "5", "--experiment_dir", "run")
    assert main_continual.main(flags) == 7  # of task 1, with 1 epoch
    experiment = Experiment.open(Path("experiments/run"))
    experiment.finish_task(0, {"knn": [0.5] * 5}, None, 1.0)
    experiment.checkpoint(0).write_bytes(b"")
    capfd.readouterr()
    before = snapshot(experiment.folder)
    for more in (["--max_epochs", "2"], ["--num_tasks", "2"]):
        for dry in ([], ["--dry_run"]):
            assert main_continual.main([*flags, *more, *dry]) == 2
            error = capfd.readouterr().err
            assert error.count("\n") == 1 and more[0] in error
    assert snapshot(experiment.folder) == before
    shutil.rmtree(experiment.folder / "task1")
    assert main_continual.main([*flags, "--max_epochs", "2"]) == 7
    states = [read_state(experiment.folder / f"task{task}") for task in range(2)]
    assert [state and (state.state, state.max_epochs, state.starts) for state in states] == [
        ("done", 1, 1),
        ("failed", 2, 1),
    ]


def test_tasks_that_are_done_are_passed_over(stand_in: Path, experiment: Experiment) -> None:
    for task in (0, 2):
        experiment.finish_task(task, {"knn": [0.5] * 3}, None, 1.0)
        experiment.checkpoint(task).write_bytes(b"")
    assert chain(experiment, 0, 3) == 7
    assert stand_in.read_text().splitlines() == [f"-m kaizen.task {experiment.folder} 1"]


def test_results_that_were_never_written_are_made_up_for(experiment: Experiment) -> None:
    """The last task was cut off after its accuracies and before the results."""
    for task in range(3):
        experiment.finish_task(task, {"knn": [0.5, 0.25, 0.125]}, None, 1.0)
        experiment.checkpoint(task).write_bytes(b"")
    assert chain(experiment, 0, 3) == 0
    assert read_json(experiment.folder / "results.json")["tasks_done"] == 3
    assert (experiment.folder / "results.csv").exists()
    assert "done, all 3 tasks" in (experiment.folder / "report.html").read_text()
    assert len(list((experiment.folder / "plots").iterdir())) == 2


def test_exit_statuses_of_processes() -> None:
    for code in (0, 1, 3, 255):
        assert run_process([sys.executable, "-c", f"raise SystemExit({code})"], {}) == code
    assert run_process([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], {}) == 137


def test_a_process_finds_the_package_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    show = "import json, os, sys; json.dump([os.environ['PYTHONPATH'], os.environ['OMP_WAIT_POLICY']], open('e', 'w'))"
    assert run_process([sys.executable, "-c", show], environment_of("resnet18")) == 0
    paths, policy = json.loads((tmp_path / "e").read_text())
    assert paths.split(os.pathsep) == [str(ROOT), "somewhere"] and policy


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("dataset", ["cifar100", "custom"])
def test_a_dry_run_goes_on_without_data_and_makes_nothing(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = command_line("--num_tasks", "5", "--dry_run", "--pretrained_model", "none.ckpt", dataset=dataset)
    assert main_continual.main(flags) == 0
    out, error = capsys.readouterr()
    assert error == "" and list(tmp_path.iterdir()) == []
    assert "not checked: --data_dir datasets" in out
    assert "not checked: --pretrained_model none.ckpt: not on this machine" in out
    assert "task 4" in out


@pytest.mark.usefixtures("tiny")
def test_a_dry_run_checks_what_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main_continual.main(command_line("--dry_run", "--batch_size", "5000")) == 2
    assert "--batch_size 5000" in capsys.readouterr().err
    assert main_continual.main(command_line("--dry_run", "--task_idx", "1")) == 0
    assert "not checked: --task_idx 1: needs the model of task 0; give" in capsys.readouterr().out
    assert main_continual.main(command_line("--dry_run", "--wandb")) == 0  # a key is needed later, and elsewhere
    Path("weights.ckpt").write_bytes(b"")
    assert main_continual.main(command_line("--dry_run", "--pretrained_model", "weights.ckpt")) == 2
    assert "cut short" in capsys.readouterr().err


@pytest.mark.usefixtures("tiny")
def test_an_experiment_of_a_later_task_needs_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = command_line("--num_tasks", "5", "--task_idx", "2", "--experiment_dir", "run")
    folder = Path("experiments/run")
    folder.mkdir(parents=True)
    assert main_continual.main(flags) == 2
    assert "--task_idx 2: the results need every task" in capsys.readouterr().err
    for task in range(2):
        (folder / f"task{task}").mkdir()
        write_json(folder / f"task{task}" / "accuracy.json", {})
        (folder / f"task{task}" / "final.ckpt").write_bytes(b"")
    assert main_continual.main([*flags, "--dry_run"]) == 0


@pytest.mark.usefixtures("tiny")
def test_a_chain_that_began_at_the_second_task_is_not_mixed_with_another(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first task is judged with --pretrained_model and never trained; without --task_idx 1 it would be."""
    monkeypatch.chdir(tmp_path)
    save_task(build_learner(args_of(), 10, 0), Path("weights.ckpt"), 0, {})
    flags = command_line("--num_tasks", "5", "--experiment_dir", "run", "--pretrained_model", "weights.ckpt")
    assert main_continual.main([*flags, "--task_idx", "1"]) == 7  # as the stand-in does at task 1
    folder = Path("experiments/run")
    for task in range(3):
        (folder / f"task{task}").mkdir(exist_ok=True)
        reached = {"heads": {"knn": [0.5] * 5}, "baseline": None, "seconds": 1.0}
        write_json(folder / f"task{task}" / "accuracy.json", reached)
    for task in (1, 2):
        (folder / f"task{task}" / "final.ckpt").write_bytes(b"")
    stand_in.unlink()
    before = snapshot(tmp_path)
    capsys.readouterr()
    for more in ([], ["--dry_run"]):
        assert main_continual.main([*flags, *more]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"--task_idx 0: would train task 0 of {folder}, where task 2 is done" in error
        assert "go on with --task_idx 2, or use a new folder" in error
    assert snapshot(tmp_path) == before

    for first in ("1", "2"):  # both go on with what is not done yet
        assert main_continual.main([*flags, "--task_idx", first]) == 0
        assert stand_in.read_text().splitlines() == [f"-m kaizen.task {folder} {task}" for task in (3, 4)]
        stand_in.unlink()


@pytest.mark.usefixtures("tiny", "stand_in")
@pytest.mark.parametrize("split", ["train", "val"])
def test_images_that_were_changed_since_are_noticed_and_nothing_is_touched(
    split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = class_folders(tmp_path / "data")
    flags = command_line("--data_dir", "data", "--num_tasks", "2", "--experiment_dir", "run", dataset="custom")
    main_continual.main(flags)
    before = Path("experiments/run/experiment.json").read_bytes()
    data.rename(tmp_path / "moved")
    flags[flags.index("data")] = "moved"
    first = sorted((tmp_path / "moved" / split / "class1").iterdir())[0]
    last = first.rename(first.with_name(f"z{first.name}"))
    capsys.readouterr()
    assert main_continual.main(flags) == 2
    kind = {"train": "training", "val": "test"}[split]
    error = capsys.readouterr().err
    assert f"error: --data_dir moved: its {kind} images are not those that experiments/run began with" in error
    assert Path("experiments/run/experiment.json").read_bytes() == before
    last.rename(first)
    main_continual.main(flags)
    assert "images are not those" not in capsys.readouterr().err


def test_who_reads_the_output_may_leave(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert main_continual.main(command_line("--encoder", "resnet9", "--dry_run")) == 128 + signal.SIGPIPE
        print("what is said after that goes nowhere")  # and its buffer is written when it is closed
    assert capsys.readouterr().err == ""
