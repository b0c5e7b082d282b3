"""Features as points."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import args_of, class_folders, command_line, run_experiment

from kaizen import embedding, plots
from kaizen.embedding import LARGEST, draw_embedding, embed, sample
from kaizen.features import Features
from kaizen.notices import embedding_method, notices
from kaizen.plan import open_data


def two_clouds() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 5, generator=generator) + 12 * (torch.arange(40) % 2)[:, None]


def test_tsne_keeps_neighbours_together_and_follows_from_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "embedding_method", lambda: "t-SNE")
    points = embed(two_clouds(), seed=1)
    assert points.shape == (40, 2) and points.isfinite().all()
    nearest = torch.cdist(points, points).fill_diagonal_(torch.inf).argmin(dim=1)
    assert torch.equal(nearest % 2, torch.arange(40) % 2)
    assert torch.equal(points, embed(two_clouds(), seed=1))


def test_umap_is_taken_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class UMAP:
        def __init__(self, n_neighbors: int, random_state: int, n_jobs: int) -> None:
            assert (n_neighbors, random_state, n_jobs) == (15, 3, 1)

        def fit_transform(self, values: np.ndarray) -> np.ndarray:
            return values[:, :2]

    module = types.ModuleType("umap")
    module.UMAP = UMAP  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "umap", module)
    assert embedding_method() == "UMAP"
    assert torch.equal(embed(two_clouds(), seed=3), two_clouds()[:, :2])


def test_a_large_set_is_sampled() -> None:
    assert sample(10, 0).tolist() == list(range(10))
    rows = sample(3 * LARGEST, 0)
    assert len(rows.unique()) == LARGEST and torch.equal(rows, sample(3 * LARGEST, 0))


def test_classes_not_trained_yet_are_hollow() -> None:
    figure = plots.embedding(np.zeros((4, 2)), [0, 1, 1, 0], ["cat", "dog"], [1], "after task 0")
    cat, dog = figure.axes[0].collections
    assert (cat.get_label(), dog.get_label()) == ("cat (not yet)", "dog")
    assert len(cat.get_facecolors()) == 0 and len(dog.get_facecolors()) == 1


@pytest.mark.usefixtures("tiny")
def test_every_task_gets_its_picture(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "images")
    argv = command_line("--data_dir", str(data), "--auto_umap", "--batch_size", "8", dataset="custom")
    experiment = run_experiment(argv, tmp_path / "run")
    for task in (0, 1):
        assert (experiment.folder / "plots" / f"embedding_task{task}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("count", [1, 3, 4])
def test_few_images_are_drawn_or_left_undrawn(count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = open_data(args_of("--num_tasks", "5"))
    feats = torch.randn(count, 8, generator=torch.Generator().manual_seed(1))
    draw_embedding(Features(feats, torch.arange(count), torch.arange(count)), data, 0, tmp_path, 0)
    assert (tmp_path / "plots" / "embedding_task0.png").exists() == (count == 4)
    assert (f"--auto_umap: {count} test images are too few to draw" in capsys.readouterr().out) == (count < 4)


@pytest.mark.usefixtures("tiny")
def test_what_is_drawn_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    args = args_of("--auto_umap")
    monkeypatch.setattr("kaizen.notices.embedding_method", lambda: "t-SNE")
    assert any("--auto_umap: umap-learn is not installed" in line for line in notices(args))
    monkeypatch.setattr("kaizen.notices.embedding_method", lambda: "UMAP")
    assert not any("--auto_umap" in line for line in notices(args))
