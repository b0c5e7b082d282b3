"""What is replayed, and what is written down of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import args_of, class_folders, command_line, run_experiment

from kaizen.building import build_learner
from kaizen.checkpoint import load_task, restore
from kaizen.data.replay import RANKINGS
from kaizen.experiment import Experiment
from kaizen.files import read_json
from kaizen.memory import remember
from kaizen.plan import Data, open_data

pytestmark = pytest.mark.usefixtures("tiny")

SELECTIONS = [*RANKINGS, "herding"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "images", counts=(9, 9, 9, 9, 9, 9))


def flags_of_run(data: Path, selection: str, *flags: str) -> list[str]:
    base = ["--data_dir", str(data), "--num_tasks", "3", "--replay", "--replay_selection", selection]
    return command_line(*base, "--replay_memory_size", "12", *flags, dataset="custom")


def kept(experiment: Experiment, task: int) -> list[list[list[int]]]:
    content = read_json(experiment.folder / f"task{task}" / "replay.json")
    return list(content["tasks"])


@pytest.mark.parametrize("selection", SELECTIONS)
def test_the_images_kept_are_written_down_and_only_shrink(tmp_path: Path, data: Path, selection: str) -> None:
    argv = flags_of_run(data, selection)
    experiment = run_experiment(argv, tmp_path / "run")
    opened = open_data(args_of(*argv[argv.index("--data_dir") :], dataset="custom"))
    assert not (experiment.folder / "task0" / "replay.json").exists()
    first, second = kept(experiment, 1), kept(experiment, 2)
    assert [[len(group) for group in task] for task in first] == [[6, 6]]
    assert [[len(group) for group in task] for task in second] == [[3, 3], [3, 3]]
    for before, after in zip(first[0], second[0], strict=True):
        assert before[:3] == after
    for task, classes in enumerate(opened.split.classes[:2]):
        for c, group in zip(classes, second[task], strict=True):
            assert {int(opened.train.targets[i]) for i in group} == {c}


def test_herding_goes_by_the_features_of_the_task_before(tmp_path: Path, data: Path) -> None:
    argv = flags_of_run(data, "herding")
    experiment = run_experiment(argv, tmp_path / "run")
    args = args_of(*argv[argv.index("--data_dir") :], dataset="custom")
    opened: Data = open_data(args)
    learner = build_learner(args, 6, 2)
    path = experiment.checkpoint(1)
    restore(learner, load_task(path, "--flag"), path, "--flag", ())

    members = opened.split.train[1][opened.train.targets[opened.split.train[1]] == opened.split.classes[1][0]]
    learner.method.encoder.eval()
    with torch.no_grad():
        feats = F.normalize(learner.method.encoder(learner.eval_view(opened.train.read(members.tolist(), ()))), dim=1)
    nearest = members[(feats - feats.mean(0)).norm(dim=1).argmin()]
    assert kept(experiment, 2)[1][0][0] == nearest

    again = remember(experiment, learner, opened, 2)
    assert sorted(again.tolist()) == sorted(i for task in kept(experiment, 2) for group in task for i in group)


def test_herding_of_a_model_from_elsewhere(tmp_path: Path, data: Path) -> None:
    whole = run_experiment(flags_of_run(data, "herding"), tmp_path / "whole")
    model = str(whole.checkpoint(0))
    later = run_experiment(
        flags_of_run(data, "herding", "--task_idx", "1", "--pretrained_model", model), tmp_path / "later"
    )
    assert kept(later, 1) == kept(whole, 1)
