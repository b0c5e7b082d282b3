"""Predictions for a folder: the CSV file, the line at the end, and what is refused."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import class_folders, command_line, run_experiment, tiny_encoder
from PIL import Image

import kaizen
from kaizen import task
from kaizen.models.encoders import ENCODERS
from kaizen.predict import counted, main, path_cell, text_cell, write_table

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with two tasks of two classes; and one without a classifier."""
    root = tmp_path_factory.mktemp("predict")
    class_folders(root / "data")
    data = ("--data_dir", str(root / "data"), "--class_order", "2", "0", "3", "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "tiny", tiny_encoder)
        patch.setattr(task, "draw_plots", lambda results, folder: None)
        run_experiment(command_line(*data, dataset="custom"), root / "run")
        flags = ("--classifier_training", "False", "--num_tasks", "1")
        run_experiment(command_line(*data, *flags, dataset="custom"), root / "bare")
    return root


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def test_every_image_has_its_class(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, images = tmp_path / "x.csv", root / "data" / "val"
    argv = ["--checkpoint", str(root / "run"), "--images", str(images), "--out", str(out)]
    assert main([*argv, "--top", "3", "--batch_size", "5"]) == 0
    rows = read(out)
    assert [*rows[0]] == ["path", "label", "probability", "label_2", "probability_2", "label_3", "probability_3"]
    names = [row["path"] for row in rows]
    assert names == [f"class{c}/{i:02d}.png" for c in range(4) for i in range(4)]
    found = kaizen.load(root / "run").predict([images / name for name in names])
    best = found.probabilities.topk(3)
    for place, suffix in enumerate(("", "_2", "_3")):
        assert [row[f"label{suffix}"] for row in rows] == [f"class{c}" for c in best.indices[:, place].tolist()]
        shares = torch.tensor([float(row[f"probability{suffix}"]) for row in rows])
        torch.testing.assert_close(shares, best.values[:, place], atol=1e-5, rtol=0)
    heads = json.loads((root / "run" / "task1" / "accuracy.json").read_text())["heads"]
    right = sum(row["label"] == row["path"].split("/")[0] for row in rows)
    assert right / len(rows) == pytest.approx(sum(heads["classifier"]) / 2)  # what the training found
    told = capsys.readouterr().out
    counts = [f"class{c} {n}" for c, n in enumerate(torch.bincount(found.labels).tolist()) if n]
    assert f"16 images in {out}: " in told and all(count in told for count in counts)


def test_only_classes_learnt_so_far_unless_all_are_asked_for(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.csv"
    end = root / "run" / "task0" / "final.ckpt"
    argv = ["--checkpoint", str(end), "--images", str(root / "data"), "--out", str(out)]
    assert main([*argv, "--top", "2"]) == 0
    rows = read(out)
    assert len(rows) == 64 and {row["label"] for row in rows} <= {"class0", "class2"}
    assert main([*argv, "--top", "4", "--classes", "all"]) == 0
    assert {row[f"label{place}"] for row in read(out) for place in ("", "_2", "_3", "_4")} >= {"class1", "class3"}
    assert main([*argv, "--top", "3"]) == 2
    assert capsys.readouterr().err == "error: --top 3: there are 2 classes to choose from; give at most 2\n"


def test_features(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = root / "data" / "val"
    argv = ["--checkpoint", str(root / "bare"), "--images", str(images)]
    assert main([*argv, "--features", "f.npz"]) == 0
    with np.load(tmp_path / "f.npz") as file:
        feats, paths = file["features"], file["paths"].tolist()
    expected = kaizen.load(root / "bare").features([images / name for name in paths])
    np.testing.assert_allclose(feats, expected.numpy(), rtol=1e-5, atol=1e-6)
    assert [entry.name for entry in tmp_path.iterdir()] == ["f.npz"]
    assert "features of 16 images in f.npz" in capsys.readouterr().out
    assert main(argv) == 2
    assert "has no classifier and can tell features alone" in capsys.readouterr().err
    argv[1] = str(root / "run")
    assert main(argv) == 0 and len(read(tmp_path / "predictions.csv")) == 16


def test_what_is_refused_in_one_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, run = str(root / "data"), str(root / "run")

    def refused(*flags: str) -> str:
        assert main(list(flags)) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        return error

    out = ("--out", str(tmp_path / "x.csv"))
    assert "--checkpoint: is missing" in refused("--images", images)
    assert "--images: is missing" in refused("--checkpoint", run)
    assert "unknown flag --image (did you mean --images?)" in refused("--image", images)
    assert "holds no finished task" in refused("--checkpoint", str(tmp_path), "--images", images, *out)
    assert "no such file" in refused("--checkpoint", str(tmp_path / "none.ckpt"), "--images", images, *out)
    assert "no such folder" in refused("--checkpoint", run, "--images", str(tmp_path / "none"), *out)
    (tmp_path / "empty").mkdir()
    assert "holds no .jpg" in refused("--checkpoint", run, "--images", str(tmp_path / "empty"), *out)
    assert "there is no folder" in refused("--checkpoint", run, "--images", images, "--out", str(tmp_path / "a" / "b"))
    assert "is a folder" in refused("--checkpoint", run, "--images", images, "--out", str(tmp_path))
    same = ("--features", str(tmp_path / "x.csv"))
    assert "--out has the same name" in refused("--checkpoint", run, "--images", images, *out, *same)
    assert "has no online head" in refused("--checkpoint", run, "--images", images, "--head", "online", *out)
    (tmp_path / "bad.ckpt").write_bytes(b"PK half")
    assert "damaged" in refused("--checkpoint", str(tmp_path / "bad.ckpt"), "--images", images, *out)
    assert not (tmp_path / "x.csv").exists()


def test_bad_images_stop_it_or_are_left_out(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "images", tmp_path / "x.csv"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "good.png")
    (folder / "bad.png").write_text("no image")
    (folder / "notes.txt").write_text("no image either")
    argv = ["--checkpoint", str(root / "run"), "--images", str(folder), "--out", str(out)]
    assert main(argv) == 2 and not out.exists()
    assert f"{folder / 'bad.png'}: cannot be read as an image" in capsys.readouterr().err
    assert main([*argv, "--skip_bad_images"]) == 0
    assert [row["path"] for row in read(out)] == ["good.png"]
    assert "skipped 1 of 2 images" in capsys.readouterr().out
    (folder / "good.png").unlink()
    assert main([*argv, "--skip_bad_images"]) == 2
    assert "no image can be read" in capsys.readouterr().err


def test_names_that_mean_something_elsewhere(root: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "x.csv"
    names = ["=1+1.png", "@a,b.png", 'a"b.png', "line\nbreak.png", "-x/+1.png", "é.png", os.fsdecode(b"\xff.png")]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name, format="png")
    assert main(["--checkpoint", str(root / "run"), "--images", str(folder), "--out", str(out)]) == 0
    found = [row["path"] for row in read(out)]
    assert {*found} == {"./=1+1.png", "./@a,b.png", "./-x/+1.png", *names[2:4], *names[5:]}
    assert all((folder / name).is_file() for name in found)


def test_labels_that_are_no_formulas(tmp_path: Path) -> None:
    write_table(tmp_path / "x.csv", ["a"], torch.tensor([[1, 0]]), torch.tensor([[0.75, 0.25]]), ["b, c", "=1+1"])
    text = (tmp_path / "x.csv").read_text()
    assert text == 'path,label,probability,label_2,probability_2\na,\'=1+1,0.750000,"b, c",0.250000\n'
    names = ("+", "-1", "@x", "\tx", "a=b", "0")
    assert [text_cell(name) for name in names] == ["'+", "'-1", "'@x", "'\tx", "a=b", "0"]
    assert [path_cell(name) for name in ("=a", "a/=b")] == ["./=a", "a/=b"]


def test_the_line_at_the_end_is_one_line() -> None:
    assert counted(["b", "a\nc", "b"]) == "b 2, a\ufffdc 1"
    told = counted([str(c) for c in range(25)] + ["3"] * 2)
    assert told.startswith("3 3, 0 1, ") and told.endswith(", 5 other classes 5")


def test_as_a_program(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kaizen.predict", "--checkpoint", str(tmp_path), "--images", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and done.stderr.startswith("error: --checkpoint ") and done.stdout == ""
