from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from unittest.mock import ANY

import pytest
from helpers import args_of

from kaizen.args import UsageError
from kaizen.cli import flags_of
from kaizen.experiment import Experiment
from kaizen.files import read_json, write_json
from kaizen.folders import experiment_folder
from kaizen.report import collect
from kaizen.states import TaskState, begin, read_state

pytestmark = pytest.mark.usefixtures("tiny")


def start(folder: Path, *flags: str) -> Experiment:
    return Experiment.start(folder, flags_of(args_of(*flags)), [[1, 0], [2, 3]], ["a", "b"])


def test_a_new_experiment_writes_down_what_it_was_asked(tmp_path: Path) -> None:
    experiment = start(tmp_path / "deep" / "run", "--lr", "0.25", "--name", "test", "--seed", "7")
    content = read_json(experiment.folder / "experiment.json")
    assert content["name"] == "test" and experiment.name == "run"
    assert content["flags"]["lr"] == 0.25 and content["flags"]["output_dim"] == 6
    assert (content["tasks"], content["task_names"]) == ([[1, 0], [2, 3]], ["a", "b"])
    assert content["seeds"] == {"seed": 7, "split_seed": 5}
    assert {"python", "torch", "lightly"} <= content["versions"].keys()
    assert Experiment.open(experiment.folder) == experiment


def test_going_on_needs_the_same_flags_but_for_places_and_devices(tmp_path: Path) -> None:
    start(tmp_path, "--lr", "0.25")
    again = start(tmp_path, "--lr", "0.25", "--num_workers", "1", "--gpus", "0", "--name", "other", "--wandb")
    assert again.flags["num_workers"] == 1
    assert Experiment.open(tmp_path).flags["num_workers"] == 1
    before = (tmp_path / "experiment.json").read_bytes()
    split = (["--classes_per_task", "4", "6"], ["--class_order", *"9876543210"], ["--semi_supervised", "0.5"])
    others = (
        ["--lr", "0.5"],
        ["--augment_on", "workers"],
        ["--output_dim", "7"],
        ["--distiller", "predictive"],
        ["--num_tasks", "5"],
        ["--sync_batchnorm"],
        ["--pretrained_model", "x.ckpt"],
    )
    for other in (*others, *split):
        with pytest.raises(UsageError, match=f"was started with other flags: .*{other[0]}"):
            start(tmp_path, "--lr", "0.25", *other)
        with pytest.raises(UsageError):
            Experiment.check(tmp_path, flags_of(args_of("--lr", "0.25", *other)))
    assert (tmp_path / "experiment.json").read_bytes() == before
    Experiment.check(tmp_path / "new", {})


def test_a_folder_from_before_a_flag_was_there_goes_on_with_its_default(tmp_path: Path) -> None:
    start(tmp_path)
    content = read_json(tmp_path / "experiment.json")
    del content["flags"]["semi_supervised"], content["flags"]["replay_selection"]
    write_json(tmp_path / "experiment.json", content)
    start(tmp_path)
    write_json(tmp_path / "experiment.json", content)
    with pytest.raises(UsageError, match="--replay_selection first .now random."):
        start(tmp_path, "--replay_selection", "random")


def test_a_pretrained_model_may_have_moved_but_not_gone(tmp_path: Path) -> None:
    start(tmp_path, "--pretrained_model", "here.ckpt")
    start(tmp_path, "--pretrained_model", "there.ckpt")
    with pytest.raises(UsageError, match="--pretrained_model there.ckpt .now None."):
        start(tmp_path)


def test_epochs_may_change_for_tasks_that_have_not_begun(tmp_path: Path) -> None:
    experiment = start(tmp_path, "--max_epochs", "1")
    finish(experiment, 0)
    (tmp_path / "task1").mkdir()  # an empty folder is no beginning
    (tmp_path / "task1" / ".final.ckpt.1234.tmp").write_bytes(b"")
    assert start(tmp_path, "--max_epochs", "3").flags["max_epochs"] == 3
    assert read_state(tmp_path / "task0") == TaskState("done", max_epochs=1)
    assert collect(tmp_path)["max_epochs_per_task"] == [1]
    assert start(tmp_path, "--max_epochs", "2").flags["max_epochs"] == 2
    begin(tmp_path / "task1", 2, {})
    before = (tmp_path / "experiment.json").read_bytes()
    anew = rf"--max_epochs 5: task 1 of {tmp_path} has begun with 2; use --max_epochs 2, or delete {tmp_path}/task1 to"
    for refuse in (start, lambda folder, *flags: Experiment.check(folder, flags_of(args_of(*flags)))):
        with pytest.raises(UsageError, match=f"^{anew} train it anew$"):
            refuse(tmp_path, "--max_epochs", "5")
    finish(experiment, 1)
    with pytest.raises(UsageError, match=r"--max_epochs 5: all tasks of .* are done with 2; use --max_epochs 2, or us"):
        start(tmp_path, "--max_epochs", "5")
    assert (tmp_path / "experiment.json").read_bytes() == before
    start(tmp_path, "--max_epochs", "2")
    assert collect(tmp_path)["max_epochs_per_task"] == [1, 2]
    assert read_state(tmp_path / "task1") == TaskState("done", 2, start=ANY, starts=1, versions={})


def test_a_damaged_state_hides_the_epochs_and_nothing_else(tmp_path: Path) -> None:
    experiment = start(tmp_path)
    finish(experiment, 0)
    (tmp_path / "task0" / "state.json").write_text("{")
    assert collect(tmp_path)["max_epochs_per_task"] == [None]
    start(tmp_path)
    assert collect(tmp_path)["max_epochs_per_task"] == [1]
    experiment.checkpoint(0).unlink()  # it came from --pretrained_model, and was trained elsewhere
    (tmp_path / "task0" / "state.json").unlink()
    assert collect(tmp_path)["max_epochs_per_task"] == [None]


def test_going_on_needs_the_same_tasks(tmp_path: Path) -> None:
    flags = flags_of(args_of())
    Experiment.start(tmp_path, flags, [[0], [1]], ["a", "b"])
    before = (tmp_path / "experiment.json").read_bytes()
    with pytest.raises(UsageError, match=r"^--data_dir datasets: its tasks are not those .* use the same data"):
        Experiment.start(tmp_path, flags, [[0], [1, 2]], ["a", "b, c"])
    assert (tmp_path / "experiment.json").read_bytes() == before


def test_a_flag_that_one_side_lacks_is_a_difference(tmp_path: Path) -> None:
    start(tmp_path)
    with pytest.raises(UsageError, match=r"--feature_extractor_distill_lamb None \(now 1.0\)"):
        start(tmp_path, "--distiller", "contrastive")


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"flags": 3}'])
def test_a_folder_without_an_experiment(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "experiment.json").write_text(content)
    with pytest.raises(UsageError, match="experiment.json is missing or damaged; use a new folder"):
        Experiment.open(tmp_path)


def test_a_task_is_done_when_both_its_files_are_there(tmp_path: Path) -> None:
    experiment = start(tmp_path)
    assert not experiment.done(0)
    experiment.finish_task(0, {"knn": [0.5, 0.25]}, None, 1.5)
    assert read_json(experiment.accuracy(0)) == {"heads": {"knn": [0.5, 0.25]}, "baseline": None, "seconds": 1.5}
    assert not experiment.done(0)
    experiment.checkpoint(0).write_bytes(b"")
    assert experiment.done(0) and not experiment.done(1)
    experiment.accuracy(0).unlink()
    assert not experiment.done(0)


def finish(experiment: Experiment, *tasks: int) -> None:
    for task in tasks:
        experiment.finish_task(task, {"knn": [0.5, 0.25]}, None, 1.0)
        experiment.checkpoint(task).write_bytes(b"")


def test_no_task_is_trained_anew_before_one_that_is_done(tmp_path: Path) -> None:
    experiment = start(tmp_path)
    experiment.check_order(0, 5)
    finish(experiment, 0, 2)
    with pytest.raises(UsageError, match=r"^--task_idx 0: would train task 1 of .*task 2 is done.*delete the tasks"):
        experiment.check_order(0, 5)
    experiment.check_order(0, 2)
    finish(experiment, 1)
    experiment.check_order(0, 5)
    experiment.checkpoint(0).unlink()
    with pytest.raises(UsageError, match=r"would train task 0 of .*go on with --task_idx 2"):
        experiment.check_order(0, 5)
    experiment.check_order(1, 5)
    experiment.check_order(2, 5)


def test_what_a_task_needs_to_start(tmp_path: Path) -> None:
    experiment = start(tmp_path)
    assert experiment.can_start(0) and not experiment.can_start(1)
    experiment.finish_task(0, {"knn": [0.5]}, None, 1.0)
    assert not experiment.can_start(1)
    finish(experiment, 1)  # from a model of elsewhere
    assert [experiment.can_start(task) for task in range(4)] == [True, True, True, False]
    experiment.accuracy(0).unlink()
    assert not experiment.can_start(2)


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert experiment_folder("base", "run", "title") == Path("base/run")
    assert experiment_folder("base", "base/run", "title") == Path("base/run")
    assert experiment_folder("base", "base/run/", "title") == Path("base/run")
    assert experiment_folder("base", "x/../run", "title") == Path("base/run")
    assert experiment_folder(str(tmp_path / "base"), "run", "title") == tmp_path / "base" / "run"
    made = experiment_folder("base", None, "my run/../x")
    assert made.parent == Path("base") and made.name.endswith("-my_run_.._x")
    assert datetime.strptime(made.name[:19], "%Y-%m-%d_%H-%M-%S")


def test_a_title_becomes_a_name_that_every_disk_takes() -> None:
    for title in ("x" * 5000, "\U00020000" * 5000, "a\0b\nc/../d\x1b[2J"):
        made = experiment_folder("base", None, title)
        assert made.parent == Path("base") and made.name.isprintable() and len(os.fsencode(made.name)) <= 255


@pytest.mark.parametrize("flag", ["experiment_dir", "base_experiment_dir"])
@pytest.mark.parametrize("name", ["a\0b", "a\nb", "a\r", "\x1b[2J", "a\u202eb", "a\udcffb"])
def test_a_name_that_would_break_a_line_is_told_in_one(flag: str, name: str) -> None:
    names = {"experiment_dir": "run", "base_experiment_dir": "base", flag: name}
    with pytest.raises(UsageError, match=f"^--{flag} .*cannot be printed") as refused:
        experiment_folder(names["base_experiment_dir"], names["experiment_dir"], "title")
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", ["x" * 256, "é" * 128, "x" * 100_000])
def test_a_name_that_is_too_long(name: str) -> None:
    experiment_folder("base", "x" * 255, "title")
    for base, given, flag in (("base", name, "experiment_dir"), (name, "run", "base_experiment_dir")):
        with pytest.raises(UsageError, match=f"^--{flag} .* is longer than 255 bytes") as refused:
            experiment_folder(base, given, "title")
        assert len(str(refused.value)) < 300


def test_a_link_does_not_lead_out_of_the_base(tmp_path: Path) -> None:
    base, disk = tmp_path / "base", tmp_path / "disk"
    base.mkdir(), disk.mkdir()
    (base / "run").symlink_to(disk)
    with pytest.raises(UsageError, match="--experiment_dir run: is not directly below --base_experiment_dir"):
        experiment_folder(str(base), "run", "title")
    (tmp_path / "link").symlink_to(base)
    assert experiment_folder(str(tmp_path / "link"), "new", "title") == tmp_path / "link" / "new"


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../x", "/etc", "run/..", "run/../../x", "//etc"])
def test_a_name_that_leads_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--experiment_dir .* is not directly below --base_experiment_dir base"):
        experiment_folder("base", name, "title")
