"""ONNX files compute what the model computes, and say what it is."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from helpers import args_of, learner_of

import kaizen
from kaizen import export
from kaizen.checkpoint import save_task
from kaizen.cli import flags_of
from kaizen.export import Graph, differences, main, to_onnx
from kaizen.trained_on import TrainedOn

pytestmark = pytest.mark.usefixtures("tiny")

SEEN = [0, 3, 4, 7, 9]
ABOUT = TrainedOn([f"class {c}" for c in range(10)], [[3, 0], [4, 9, 7]], cropped=True)


def checkpoint(path: Path, *flags: str) -> Path:
    """As after the second task, with BatchNorm statistics and weights of their own."""
    learner = learner_of(*flags)
    generator = torch.Generator().manual_seed(1)
    for name, value in learner.state_dict().items():
        if name.endswith(("running_mean", "classifier.0.weight")):
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    save_task(learner, path, 1, flags_of(args_of(*flags)), trained_on=ABOUT)
    return path


def images(count: int, size: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def outputs(path: Path, levels: torch.Tensor) -> dict[str, torch.Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {"images": (levels / 255).numpy()})
    return dict(zip(names, map(torch.from_numpy, found), strict=True))


RESNETS = [("resnet9", "--encoder_width", "0.25"), pytest.param(("resnet18",), marks=pytest.mark.slow)]


@pytest.mark.parametrize("encoder", [("tiny",), ("tiny", "--precision", "64"), *RESNETS])
def test_the_file_computes_what_the_model_does(
    encoder: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = checkpoint(tmp_path / "final.ckpt", "--encoder", *encoder), tmp_path / "model.onnx"
    assert main(["--checkpoint", str(path), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and "largest difference to torch on 8 random images: probabilities " in told
    onnx.checker.check_model(out)
    model = kaizen.load(path)
    model.reader = type(model.reader)(8, cropped=False)  # the file's images are cropped already
    for count in (1, 7):
        found, levels = outputs(out, images(count)), images(count)
        expected = model.predict(levels)
        torch.testing.assert_close(found["probabilities"], expected.probabilities, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["features"], model.features(levels), rtol=1e-4, atol=1e-5)
        assert found["logits"].shape == (count, 10) and found["logits"].isfinite().all()
    unseen = [label for label in range(10) if label not in SEEN]
    assert found["probabilities"][:, unseen].eq(0).all()
    assert [entry.name for entry in sorted(tmp_path.iterdir())] == ["final.ckpt", "model.onnx"]


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    path, out = checkpoint(tmp_path / "final.ckpt"), tmp_path / "model.onnx"
    assert main(["--checkpoint", str(path), "--out", str(out), "--opset", "20", "--classes", "all"]) == 0
    proto = onnx.load(out)
    about = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    assert about == {
        "image_size": 8,
        "shorter_side_before_central_crop": 9,
        "task_idx": 1,
        "head": "classifier",
        "classes": ABOUT.classes,
        "seen_classes": SEEN,
    }
    assert [entry.version for entry in proto.opset_import if not entry.domain] == [20]
    assert outputs(out, images(4))["probabilities"].gt(0).all()  # --classes all


def test_features_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "final.ckpt", tmp_path / "model.onnx"
    flags = ("--classifier_training", "False")
    save_task(learner_of(*flags), path, 0, flags_of(args_of(*flags)), trained_on=TrainedOn(["a"], [[0]], False))
    argv = ["--checkpoint", str(path), "--out", str(out)]
    assert main(argv) == 2 and not out.exists()
    assert capsys.readouterr().err == f"error: --checkpoint {path}: has no classifier; use --features\n"
    assert main([*argv, "--features"]) == 0
    found = outputs(out, images(3))
    assert [*found] == ["features"]
    torch.testing.assert_close(found["features"], kaizen.load(path).features(images(3)), rtol=1e-4, atol=1e-5)


def test_a_file_that_computes_something_else_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = checkpoint(tmp_path / "final.ckpt"), tmp_path / "model.onnx"
    out.write_text("before")

    def wrong(graph: Graph, size: int, opset: int) -> Any:
        with torch.no_grad():
            graph.mean.add_(0.01)
            proto = to_onnx(graph, size, opset)
            graph.mean.sub_(0.01)
        return proto

    monkeypatch.setattr(export, "to_onnx", wrong)
    assert main(["--checkpoint", str(path), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "is not written, as onnxruntime computes other " in error and error.count("\n") == 1
    assert out.read_text() == "before" and len([*tmp_path.iterdir()]) == 2
    graph = Graph(kaizen.load(path), False, "seen")
    with pytest.raises(export.UsageError, match="as onnxruntime refuses it"):
        differences(graph, b"no graph", 8, out)


def test_what_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint(tmp_path / "final.ckpt")

    def refused(*flags: str) -> str:
        assert main(list(flags)) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        return error

    out = ("--out", str(tmp_path / "x.onnx"))
    assert "--out: is missing" in refused("--checkpoint", str(path))
    assert "is a folder" in refused("--checkpoint", str(path), "--out", str(tmp_path))
    assert "no such file" in refused("--checkpoint", str(tmp_path / "none.ckpt"), *out)
    assert "--opset 17: must be at least 18" in refused("--checkpoint", str(path), *out, "--opset", "17")
    assert "--opset 999: the installed onnx has " in refused("--checkpoint", str(path), *out, "--opset", "999")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else 1)
    error = refused("--checkpoint", str(path), *out)
    assert error == "error: kaizen.export needs onnxruntime; pip install onnx onnxscript onnxruntime\n"
