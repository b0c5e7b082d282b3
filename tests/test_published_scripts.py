"""The published command lines of CaSSLe: a dry run takes each of them as it is, and plans what it asks for."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import class_folders, command_line, run_experiment

import main_continual
from kaizen.files import read_json
from main_continual import ROOT


def commands(name: str) -> dict[str, list[str]]:
    """Name -> words, of one of the lists."""
    lines = (Path(__file__).parent / "published" / name).read_text().splitlines()
    return {title: words.split() for title, words in (line.split("\t") for line in lines)}


TRAINING = commands("cassle_training.txt")


def value(words: list[str], flag: str) -> str:
    """What a flag was given last, or nothing."""
    found = [after for word, after in zip(words, [*words[1:], ""], strict=True) if word == f"--{flag}"]
    return found[-1] if found else ""


def filled_in(words: list[str], place: Path) -> list[str]:
    """The command with folders that do not exist in the place of its variables."""
    paths = {"$DATA_DIR": f"{place}/data", "$PRETRAINED_PATH": f"{place}/weights.ckpt"}
    for name, path in paths.items():
        words = [word.replace(name, path) for word in words]
    return words


def script_of(words: list[str]) -> str:
    """The command in the form in which it was published."""
    flags = " ".join(words).replace(" --", " \\\n    --")
    return f"# {value(words, 'name')}\npython3 main_continual.py \\\n    {flags} \n"


def start(place: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    arguments = [sys.executable, str(ROOT / command[0]), *command[1:]]
    return subprocess.run(arguments, cwd=place, env=environment, capture_output=True, text=True, timeout=120)


def check_plan(out: str, words: list[str]) -> None:
    """Does the printed plan hold what the command asks for."""
    lines = out.splitlines()
    plan = {line.split()[0]: line for line in lines if line.startswith(("method", "data ", "files"))}
    tasks, batch = int(value(words, "num_tasks")), int(value(words, "batch_size"))
    gpus = value(words, "gpus")
    assert f" {value(words, 'method')}, encoder {value(words, 'encoder')}, " in plan["method"]
    assert f" {value(words, 'dataset')}, {value(words, 'split_strategy')} split, {tasks} tasks" in plan["data"]
    assert plan["files"].endswith(f"-{value(words, 'name')}/")

    rate = next(line for line in lines if line.startswith("learning rate"))
    devices = len(gpus.split(","))
    assert float(rate.split()[2]) == pytest.approx(float(value(words, "lr")) * batch * devices / 256)
    assert f", {value(words, 'scheduler')}; classifier {value(words, 'classifier_lr') or 0.3}" in rate

    assert sum(line.startswith("task ") for line in lines) == tasks
    batches = f"{batch} x {devices} devices" if devices > 1 else str(batch)
    assert lines.count(f"  epochs       {value(words, 'max_epochs')} in batches of {batches}") == tasks
    distilled = [i for i, line in enumerate(line for line in lines if "  terms " in line) if "distill_features" in line]
    assert distilled == (list(range(1, tasks)) if "--distiller" in words else [])

    unchecked = [line.removeprefix("not checked: ") for line in lines if line.startswith("not checked: ")]
    assert sum(line.startswith("--pretrained_model ") for line in unchecked) == ("--pretrained_model" in words)
    assert any(value(words, "data_dir") in line for line in unchecked)
    assert sum(line.startswith("--dali: ") for line in lines) == ("--dali" in words)


def test_the_lists_are_whole() -> None:
    linear = commands("cassle_linear.txt")
    assert (len(TRAINING), len(linear)) == (52, 65)
    for words in (*TRAINING.values(), *linear.values()):
        assert words[0] == "--dataset" and not [word for word in words if word.startswith("-") and word[:2] != "--"]
        assert value(words, "data_dir").startswith("$DATA_DIR")


@pytest.mark.parametrize("name", TRAINING)
def test_a_dry_run_of_a_published_script(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = filled_in(TRAINING[name], tmp_path)
    assert main_continual.main([*words, "--dry_run"]) == 0
    out, error = capsys.readouterr()
    assert error == "" and list(tmp_path.iterdir()) == []
    check_plan(out, words)


def test_a_published_command_in_a_process_of_its_own(tmp_path: Path) -> None:
    words = filled_in(TRAINING["cifar/barlow_distill"], tmp_path)
    done = start(tmp_path, "main_continual.py", *words, "--dry_run")
    assert (done.returncode, done.stderr) == (0, "")
    check_plan(done.stdout, words)


def test_a_published_script_through_the_launcher(tmp_path: Path) -> None:
    words = TRAINING["cifar/vicreg_distill"]
    (tmp_path / "vicreg_distill.sh").write_text(script_of(words))
    variables = {"DATA_DIR": f"{tmp_path}/data", "PRETRAINED_PATH": f"{tmp_path}/weights.ckpt"}
    done = start(tmp_path, "job_launcher.py", "--script", "vicreg_distill.sh", "--dry_run", **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["vicreg_distill.sh"]
    check_plan(done.stdout, filled_in(words, tmp_path))


# What the published scripts say about devices and files, in plans and in real runs.

MACHINE = ("--dali", "--sync_batchnorm", "--accelerator", "ddp", "--save_checkpoint", "--distiller_library", "default")


@pytest.mark.usefixtures("tiny")
def test_a_plan_for_several_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main_continual.main(command_line(*MACHINE, "--gpus", "0,1", "--lr", "0.4", "--dry_run")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("learning rate  0.2 (0.4 x 64 x 2 devices / 256)") for line in lines)
    assert not any(line.startswith("not checked: ") for line in lines)
    assert "--gpus 0,1: no CUDA here, training on the CPU in 2 processes" in lines


@pytest.mark.usefixtures("tiny")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("every", "looks"), [("9999", 0), ("2", 1)])
def test_looks_at_the_test_images(tmp_path: Path, every: str, looks: int) -> None:
    data = class_folders(tmp_path / "data")
    flags = (*MACHINE, "--gpus", "0", "--check_val_every_n_epoch", every, "--max_epochs", "3", "--num_tasks", "2")
    experiment = run_experiment(command_line("--data_dir", str(data), *flags, dataset="custom"), tmp_path / "run")
    for task in range(2):
        with (experiment.task_folder(task) / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert sum(bool(row.get("val/classifier/task0")) for row in rows) == looks
        assert {len(row) for row in read_json(experiment.accuracy(task))["heads"].values()} == {2}
        assert experiment.done(task)
