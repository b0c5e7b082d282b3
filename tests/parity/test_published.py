"""Recorded states, as files of the published layout, through the way that a user's checkpoint takes."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kaizen.checkpoint import OPTIONAL, load_part, load_task, restore
from kaizen.cli import read_args
from kaizen.models.encoders import build_encoder

from .golden import arrays, assert_close, below, cases, require
from .step import RECORDS, Watch, recorded_batch
from .test_encoder import BATCH, FILE, VALUES, draw_weights
from .tiny import tiny_learner

every_case = pytest.mark.parametrize("case", cases("steps.json", RECORDS))


def checkpoint_file(path: Path, state: dict[str, Tensor]) -> Path:
    """What Lightning 1.5 wrote: the state, and things that only its own code can read."""
    content = {
        "epoch": 4,
        "global_step": 20,
        "pytorch-lightning_version": "1.5.10",
        "state_dict": state,
        "callbacks": {argparse.ArgumentParser: {}},
        "optimizer_states": [],
        "lr_schedulers": [],
        "hyper_parameters": {
            "args": argparse.Namespace(data_dir=Path("/data"), extra_optimizer_args={"momentum": 0.9})
        },
    }
    torch.save(content, path)
    return path


@every_case
def test_outputs_of_a_published_checkpoint(case: str, tmp_path: Path) -> None:
    require(f"step_{case}.npz", "step_batch.npz")
    record, recorded = RECORDS[case], arrays(f"step_{case}.npz")
    args = read_args(record["args"])
    path = checkpoint_file(tmp_path / "model.ckpt", below(recorded, "state"))
    learner = tiny_learner(args, record["task_idx"])
    aside = restore(learner, load_task(path, "--pretrained_model"), path, "--pretrained_model", OPTIONAL)
    assert {name.partition("_")[0] for name in aside} <= {"frozen", "callbacks", "hyper", "lr", "optimizer"}

    watch = Watch(learner)
    result = learner.training_step(recorded_batch(args, record["task_idx"]), 0)
    outputs = watch.outputs(result["out"])
    expected = {name: value for name, value in below(recorded, "out").items() if not name.startswith("frozen_")}
    assert any(name.startswith("feats") for name in expected)
    for name, value in expected.items():
        assert_close(outputs[name], value, name)


def test_the_encoder_of_a_published_checkpoint(tmp_path: Path) -> None:
    require(FILE, "step_batch.npz")
    there, _ = build_encoder("resnet18", 32)
    draw_weights(there)
    state = {f"encoder.{name}": value for name, value in there.state_dict().items()}
    path = checkpoint_file(tmp_path / "model.ckpt", {**state, "classifier.weight": torch.zeros(10, 512)})
    encoder, _ = build_encoder("resnet18", 32)
    load_part(encoder, load_task(path, "--x")["state"], "method.encoder.", path, "--x")
    images = BATCH["x1"][: len(VALUES["feats_eval"])].float()
    with torch.no_grad():
        assert_close(encoder.eval()(images), VALUES["feats_eval"], "features in evaluation mode")
