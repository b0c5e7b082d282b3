"""A task that is stopped and started again ends as one that never was."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import class_folders, command_line

from kaizen.args import UsageError
from kaizen.checkpoint import load_task
from kaizen.cli import flags_of, read_args
from kaizen.experiment import Experiment
from kaizen.files import read_json
from kaizen.plan import open_data
from kaizen.saving import Saved, Stop, Stopped
from kaizen.task import run_task

pytestmark = pytest.mark.usefixtures("tiny")

EVERYTHING = ["--num_tasks", "2", "--max_epochs", "3", "--batch_size", "8", "--replay", "True"]
EVERYTHING += ["--replay_proportion", "0.5", "--replay_batch_size", "4", "--online_evaluation", "True"]
EVERYTHING += ["--distiller", "contrastive", "--distiller_classifier", "soft_label", "--log_every_n_steps", "2"]


class StopsAt(Stop):
    """Asks for the end before a given look at it."""

    def __init__(self, look: int) -> None:
        super().__init__()
        self.left = look

    def agreed(self) -> int:
        self.obey()
        return 0

    def obey(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stopped(signal.SIGTERM)


def start(argv: list[str], folder: Path) -> Experiment:
    args = read_args(argv)
    data = open_data(args)
    return Experiment.start(folder, flags_of(args), data.split.classes, data.task_names)


def finish(experiment: Experiment, stops: list[Stop]) -> int:
    """Run all tasks; how many stops it took."""
    met = 0
    for task in range(2):
        while not experiment.done(task):
            stop = stops.pop(0) if stops else Stop()
            try:
                run_task(experiment, task, stop)
            except Stopped:
                met += 1
    return met


def compare(one: Experiment, two: Experiment) -> None:
    for task in range(2):
        states = [load_task(e.checkpoint(task), "--flag")["state"] for e in (one, two)]
        assert states[0].keys() == states[1].keys()
        different = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
        assert different == []
        assert (one.task_folder(task) / "metrics.csv").read_text() == (
            two.task_folder(task) / "metrics.csv"
        ).read_text()
        for name in ("views.png", "views.json"):
            assert (one.task_folder(task) / name).read_bytes() == (two.task_folder(task) / name).read_bytes()
        assert not (two.task_folder(task) / "progress").exists()
    results = [read_json(e.folder / "results.json") for e in (one, two)]
    for result in results:
        result.pop("seconds", None)
        result.pop("name", None)
    assert results[0]["heads"] == results[1]["heads"]


@pytest.mark.parametrize(("method", "workers"), [("mocov2plus", 0), ("deepclusterv2", 0), ("swav", 0), ("byol", 2)])
def test_stopped_anywhere_the_end_is_the_same(method: str, workers: int, tmp_path: Path) -> None:
    class_folders(tmp_path / "data", (24, 24, 24, 24))
    argv = command_line(*EVERYTHING, "--data_dir", str(tmp_path / "data"), method=method, dataset="custom")
    argv += ["--epoch_queue_starts", "0"] if method == "swav" else []
    argv += ["--num_workers", str(workers), *(["--augment_on", "workers"] if workers else [])]
    whole = start(argv, tmp_path / "whole")
    assert finish(whole, []) == 0
    stopped = start(argv, tmp_path / "stopped")
    assert finish(stopped, [StopsAt(3), StopsAt(9), StopsAt(4), StopsAt(7), StopsAt(1), StopsAt(6)]) == 6
    compare(whole, stopped)


@pytest.mark.parametrize("damaged", [1, 2])
def test_damaged_checkpoints_inside_a_task_are_passed_over(
    damaged: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders(tmp_path / "data", (24, 24, 24, 24))
    argv = command_line(*EVERYTHING, "--data_dir", str(tmp_path / "data"), method="mocov2plus", dataset="custom")
    whole, stopped = start(argv, tmp_path / "whole"), start(argv, tmp_path / "stopped")
    finish(whole, [])
    with pytest.raises(Stopped):
        run_task(stopped, 0, StopsAt(15))  # two epochs of six steps are saved
    saved = Saved(stopped.task_folder(0) / "progress").paths()
    assert [path.name for path in saved] == ["step000000012.ckpt", "step000000006.ckpt"]
    for path in saved[:damaged]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    capsys.readouterr()
    finish(stopped, [])
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(said) == damaged
    for path, line in zip(saved, said, strict=False):
        assert line.startswith(f"warning: --experiment_dir {path}: cut short, damaged") and "before it" in line
    compare(whole, stopped)


@pytest.mark.parametrize("change", ["missing", "more", "renamed"])
def test_inside_a_task_nothing_is_taken_from_a_checkpoint_that_lacks_something(change: str, tmp_path: Path) -> None:
    class_folders(tmp_path / "data", (24, 24, 24, 24))
    argv = command_line(*EVERYTHING, "--data_dir", str(tmp_path / "data"), dataset="custom")
    experiment = start(argv, tmp_path / "run")
    with pytest.raises(Stopped):
        run_task(experiment, 0, StopsAt(8))
    [path] = Saved(experiment.task_folder(0) / "progress").paths()
    content = torch.load(path, weights_only=False)
    weights = content["state_dict"]
    bias = weights["classifier.0.bias"] if change == "more" else weights.pop("classifier.0.bias")
    if change != "missing":
        weights["classifier.0.other"] = bias
    torch.save(content, path)
    with pytest.raises(UsageError, match="another architecture; classifier.0.(bias is missing there|other is there)"):
        run_task(experiment, 0)


def test_what_was_cut_off_goes_but_not_what_the_leading_process_is_writing(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_text("whole")

    half = tmp_path / ".step000000003.ckpt.0a1b2c3d.tmp"
    half.touch()
    follower = SimpleNamespace(global_step=4, is_global_zero=False, save_checkpoint=lambda path: None)
    assert Saved(tmp_path).write(follower).name == "step000000004.ckpt"  # type: ignore[arg-type]
    assert [*tmp_path.iterdir()] == [half]
    leader = SimpleNamespace(global_step=4, is_global_zero=True, save_checkpoint=write)
    assert [Saved(tmp_path).write(leader)] == [*tmp_path.iterdir()]  # type: ignore[arg-type]
