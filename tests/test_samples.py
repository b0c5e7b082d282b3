"""Sample views: those that the first step makes, of the images that the names say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import class_folders, command_line, run_experiment
from PIL import Image
from torch import Tensor

from kaizen.data.loaders import Batch, join
from kaizen.experiment import Experiment
from kaizen.files import read_json
from kaizen.learner import ContinualLearner

pytestmark = pytest.mark.usefixtures("tiny")

REPLAY = ["--replay", "True", "--replay_proportion", "0.5", "--replay_batch_size", "5"]
Step = tuple[list[Tensor], Tensor]


@pytest.fixture
def first_steps(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """The views, and the labels, that the first training step of each task really works on."""
    steps: list[Step] = []
    before = ContinualLearner.training_step

    def training_step(self: ContinualLearner, batch: dict[str, Batch], batch_idx: int) -> object:
        if batch_idx == 0 and self.trainer.current_epoch == 0:
            handle = self.views.register_forward_hook(lambda m, inputs, views: steps.append((views, join(batch)[1])))
        result = before(self, batch, batch_idx)
        if batch_idx == 0 and self.trainer.current_epoch == 0:
            handle.remove()
        return result

    monkeypatch.setattr(ContinualLearner, "training_step", training_step)
    return steps


def run(tmp_path: Path, *flags: str, method: str = "simclr", size: int = 8) -> Experiment:
    class_folders(tmp_path / "data", sizes=[(size, size)])
    argv = command_line("--data_dir", str(tmp_path / "data"), *REPLAY, *flags, method=method, dataset="custom")
    return run_experiment([*argv, "--mean", "0.4", "0.5", "0.6", "--std", "0.2", "0.3", "0.25"], tmp_path / "run")


def cells(folder: Path) -> list[list[np.ndarray]]:
    """The picture cut along its gaps: rows of cells."""
    about = read_json(folder / "views.json")
    with Image.open(folder / "views.png") as image:
        picture = np.asarray(image)
    cell, gap = about["cell"], about["gap"]
    starts = [gap + place * (cell + gap) for place in range(max(len(about["rows"]), len(about["columns"])))]
    assert picture.shape[:2] == (len(about["rows"]) * (cell + gap) + gap, len(about["columns"]) * (cell + gap) + gap)
    return [
        [picture[y : y + cell, x : x + cell] for x in starts[: len(about["columns"])]]
        for y in starts[: len(about["rows"])]
    ]


def pixels(view: Tensor) -> np.ndarray:
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])
    levels = (view * std[:, None, None] + mean[:, None, None]).clamp(0, 1) * 255
    return levels.round().byte().permute(1, 2, 0).numpy()


@pytest.mark.parametrize("workers", [False, True])
def test_they_are_the_views_of_the_first_step(tmp_path: Path, first_steps: list[Step], workers: bool) -> None:
    flags = ["--augment_on", "workers", "--num_workers", "1"] if workers else []
    experiment = run(tmp_path, *flags)
    assert len(first_steps) == 2
    for task, (views, labels) in enumerate(first_steps):
        about = read_json(experiment.task_folder(task) / "views.json")
        assert about["columns"] == ["original", "view 1", "view 2"]
        chosen = [*range(6), *(range(8, 12) if task else ())]
        assert [row["from"] for row in about["rows"]] == ["task"] * 6 + ["replay"] * 4 * task
        assert [row["class"] for row in about["rows"]] == [f"class{labels[place]}" for place in chosen]
        grid = cells(experiment.task_folder(task))
        for row, place in zip(grid, chosen, strict=True):
            for cell, view in zip(row[1:], views, strict=True):
                assert np.array_equal(cell[::6, ::6], pixels(view[place]))  # 8 pixels, each six times as large


def test_small_crops_are_smaller_and_large_images_are_scaled_down(tmp_path: Path, first_steps: list[Step]) -> None:
    crops = ["--multicrop", "True", "--num_crops", "2", "--num_small_crops", "2", "--small_crop_size", "64"]
    experiment = run(tmp_path, *crops, "--size", "128", method="swav", size=130)
    folder = experiment.task_folder(1)
    assert len(read_json(folder / "views.json")["columns"]) == 5
    assert read_json(folder / "views.json")["cell"] == 96
    for row in cells(folder):
        assert [cell.shape for cell in row] == [(96, 96, 3)] * 5
        for small in row[3:]:  # 64 of 128 pixels are half a cell, in its middle
            assert (small[:24] == 255).all() and (small[-24:] == 255).all() and not (small[24:72] == 255).all()


def test_images_without_labels_have_no_class(tmp_path: Path) -> None:
    flags = ["--no_labels", "--split_strategy", "data", "--classifier_training", "False", "--disable_knn_eval"]
    class_folders(tmp_path / "data")
    argv = command_line("--data_dir", str(tmp_path / "data"), *flags, dataset="custom")
    experiment = run_experiment(argv, tmp_path / "run")
    assert {row["class"] for row in read_json(experiment.task_folder(0) / "views.json")["rows"]} == {None}
