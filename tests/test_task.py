"""Whole tasks in this process: odd combinations of flags and data, and the same again from the same seed."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import NO_LABELS, args_of, class_folders, command_line, domain_lists, run_experiment, state_of

from kaizen import task
from kaizen.args import Args
from kaizen.building import build_learner
from kaizen.checkpoint import load_task
from kaizen.cli import flags_of, read_args
from kaizen.data.images import image_folder
from kaizen.data.loaders import Batch
from kaizen.experiment import Experiment
from kaizen.files import read_json
from kaizen.learner import ContinualLearner
from kaizen.methods import METHODS
from kaizen.notices import notices
from kaizen.plan import Data, open_data
from kaizen.task import run_task
from main_continual import chain

pytestmark = [pytest.mark.usefixtures("tiny", "no_plots"), pytest.mark.filterwarnings("ignore::UserWarning")]

DISTILL = ["--distiller", "contrastive", "--distiller_classifier", "soft_label"]
REPLAY = ["--replay", "--replay_proportion", "0.3", "--replay_batch_size", "4"]
PROBES = ["--online_evaluation", "--momentum_classifier"]


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all else here; the experiments that run as processes draw."""
    monkeypatch.setattr(task, "draw_plots", lambda results, folder: None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "data")


def run(folder: Path, data: Path, *flags: str, method: str = "simclr", name: str = "run") -> Experiment:
    argv = command_line("--data_dir", str(data), *flags, dataset="custom", method=method)
    return run_experiment(argv, folder / name)


def heads_of(experiment: Experiment, task_idx: int) -> dict[str, list[float]]:
    heads: dict[str, list[float]] = read_json(experiment.accuracy(task_idx))["heads"]
    return heads


def check(experiment: Experiment, heads: set[str], num_tasks: int = 2) -> None:
    """Every task left its accuracies, a whole checkpoint, finite logs, and results."""
    for i in range(num_tasks):
        found = heads_of(experiment, i)
        assert set(found) == heads
        assert all(len(row) == num_tasks and all(0 <= value <= 1 for value in row) for row in found.values())
        state = load_task(experiment.checkpoint(i), "--flag")["state"]
        assert all(torch.isfinite(value).all() for value in state.values())
        with (experiment.task_folder(i) / "metrics.csv").open() as file:
            assert "nan" not in file.read().lower()
    results = read_json(experiment.folder / "results.json")
    assert set(results["heads"]) == heads and results["tasks_done"] == num_tasks


@pytest.mark.parametrize("method", METHODS)
def test_every_method_with_everything_on(tmp_path: Path, data: Path, method: str) -> None:
    experiment = run(tmp_path, data, *DISTILL, *REPLAY, *PROBES, method=method)
    momentum = any("momentum." in name for name in load_task(experiment.checkpoint(0), "--flag")["state"])
    check(experiment, {"classifier", "online", "knn"} | ({"momentum_online"} if momentum else set()))


@pytest.mark.parametrize("method", [name for name, kind in METHODS.items() if kind.takes_multicrop])
def test_small_crops_over_two_tasks(tmp_path: Path, data: Path, method: str) -> None:
    flags = ["--multicrop", "--num_small_crops", "2", "--small_crop_size", "6", *REPLAY]
    experiment = run(tmp_path, data, *flags, *DISTILL, method=method)
    check(experiment, {"classifier", "knn"})
    assert len(read_json(experiment.task_folder(1) / "views.json")["columns"]) == 1 + 2 + 2  # and the original


def test_prototypes_rest_for_as_long_as_they_should(tmp_path: Path, data: Path) -> None:
    def prototypes(*flags: str) -> torch.Tensor:
        experiment = run(tmp_path, data, "--num_tasks", "1", *flags, method="swav", name=flags[-1])
        name = "method.prototypes.parametrizations.weight.original1"
        weight: torch.Tensor = load_task(experiment.checkpoint(0), "--flag")["state"][name]
        return weight

    untrained = prototypes("--freeze_prototypes_epochs", "0", "--lr", "0")
    assert prototypes("--freeze_prototypes_epochs", "1").equal(untrained)
    assert not prototypes("--max_epochs", "2").equal(untrained)


@pytest.mark.parametrize(
    ("flags", "heads"),
    [
        (["--split_strategy", "data", *REPLAY, *DISTILL], {"classifier", "knn"}),
        (["--split_strategy", "data", "--num_tasks", "2", *PROBES], {"classifier", "online", "knn"}),
        (["--replay", "--memory_size", "6", "--replay_batch_size", "100"], {"classifier", "knn"}),
        (["--replay", "--replay_proportion", "1", "--replay_batch_size", "2"], {"classifier", "knn"}),
        (["--replay_selection", "random", *REPLAY], {"classifier", "knn"}),
        (
            ["--classifier_training", "False", "--online_evaluation", "--online_eval_classifier_layers", "6", "5"],
            {"online", "knn"},
        ),
        (["--classifier_training", "False", "--distiller", "predictive_mse"], {"knn"}),
        (["--disable_knn_eval", "--classifier_layers", "6"], {"classifier"}),
        (["--precision", "16", "--lars"], {"classifier", "knn"}),
        (
            ["--batch_size", "2", *REPLAY, *DISTILL, "--online_evaluation", "--online_eval_batch_size", "2"],
            {"classifier", "online", "knn"},
        ),
        (["--check_val_every_n_epoch", "5", "--max_epochs", "2", "--log_every_n_steps", "1"], {"classifier", "knn"}),
        (["--max_epochs", "2", "--scheduler", "reduce", "--optimizer", "adamw"], {"classifier", "knn"}),
        (["--knn_k", "1000", "--online_evaluation_training_data_source", "current_task"], {"classifier", "knn"}),
        (["--classifier_stop_gradient", "False", *DISTILL, "--frozen_batchnorm", "running"], {"classifier", "knn"}),
        (["--lr", "0", "--classifier_lr", "0", "--lars", "--grad_clip_lars"], {"classifier", "knn"}),
    ],
)
def test_odd_combinations(tmp_path: Path, data: Path, flags: list[str], heads: set[str]) -> None:
    check(run(tmp_path, data, *flags), heads)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_on_the_cpu(tmp_path: Path, data: Path, method: str) -> None:
    flags = ["--precision", "bf16", "--lars", "--grad_clip_lars", "--exclude_bias_n_norm", "--num_tasks", "1"]
    check(run(tmp_path, data, *flags, method=method), {"classifier", "knn"}, num_tasks=1)


def test_bfloat16_with_distillation_and_probes(tmp_path: Path, data: Path) -> None:
    experiment = run(tmp_path, data, "--precision", "bf16", *DISTILL, *PROBES, *REPLAY, method="mocov2plus")
    check(experiment, {"classifier", "online", "momentum_online", "knn"})


@pytest.mark.parametrize("batches", ["2", "5", "100"])
def test_gradients_of_several_batches(tmp_path: Path, data: Path, batches: str) -> None:
    flags = ["--accumulate_grad_batches", batches, "--num_tasks", "1", "--max_epochs", "2"]
    experiment = run(tmp_path, data, *flags, method="byol")
    check(experiment, {"classifier", "knn"}, num_tasks=1)
    steps = {int(row["step"]) for row in csv.DictReader((experiment.task_folder(0) / "metrics.csv").open())}
    assert max(steps) == 2 * -(-6 // int(batches))  # 48 images in batches of 8; the last of an epoch always counts


def test_a_queue_shorter_than_a_batch(tmp_path: Path, data: Path) -> None:
    check(run(tmp_path, data, "--queue_size", "3", "--num_tasks", "1", method="mocov2plus"), {"classifier", "knn"}, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "RGBA"},
        {"mode": "L", "suffix": "jpg"},
        {"sizes": [(20, 9)]},
        {"sizes": [(3, 3)]},
        {"sizes": [(8, 8), (12, 9), (40, 5)]},
    ],
)
def test_images_of_other_kinds(tmp_path: Path, options: dict[str, Any]) -> None:
    data = class_folders(tmp_path / "data", **options)
    check(run(tmp_path, data, *REPLAY, "--online_evaluation", "--num_workers", "0"), {"classifier", "online", "knn"})


@pytest.mark.parametrize("method", ["simclr", "deepclusterv2"])  # the latter reads the images before training, too
def test_large_images_through_loader_processes(tmp_path: Path, method: str) -> None:
    data = class_folders(tmp_path / "data", sizes=[(100, 120)], suffix="jpg")
    flags = [*REPLAY, "--online_evaluation", "--num_workers", "1"]
    experiment = run(tmp_path, data, *flags, method=method)
    check(experiment, {"classifier", "online", "knn"})
    for i in range(2):
        rows = csv.DictReader((experiment.task_folder(i) / "metrics.csv").open())
        assert max(int(row["step"]) for row in rows) == 3  # 24 images in batches of 8


def test_a_corrupt_file_found_by_a_loader_process_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = class_folders(tmp_path / "data", sizes=[(100, 100)], suffix="jpg")
    broken = data / "train" / "class1" / "03.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    flags = command_line("--data_dir", str(data), "--num_workers", "1", "--num_tasks", "1", dataset="custom")
    Experiment.start(tmp_path / "run", flags_of(read_args(flags)), [[0, 1, 2, 3]], ["all"])
    assert task.main([str(tmp_path / "run"), "0"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {broken}: cannot be read as an image") and error.count("\n") == 1


# Views made by loader processes


@pytest.mark.parametrize(("method", "dataset"), [("deepclusterv2", "digits"), ("dino", "custom")])
def test_ready_views_reach_the_learner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, dataset: str
) -> None:
    """Of images in memory and, cropped while they are read, in large files."""
    seen: set[tuple[str, torch.dtype, tuple[int, ...]]] = set()
    step = ContinualLearner.training_step

    def watched(self: ContinualLearner, batch: dict[str, Batch], batch_idx: int) -> dict[str, Any]:
        for name, (images, _, _) in batch.items():
            for view in [images] if isinstance(images, torch.Tensor) else images:
                seen.add((name, view.dtype, tuple(view.shape[1:])))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ContinualLearner, "training_step", watched)
    flags = ["--augment_on", "workers", "--num_workers", "2", *DISTILL, *REPLAY, "--online_evaluation"]
    if dataset == "custom":
        data = class_folders(tmp_path / "data", sizes=[(100, 120)], suffix="jpg")
        flags += ["--data_dir", str(data), "--multicrop", "--num_small_crops", "1", "--small_crop_size", "6"]
    experiment = run_experiment(command_line(*flags, method=method, dataset=dataset), tmp_path / "run")
    check(experiment, {"classifier", "online", "knn"})
    assert {dtype for _, dtype, _ in seen} == {torch.float32}
    sides = {name: {shape[-1] for other, _, shape in seen if other == name} for name, _, _ in seen}
    views = {8, 6} if dataset == "custom" else {8}
    assert sides == {"task": views, "replay": views, "online": {8}}


def test_ready_views_follow_from_the_seed_whichever_process_makes_them(tmp_path: Path, data: Path) -> None:
    flags = ["--augment_on", "workers", *REPLAY, "--online_evaluation", "--max_epochs", "2"]
    kinds = (("a", "5", "0"), ("b", "5", "2"), ("c", "6", "0"))
    first, second, other = (
        run(tmp_path, data, *flags, "--seed", seed, "--num_workers", workers, name=name)
        for name, seed, workers in kinds
    )
    for i in range(2):
        assert logged(first, i) == logged(second, i)
        assert logged(first, i) != logged(other, i)


# Images on the device


def test_images_go_to_a_device_that_has_room(tmp_path: Path, data: Path) -> None:
    device = torch.device("meta")
    small = image_folder(data / "train", "--train_dir")
    assert task.kept_on(device, small, free=4 * small.nbytes).device == device
    assert task.kept_on(device, small, free=4 * small.nbytes - 1) is small
    large = image_folder(class_folders(tmp_path / "large", [2], sizes=[(100, 100)]) / "train", "--train_dir")
    assert task.kept_on(device, large, free=0) is large


def test_where_images_lie_changes_nothing(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [*REPLAY, "--replay_selection", "herding", "--online_evaluation", "--auto_umap", "--max_epochs", "2"]
    in_files = run(tmp_path, data, *flags, name="a")

    def moved(args: Args) -> Data:
        found = open_data(args)
        return replace(found, train=task.kept_on(torch.device("cpu"), found.train, free=10**9))

    monkeypatch.setattr(task, "open_data", moved)
    in_memory = run(tmp_path, data, *flags, name="b")
    for i in range(2):
        assert heads_of(in_files, i) == heads_of(in_memory, i)
        assert logged(in_files, i) == logged(in_memory, i)


# Splits and labels


def test_domains_one_after_the_other(tmp_path: Path) -> None:
    data = domain_lists(tmp_path / "data", ["real", "quickdraw"], counts=[8, 6])
    flags = ["--data_dir", str(data), "--split_strategy", "domain", "--num_tasks", "2", "--batch_size", "4"]
    argv = command_line(*flags, *DISTILL, *REPLAY, "--online_evaluation", dataset="domainnet")
    experiment = run_experiment(argv, tmp_path / "run")
    check(experiment, {"classifier", "online", "knn"})
    results = read_json(experiment.folder / "results.json")
    assert results["task_names"] == ["real", "quickdraw"] and results["tasks"] == [list(range(345))] * 2
    assert "train/distill_classifier" in logged(experiment, 1)


def test_a_part_of_the_labels(tmp_path: Path, data: Path) -> None:
    flags = ["--supervised", *REPLAY, *DISTILL, "--online_evaluation"]
    few = run(tmp_path, data, *flags, "--semi_supervised", "0.3")
    check(few, {"classifier", "online", "knn"})
    all_of_them = run(tmp_path, data, *flags, "--num_tasks", "2", "--max_epochs", "1", name="all")
    rows = [*csv.DictReader((few.task_folder(0) / "metrics.csv").open())]
    others = [*csv.DictReader((all_of_them.task_folder(0) / "metrics.csv").open())]
    for term in ("train/ssl", "train/classifier"):  # both look at labels
        assert [row[term] for row in rows] != [row[term] for row in others]


def test_unequal_tasks(tmp_path: Path, data: Path) -> None:
    flags = ["--classes_per_task", "1", "3", "--class_order", "class2", "class0", "class1", "class3", *REPLAY]
    experiment = run(tmp_path, data, *flags)
    check(experiment, {"classifier", "knn"})
    assert read_json(experiment.folder / "experiment.json")["tasks"] == [[2], [0, 1, 3]]


@pytest.mark.parametrize("method", ["simclr", "mocov2plus"])
def test_images_without_labels(tmp_path: Path, data: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(data / "val")
    flags = [*NO_LABELS, *REPLAY, "--distiller", "contrastive", "--scheduler", "reduce", "--max_epochs", "2"]
    experiment = run(tmp_path, data, *flags, method=method)
    check(experiment, set())
    assert "train/distill_features" in logged(experiment, 1)
    results = read_json(experiment.folder / "results.json")
    assert results["heads"] == {} and results["tasks"] == [[], []] and results["task_names"] == ["part 0", "part 1"]
    before = str(experiment.checkpoint(0))
    again = run(tmp_path, data, *flags, "--task_idx", "1", "--pretrained_model", before, method=method, name="again")
    assert heads_of(again, 0) == heads_of(again, 1) == {}
    capsys.readouterr()
    assert chain(experiment, 0, 2) == 0  # all is done: what is left is to show it
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "no labels: nothing to judge; evaluate the checkpoints with python -m kaizen.evaluate"
    results_of, page = lines[-1].split("; open ")
    assert results_of.endswith("results.json, results.csv and task*/final.ckpt") and Path(page).is_file()
    assert not (experiment.folder / "plots").exists()


# The same again


def logged(experiment: Experiment, task_idx: int) -> str:
    return (experiment.task_folder(task_idx) / "metrics.csv").read_text()


def test_the_same_seed_gives_the_same_numbers_and_another_one_does_not(tmp_path: Path, data: Path) -> None:
    flags = [*DISTILL, *REPLAY, *PROBES, "--log_every_n_steps", "1"]
    first, second = (run(tmp_path, data, *flags, method="mocov2plus", name=name) for name in "ab")
    for i in range(2):
        assert heads_of(first, i) == heads_of(second, i)
        assert logged(first, i) == logged(second, i)
        one, other = (load_task(each.checkpoint(i), "")["state"] for each in (first, second))
        assert all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())
    baseline = read_json(first.accuracy(0))["baseline"]
    assert baseline == read_json(second.accuracy(0))["baseline"] and [*baseline] == ["classifier"]
    third = run(tmp_path, data, *flags, "--seed", "6", method="mocov2plus", name="c")
    assert logged(third, 0) != logged(first, 0)
    assert read_json(third.folder / "experiment.json")["tasks"] == read_json(first.folder / "experiment.json")["tasks"]


def test_a_task_run_again_from_the_one_before_gives_the_same_numbers(tmp_path: Path, data: Path) -> None:
    experiment = run(tmp_path, data, *DISTILL, *REPLAY, "--online_evaluation", method="byol")
    before, numbers = heads_of(experiment, 1), logged(experiment, 1)
    for path in experiment.task_folder(1).iterdir():
        path.unlink()
    assert not experiment.done(1)
    torch.manual_seed(99)  # whatever ran before
    run_task(Experiment.open(experiment.folder), 1)
    assert heads_of(experiment, 1) == before
    assert logged(experiment, 1) == numbers


# From one task to the next


def test_the_second_task_begins_with_what_the_first_one_knew(tmp_path: Path, data: Path) -> None:
    frozen = ["--lr", "0", "--classifier_lr", "0", "--online_eval_classifier_lr", "0"]
    experiment = run(tmp_path, data, *DISTILL, *frozen, "--optimizer", "adam", method="mocov2plus")
    first, second = (load_task(experiment.checkpoint(i), "")["state"] for i in range(2))
    for name in first:
        moves = any(part in name for part in ("running_", "num_batches", "queue"))
        assert torch.equal(first[name], second[name]) is not moves or name.endswith("queue_ptr"), name
    assert {name.split(".")[0] for name in second.keys() - first.keys()} == {"distill_features", "distill_classifier"}


def test_the_teacher_is_the_end_of_the_task_before(tmp_path: Path, data: Path) -> None:
    """Where nothing moves, the model agrees with its teacher, and a teacher with other weights would tell."""
    still = ["--lr", "0", "--classifier_lr", "0", "--distiller", "predictive_mse", "--distill_no_predictor", "True"]
    experiment = run(tmp_path, data, *still, "--log_every_n_steps", "1")
    assert "train/distill_features" not in logged(experiment, 0)
    rows = csv.DictReader((experiment.task_folder(1) / "metrics.csv").open())
    terms = [float(row["train/distill_features"]) for row in rows if row["train/distill_features"]]
    assert terms == pytest.approx([0] * 3, abs=1e-9)


def test_a_pretrained_model_starts_the_second_task(tmp_path: Path, data: Path) -> None:
    whole = run(tmp_path, data, "--seed", "3", name="whole")
    path = str(whole.checkpoint(0))
    experiment = run(tmp_path, data, "--seed", "3", "--task_idx", "1", "--pretrained_model", path, name="second")
    assert heads_of(experiment, 0) == heads_of(whole, 0)  # judged as it came
    assert read_json(experiment.folder / "results.json")["tasks_done"] == 2
    assert not experiment.done(0) and experiment.done(1)


def test_another_pretrained_model_judges_the_first_task_again(tmp_path: Path, data: Path) -> None:
    first = run(tmp_path, data, "--num_tasks", "1", "--max_epochs", "3", name="first").checkpoint(0)
    flags = ("--task_idx", "1", "--pretrained_model", str(first))
    experiment = run(tmp_path, data, *flags, name="second")
    right = heads_of(experiment, 0)
    experiment.checkpoint(1).unlink()  # as if it had stopped there
    experiment.finish_task(0, {head: [2.0] * 2 for head in right}, None, 0.0)  # of a model from before
    run(tmp_path, data, *flags, name="second")
    assert heads_of(experiment, 0) == right


def test_a_pretrained_model_without_heads(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = run(tmp_path, data, "--classifier_training", "False", "--num_tasks", "1", name="bare")
    path = bare.checkpoint(0)
    capsys.readouterr()
    experiment = run(tmp_path, data, "--pretrained_model", str(path), "--num_tasks", "1", "--lr", "0", name="next")
    assert f"--pretrained_model {path}: not taken over: classifier" in capsys.readouterr().out
    theirs, ours = (load_task(each.checkpoint(0), "")["state"] for each in (bare, experiment))
    assert torch.equal(theirs["method.encoder.0.weight"], ours["method.encoder.0.weight"])


def test_a_missing_or_damaged_checkpoint_of_the_task_before(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = run(tmp_path, data)
    path = experiment.checkpoint(0)
    path.write_bytes(path.read_bytes()[:1000])
    capsys.readouterr()
    assert task.main([str(experiment.folder), "1"]) == 2
    assert f"error: --experiment_dir {path}: cut short, damaged" in capsys.readouterr().err
    path.unlink()
    assert task.main([str(experiment.folder), "1"]) == 2
    error = capsys.readouterr().err
    assert f"{path}: no such file" in error and error.count("\n") == 1


def test_weights_follow_from_the_seed_alone() -> None:
    args = args_of()
    states = []
    for _ in range(2):
        torch.manual_seed(4)
        states.append(state_of(build_learner(args, 10, 0)))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_notices() -> None:
    if torch.cuda.is_available():
        pytest.skip("what is said on a machine without CUDA")
    assert notices(args_of()) == []
    assert notices(args_of("--gpus", "0")) == ["--gpus 0: no CUDA here, training on the CPU"]
    assert "fp16 needs CUDA" in notices(args_of("--precision", "16"))[0]
    assert "as published" in notices(args_of("--online_evaluation"))[0]
    assert notices(args_of("--online_evaluation", "--online_eval_batchnorm", "frozen")) == []
    assert "shared out equally at random" in notices(args_of(dataset="stl10"))[0]
    assert notices(args_of("--split_strategy", "data", dataset="stl10")) == []
