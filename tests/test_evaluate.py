"""Evaluations of small experiments and of single checkpoints, in this process."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import args_of, batch_of, class_folders, command_line, learner_of, run_experiment

from kaizen import evaluate, judge, task
from kaizen.checkpoint import save_task
from kaizen.cli import flags_of
from kaizen.data.datasets import DATASETS
from kaizen.data.identity import contents_digest
from kaizen.data.images import MemoryImages, image_folder
from kaizen.evaluate import main
from kaizen.experiment import Experiment
from kaizen.files import read_json, write_json
from kaizen.metrics import summarize
from kaizen.protocols import read_request

ROOT = Path(__file__).resolve().parent.parent
LINEAR = ("--max_epochs", "4", "--lr", "0.5")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(autouse=True)
def quick(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny encoder, and no plots: drawing takes longer than all else here."""
    monkeypatch.setattr(task, "draw_plots", lambda results, folder: None)
    monkeypatch.setattr(evaluate, "draw_plots", lambda results, folder: None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks of two classes with every head that a training can have, data beside it."""
    root = tmp_path_factory.mktemp("trained")
    data = class_folders(root / "data", counts=(12,) * 6)
    with pytest.MonkeyPatch.context() as patch:
        from helpers import tiny_encoder

        from kaizen.models.encoders import ENCODERS

        patch.setitem(ENCODERS, "tiny", tiny_encoder)
        patch.setattr(task, "draw_plots", lambda results, folder: None)
        flags = ("--num_tasks", "3", "--online_evaluation", "--momentum_classifier", "--classifier_layers", "5")
        argv = command_line("--data_dir", str(data), *flags, method="mocov2plus", dataset="custom")
        run_experiment(argv, root / "run")
    return root


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained / "run", tmp_path / "run")


def evaluated(folder: Path, *flags: str) -> dict[str, Any]:
    assert main(["--experiment", str(folder), *flags]) == 0
    return dict(read_json(folder / "results.json"))


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(list(argv)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def trainings_files(folder: Path) -> dict[str, bytes]:
    names = ("accuracy.json", "final.ckpt", "experiment.json", "metrics.csv")
    return {str(path): path.read_bytes() for name in names for path in folder.rglob(name)}


@pytest.mark.parametrize("protocol", ["classifier", "online", "knn"])
def test_the_numbers_of_the_training_come_out_again(
    folder: Path, protocol: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before, files = read_json(folder / "results.json"), trainings_files(folder)
    results = evaluated(folder, "--protocol", protocol)
    heads = {"online": ["momentum_online", "online"]}.get(protocol, [protocol])
    for index in range(3):
        trained = read_json(folder / f"task{index}" / "accuracy.json")
        for head in heads:
            found = read_json(folder / f"task{index}" / "evaluation" / f"{head}.json")
            assert found["accuracy"] == trained["heads"][head]  # exactly
            assert found["baseline"] == (trained["baseline"].get(head) if index == 0 else None)
    assert results == before and trainings_files(folder) == files
    assert capsys.readouterr().out.count("(the training found the same)") == 3 * len(heads)


def test_linear_is_a_head_beside_the_others_and_the_same_each_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, files = read_json(folder / "results.json"), trainings_files(folder)
    results = evaluated(folder, *LINEAR)
    assert list(results["heads"]) == [*before["heads"], "linear"]
    assert {name: results["heads"][name] for name in before["heads"]} == before["heads"]
    found = results["heads"]["linear"]
    matrix, baseline = found["accuracy_matrix"], found["baseline"]
    assert found == {"accuracy_matrix": matrix, "baseline": baseline, **summarize(matrix, baseline)}
    assert found["final_accuracy"] > 0.3 and found["forward_transfer"] is not None
    assert matrix[0][1] + matrix[0][2] > 0  # it saw the labels of all tasks
    with (folder / "results.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["head"] == "linear"]
    assert [float(row["value"]) for row in rows if row["kind"] == "accuracy"] == sum(matrix, [])

    def never(*args: Any) -> None:
        raise AssertionError("extracted again")

    written = {name: (folder / name).read_bytes() for name in ("results.json", "results.csv")}
    monkeypatch.setattr(judge, "extract_features", never)
    evaluated(folder, *LINEAR)
    assert {name: (folder / name).read_bytes() for name in written} == written
    evaluated(folder, *LINEAR, "--labels", "current_task")  # other labels, the same features
    evaluated(folder, "--protocol", "knn", "--labels", "all_tasks")
    assert trainings_files(folder) == files


def test_labels_say_what_may_be_learned(folder: Path) -> None:
    heads = evaluated(folder, *LINEAR, "--labels", "current_task")["heads"]
    heads = evaluated(folder, *LINEAR, "--labels", "seen_tasks")["heads"]
    current, seen = (heads[f"linear_{name}"]["accuracy_matrix"] for name in ("current_task", "seen_tasks"))
    for trained in range(3):
        for tested in range(3):
            assert current[trained][tested] == 0 or tested == trained
            assert seen[trained][tested] == 0 or tested <= trained
        assert current[trained][trained] > 0
    assert seen[2][0] > 0 or seen[2][1] > 0


def test_the_rows_of_some_tasks_wait_for_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    whole = evaluated(shutil.copytree(folder, tmp_path / "other"), *LINEAR)
    results = evaluated(folder, *LINEAR, "--tasks", "2", "0")
    assert "linear" not in results["heads"] and results["waiting"] == {"linear": [0, 2]}
    assert "linear: has rows for task 0, 2 alone" in capsys.readouterr().out
    assert "other settings" not in refusal(capsys, "--experiment", str(folder), *LINEAR, "--tasks", "3")
    message = refusal(capsys, "--experiment", str(folder), "--max_epochs", "4", "--lr", "0.1", "--tasks", "1")
    assert "task 0 was evaluated with --lr 0.5" in message
    assert not (folder / "task1" / "evaluation").exists()
    assert evaluated(folder, *LINEAR, "--tasks", "1") == whole
    assert whole["waiting"] == {}


def test_rows_of_different_settings_never_meet(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated(folder, *LINEAR)
    path = folder / "task1" / "evaluation" / "linear.json"
    row = read_json(path)
    write_json(path, {**row, "settings": {**row["settings"], "lr": 9.0}})
    results = evaluated(folder, "--protocol", "classifier")
    assert "linear" not in results["heads"] and results["waiting"] == {"linear": [0, 1, 2]}
    assert "linear: has rows not all with the same settings" in capsys.readouterr().out
    assert "linear" in evaluated(folder, *LINEAR)["heads"]  # all of them anew


def test_a_task_trained_anew_has_no_evaluation(folder: Path) -> None:
    evaluated(folder, *LINEAR)
    experiment = Experiment.open(folder)
    accuracy = read_json(experiment.accuracy(1))["heads"]
    experiment.finish_task(1, accuracy, None, 0.0)
    assert not experiment.evaluation(1, "linear").exists() and experiment.evaluation(0, "linear").exists()


def test_features_of_another_model_are_not_used(folder: Path) -> None:
    first = evaluated(folder, "--protocol", "knn", "--labels", "all_tasks", "--tasks", "0")
    assert first["waiting"] == {"knn_all_tasks": [0]}
    before = read_json(folder / "task0" / "evaluation" / "knn_all_tasks.json")
    path = folder / "task0" / "final.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    for name, value in checkpoint["state"].items():
        if name.startswith("method.encoder.0."):
            value.normal_(generator=torch.Generator().manual_seed(3))
    torch.save(checkpoint, path)
    evaluated(folder, "--protocol", "knn", "--labels", "all_tasks", "--tasks", "0")
    after = read_json(folder / "task0" / "evaluation" / "knn_all_tasks.json")
    assert after["baseline"] == before["baseline"] and after["accuracy"] != before["accuracy"]


def test_a_running_experiment(folder: Path) -> None:
    (folder / "task2" / "accuracy.json").unlink()
    results = evaluated(folder, *LINEAR)
    assert results["tasks_done"] == 2 and len(results["heads"]["linear"]["accuracy_matrix"]) == 2


def test_broken_experiments_are_one_line(
    folder: Path, trained: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "holds no experiment.json" in refusal(capsys, "--experiment", str(tmp_path))
    assert "--dataset: is the experiment's own" in refusal(capsys, "--experiment", str(folder), "--dataset", "digits")
    assert "--tasks 3: is not finished" in refusal(capsys, "--experiment", str(folder), "--tasks", "3")
    other = class_folders(tmp_path / "data", counts=(12,) * 3)
    assert "--data_dir" in refusal(capsys, "--experiment", str(folder), "--data_dir", str(other))
    (folder / "task1" / "final.ckpt").write_bytes(b"half")
    assert "task1/final.ckpt: cut short" in refusal(capsys, "--experiment", str(folder), *LINEAR)
    (folder / "task1" / "final.ckpt").unlink()
    assert "checkpoint of task 1 is missing" in refusal(capsys, "--experiment", str(folder), "--tasks", "1")
    assert evaluated(folder, *LINEAR)["waiting"] == {"linear": [0, 2]}
    (folder / "task0" / "evaluation" / "linear.json").write_text('{"accuracy": [2], "baseline": null, "settings": {}}')
    assert "delete the file or evaluate again" in refusal(capsys, "--experiment", str(folder), "--tasks", "2")


def test_an_experiment_that_began_with_a_foreign_model(trained: Path, tmp_path: Path) -> None:
    start = trained / "run" / "task0" / "final.ckpt"
    flags = ("--num_tasks", "3", "--task_idx", "1", "--pretrained_model", str(start))
    argv = command_line("--data_dir", str(trained / "data"), *flags, method="mocov2plus", dataset="custom")
    run_experiment(argv, tmp_path / "run")
    found = evaluated(tmp_path / "run", *LINEAR)["heads"]["linear"]
    assert len(found["accuracy_matrix"]) == 3 and found["forward_transfer"] is None  # no untrained network


def test_a_dry_run_of_an_experiment_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.rglob("*"))
    assert main(["--experiment", str(folder), "--dry_run", "--brightness", "0.1"]) == 0
    out = capsys.readouterr().out
    assert "warning: not used by an evaluation: --brightness" in out and "rate 3, step at 60 80, 100 epochs" in out
    assert sorted(folder.rglob("*")) == before


# One checkpoint.


def published_file(path: Path, *flags: str, classes: int = 10) -> Path:
    """A model as the published code saves it."""
    learner = learner_of(*flags, classes=classes)
    names = {
        "method.encoder": "encoder",
        "classifier.0": "classifier.fc_output",
        "probes.online.0": "online_eval_classifier.fc_output",
    }
    state = {
        name.replace(ours, theirs): value
        for name, value in learner.state_dict().items()
        for ours, theirs in names.items()
        if name.startswith(ours)
    }
    torch.save({"state_dict": state, "hyper_parameters": {"path": Path("x")}, "epoch": 3}, path)
    return path


BASE = ("--dataset", "digits", "--num_tasks", "5", "--encoder", "tiny", "--size", "8")


def test_a_published_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = published_file(tmp_path / "model.ckpt"), tmp_path / "out"
    argv = ["--pretrained_feature_extractor", str(path), *BASE, "--max_epochs", "20", "--lr", "3"]
    assert main([*argv, "--out", str(out)]) == 0
    text, found = capsys.readouterr().out, read_json(out / "linear.json")
    by_task, sizes = found["accuracy_by_task"], [72, 72, 72, 70, 69]
    assert found["mean_accuracy_over_tasks"] == pytest.approx(sum(by_task) / 5)
    over_images = sum(a * n for a, n in zip(by_task, sizes, strict=True)) / sum(sizes)
    assert found["accuracy_over_images"] == pytest.approx(over_images) and over_images > 0.3
    assert found["accuracy_over_images"] != pytest.approx(found["mean_accuracy_over_tasks"], abs=1e-6)
    for label, value in (("mean over tasks", "mean_accuracy_over_tasks"), ("all test images", "accuracy_over_images")):
        assert any(label in line and f"{found[value]:.3f}" in line for line in text.splitlines())
    written = (out / "linear.json").read_bytes()
    assert main([*argv, "--out", str(out)]) == 0
    assert (out / "linear.json").read_bytes() == written
    assert not list(tmp_path.glob("task*")) and sorted(p.name for p in out.iterdir()) == ["features", "linear.json"]


@pytest.mark.parametrize(
    ("mode", "head", "part"),
    [("classifier_eval", "classifier", "classifier"), ("online_classifier_eval", "online", "online")],
)
def test_the_heads_of_a_published_model(tmp_path: Path, mode: str, head: str, part: str) -> None:
    path, out = published_file(tmp_path / "model.ckpt", "--online_evaluation"), tmp_path / "out"
    argv = ["--pretrained_model", str(path), *BASE, "--evaluation_mode", mode, "--out", str(out)]
    assert main(argv) == 0
    learner = learner_of("--online_evaluation").eval()
    train, test = DATASETS["digits"].open(args_of())
    with torch.no_grad():
        images = test.read(range(len(test)), None)  # type: ignore[arg-type]
        logits = learner.look(learner.eval_view(images))[1][part]
    expected = float((logits.argmax(dim=1) == test.targets).float().mean())
    assert read_json(out / f"{head}.json")["accuracy_over_images"] == pytest.approx(expected)


def test_our_own_checkpoint_needs_no_other_flag(trained: Path, tmp_path: Path) -> None:
    path = trained / "run" / "task1" / "final.ckpt"
    for protocol in ("classifier", "knn"):
        flags = () if protocol == "classifier" else ("--labels", "seen_tasks")
        assert main(["--pretrained_model", str(path), "--protocol", protocol, *flags, "--out", str(tmp_path)]) == 0
        head = "knn_seen_tasks" if protocol == "knn" else protocol
        trained_row = read_json(trained / "run" / "task1" / "accuracy.json")["heads"][protocol]
        assert read_json(tmp_path / f"{head}.json")["accuracy_by_task"] == trained_row


@pytest.mark.parametrize("flags", [["--experiment"], ["--pretrained_model"]])
def test_a_device_that_is_not_here_is_one_line(
    trained: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    place = trained / "run" if flags == ["--experiment"] else trained / "run" / "task1" / "final.ckpt"
    assert "--accelerator gpu: no CUDA here" in refusal(capsys, *flags, str(place), "--accelerator", "gpu")


def test_out_is_a_folder(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = trained / "run" / "task1" / "final.ckpt", tmp_path / "results.json"
    out.touch()
    assert f"--out {out}: is a file; name a folder" in refusal(
        capsys, "--pretrained_model", str(path), "--protocol", "knn", "--out", str(out)
    )


def test_image_sets_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    folders = [class_folders(tmp_path / name, [3, 3], sizes=[(8, 8)]) / "train" for name in "ab"]
    first, second = (contents_digest(image_folder(folder, "--train_dir")) for folder in folders)
    assert first != second and first == contents_digest(image_folder(folders[0], "--train_dir"))
    levels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    black, grey = (MemoryImages(levels + value, torch.arange(2), ["a", "b"]) for value in (0, 99))
    assert contents_digest(black) != contents_digest(grey)


def test_features_of_other_images_are_not_taken(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained / "run" / "task0" / "final.ckpt"
    made: list[int] = []
    extract = judge.extract_features
    monkeypatch.setattr(judge, "extract_features", lambda *args: (made.append(1), extract(*args))[1])
    command = ["--pretrained_model", str(path), "--protocol", "knn", "--out", str(tmp_path / "out")]
    for flags, new in (([], 2), ([], 0), (["--held_back", "0.5"], 2)):
        made.clear()
        assert main([*command, *flags]) == 0
        assert len(made) == new


def test_the_same_images_in_every_task_are_counted_once(trained: Path, tmp_path: Path) -> None:
    path = trained / "run" / "task0" / "final.ckpt"
    flags = ("--split_strategy", "data", "--num_tasks", "3", "--out", str(tmp_path))
    assert main(["--pretrained_model", str(path), "--protocol", "knn", *flags]) == 0
    found = read_json(tmp_path / "knn.json")
    assert len(set(found["accuracy_by_task"])) == 1
    assert found["accuracy_over_images"] == pytest.approx(found["mean_accuracy_over_tasks"])


def test_unfit_checkpoints_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = published_file(tmp_path / "model.ckpt")

    def refused(*flags: str) -> str:
        return refusal(capsys, "--pretrained_model", str(path), *BASE, *flags)

    assert "method.encoder" in refused("--encoder", "resnet9") and "another architecture" in refused(
        "--encoder", "resnet9"
    )
    assert "has no online head; use --protocol linear" in refused("--protocol", "online")
    assert "--tasks: goes with --experiment" in refused("--tasks", "1")
    assert "--lr 1e+38: the loss" in refused("--lr", "1e38")
    assert "no such file" in refusal(capsys, "--pretrained_model", str(tmp_path / "none.ckpt"), *BASE)
    few = published_file(tmp_path / "few.ckpt", classes=4)
    assert "has 4 classes and digits 10" in refusal(
        capsys, "--pretrained_model", str(few), *BASE, "--protocol", "classifier"
    )


def test_a_head_of_many_layers(tmp_path: Path) -> None:
    layers = ("--classifier_layers", *["6"] * 6)
    learner = learner_of(*layers)
    save_task(learner, tmp_path / "final.ckpt", 0, flags_of(args_of(*layers)))
    assert main(["--pretrained_model", str(tmp_path / "final.ckpt"), "--protocol", "classifier"]) == 0
    assert learner.eval().look(learner.eval_view(batch_of()[0]))[1]["classifier"].shape == (8, 10)


# Published command lines.

LINES = [line.split("\t") for line in (ROOT / "tests/published/cassle_linear.txt").read_text().splitlines()]


@pytest.mark.parametrize(("name", "line"), LINES, ids=[name for name, _ in LINES])
def test_published_linear_evaluations_are_understood(
    name: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = line.replace("$DATA_DIR", str(tmp_path)).replace("$PRETRAINED_PATH", str(tmp_path / "model.ckpt")).split()
    assert main([*argv, "--dry_run"]) == 0
    out = capsys.readouterr().out
    rate = argv[argv.index("--lr") + 1]
    assert f"linear, labels of all_tasks; sgd, rate {float(rate):g}, step at 60 80, 100 epochs in batches of 256" in out
    assert "not checked: --pretrained_feature_extractor" in out and "warning" not in out


def test_there_are_as_many_as_published() -> None:
    assert len(LINES) == 65


def test_their_flags_on_data_that_are_here(tmp_path: Path) -> None:
    """What every line has, but for flags without effect."""
    line = next(line for name, line in LINES if name == "imagenet-100/class/byol_linear")
    words = line.replace("imagenet100", "digits").replace("--dali ", "").replace("--save_checkpoint", "").split()
    asked, args = read_request([*words, "--offline"])
    assert (asked.protocol, args.lr, args.num_tasks, args.lr_decay_steps) == ("linear", 3.0, 5, [60, 80])
    cut = words.index("--wandb")
    path = published_file(tmp_path / "model.ckpt")
    words[words.index("--pretrained_feature_extractor") + 1] = str(path)
    out = ("--encoder", "tiny", "--size", "8", "--max_epochs", "3", "--out", str(tmp_path))
    assert main([*words[:cut], *words[cut + 1 :], *out]) == 0
    assert json.loads((tmp_path / "linear.json").read_text())["settings"]["lr"] == 3.0


def test_as_a_program(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kaizen.evaluate", "--experiment", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith("error: --experiment ") and done.stdout == ""


@pytest.mark.parametrize("precision", ["bf16", "64"])
def test_the_precision_of_the_training(
    precision: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--num_tasks", "3", "--precision", precision, "--online_evaluation")
    run_experiment(command_line("--data_dir", str(trained / "data"), *flags, dataset="custom"), tmp_path / "run")
    for protocol in ("classifier", "online"):
        evaluated(tmp_path / "run", "--protocol", protocol)
    assert capsys.readouterr().out.count("(the training found the same)") == 6
    assert evaluated(tmp_path / "run", *LINEAR)["heads"]["linear"]["final_accuracy"] > 0.3
