from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from helpers import args_of

from kaizen.args import UsageError
from kaizen.cli import flags_of
from kaizen.experiment import Experiment, experiment_folder
from kaizen.files import read_json, write_json

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
        experiment.finish_task(task, {"knn": [0.5]}, None, 1.0)
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
    assert experiment_folder(str(tmp_path / "base"), "run", "title") == tmp_path / "base" / "run"
    made = experiment_folder("base", None, "my run/../x")
    assert made.parent == Path("base") and made.name.endswith("-my_run_.._x")
    assert datetime.strptime(made.name[:19], "%Y-%m-%d_%H-%M-%S")


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../x", "/etc", "run/.."])
def test_a_name_that_leads_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--experiment_dir .* is not directly below --base_experiment_dir base"):
        experiment_folder("base", name, "title")
