from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import args_of, changed, learner_of, state_of
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.parsing import AttributeDict
from torch import Tensor

from kaizen.args import UsageError
from kaizen.checkpoint import OPTIONAL, load_part, load_task, restore
from kaizen.experiment import Experiment
from kaizen.learner import ContinualLearner
from kaizen.models.heads import mlp
from kaizen.published import PARTS, Inert, our_names, read_weights, translate
from kaizen.task import take_up

pytestmark = pytest.mark.usefixtures("tiny")


def published_name(name: str, layers: int) -> str | None:
    """Our name -> Kaizen's, by hand and the other way round than the product does it; None where it has none."""
    for theirs, ours in PARTS.items():
        if theirs == "distill_predictor" or not (name == ours or name.startswith(f"{ours}.")):
            continue
        rest = name.removeprefix(ours)
        if theirs in ("classifier", "online_eval_classifier"):
            _, position, kind = rest.split(".")
            layer = "fc_output" if int(position) == 2 * layers else f"fc_{int(position) // 2}"
            rest = f".{layer}.{kind}"
        return theirs + (rest.replace(".0.", ".") if theirs == "momentum_classifier" else rest)
    return None


def published_state(learner: ContinualLearner, layers: int = 0) -> dict[str, Tensor]:
    names = {name: published_name(name, layers if name.startswith("classifier.") else 0) for name in state_of(learner)}
    return {theirs: value for ours, value in state_of(learner).items() if (theirs := names[ours])}


def lightning_file(path: Path, state: dict[str, Tensor], **more: Any) -> Path:
    """As Lightning 1.5 lays it out, with objects among the hyper-parameters."""
    namespace = argparse.Namespace(lr=0.3, data_dir=Path("/data"), gpus=[0], tasks=(torch.arange(3), torch.arange(3)))
    content = {
        "epoch": 499,
        "global_step": 19500,
        "pytorch-lightning_version": "1.5.10",
        "state_dict": state,
        "callbacks": {ModelCheckpoint: {"best_model_score": np.float64(0.5), "dirpath": Path("models")}},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 1.0}]}],
        "lr_schedulers": [{"last_epoch": 499, "base_lrs": {1.0, 0.1}}],
        "hparams_name": "kwargs",
        "hyper_parameters": AttributeDict(args=namespace, kinds={int, Path}, size=np.array([32])),
        **more,
    }
    torch.save(content, path)
    return path


def weights(path: Path) -> dict[str, Any]:
    return load_task(path, "--pretrained_model")


FLAGS = ("--classifier_layers", "12", "--online_evaluation", "--momentum_classifier")


@pytest.mark.parametrize("method", ["simclr", "byol", "mocov2plus", "vicreg"])
def test_a_whole_model_comes_over(tmp_path: Path, method: str) -> None:
    torch.manual_seed(3)
    distill = ("--distiller", "contrastive", "--distiller_classifier", "soft_label")
    there = learner_of(*FLAGS, *distill, method=method, task_idx=1)
    with torch.no_grad():
        for value in there.state_dict().values():
            value.add_(1)
    path = lightning_file(tmp_path / "model.ckpt", published_state(there, layers=1))
    here = learner_of(*FLAGS, *distill, method=method, task_idx=1)
    before = state_of(here)
    aside = restore(here, weights(path), path, "--pretrained_model", OPTIONAL)
    besides = ["callbacks", "hyper_parameters", "lr_schedulers", "optimizer_states"]
    assert aside == sorted([*besides, "frozen_classifier", "frozen_encoder", "frozen_projector"])
    loaded = {name for name in before if not name.startswith("frozen.")}
    assert loaded <= changed(here, before)
    assert {name for name in changed(here, state_of(there))} <= set(before) - loaded


def test_a_bare_state_dict(tmp_path: Path) -> None:
    there = learner_of(*FLAGS)
    path = tmp_path / "state.pth"
    for state in (published_state(there, layers=1), state_of(there)):
        torch.save(state, path)
        assert restore(learner_of(*FLAGS), weights(path), path, "--pretrained_model", ()) == []
        assert weights(path)["flags"] == {}


def test_cassles_names(tmp_path: Path) -> None:
    there = learner_of("--distiller", "contrastive", task_idx=1)
    theirs = {
        name.replace("feature_extractor_distill_", "distill_").replace("fc_output.", ""): value
        for name, value in published_state(there).items()
    }
    assert {"classifier.weight", "classifier.bias", "distill_predictor.0.weight"} <= theirs.keys()
    path = lightning_file(tmp_path / "model.ckpt", {**theirs, "swav_loss.queue": torch.zeros(1)})
    here = learner_of("--distiller", "contrastive", task_idx=1)
    aside = restore(here, weights(path), path, "--pretrained_model", OPTIONAL)
    assert "swav_loss" in aside and "classifier" not in aside and "distill_features" not in aside


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("swav", {"method.prototypes.parametrizations.weight.original0": "prototypes.weight_g",
                  "method.prototypes.parametrizations.weight.original1": "prototypes.weight_v"}),
        ("dino", {"method.projector.": "head.mlp.", "method.momentum.projector.0.": "momentum_head.mlp.",
                  "method.prototypes.parametrizations.weight.original0": "head.last_layer.weight_g",
                  "method.prototypes.parametrizations.weight.original1": "head.last_layer.weight_v",
                  "method.momentum.projector.2.parametrizations.weight.original0": "momentum_head.last_layer.weight_g",
                  "method.momentum.projector.2.parametrizations.weight.original1": "momentum_head.last_layer.weight_v",
                  "method.momentum.encoder.": "momentum_encoder.", "method.criterion.": "dino_loss_func."}),
        ("deepclusterv2", {}),
    ],
)  # fmt: skip
def test_prototypes_come_over(tmp_path: Path, method: str, names: dict[str, str]) -> None:
    there = learner_of(method=method)
    with torch.no_grad():
        for value in there.state_dict().values():
            value.add_(1)
    state = state_of(there)
    theirs = {}
    for name, value in state.items():
        if name == "method.queue_ptr":  # SwAV's queue was one that moves on, not one that is written round
            continue
        start = next((ours for ours in names if name.startswith(ours)), "method.")
        theirs[name.replace(start, names.get(start, ""), 1).replace("classifier.0.", "classifier.")] = value
    if method == "dino":
        theirs["dino_loss_func.center"] = theirs["dino_loss_func.center"][0]
    path = lightning_file(tmp_path / "model.ckpt", theirs)
    here = learner_of(method=method)
    restore(here, weights(path), path, "--pretrained_model", ())
    assert changed(here, state) <= {"method.queue_ptr"}


def test_what_is_missing_there_begins_anew(tmp_path: Path) -> None:
    path = lightning_file(tmp_path / "model.ckpt", published_state(learner_of()))
    anew = restore(learner_of(*FLAGS), weights(path), path, "--pretrained_model", OPTIONAL)
    assert {"classifier", "probes"} <= set(anew)  # the classifier there has no hidden layer


def test_another_architecture_is_one_line(tmp_path: Path) -> None:
    state = published_state(learner_of())
    state["encoder.0.weight"] = torch.zeros(8, 3, 7, 7)
    path = lightning_file(tmp_path / "model.ckpt", state)
    with pytest.raises(UsageError, match=r"--pretrained_model .*encoder.0.weight is \(8, 3, 7, 7\) there"):
        restore(learner_of(), weights(path), path, "--pretrained_model", OPTIONAL)
    with pytest.raises(UsageError, match=r"--x .*: another architecture; classifier.0.bias is \(10,\) there"):
        load_part(mlp([8, 4]), weights(path)["state"], "classifier.", path, "--x")
    with pytest.raises(UsageError, match="classifier.2.bias is missing there"):
        load_part(mlp([8, 10, 10]), weights(path)["state"], "classifier.", path, "--x")
    del state["encoder.1.running_mean"]
    lightning_file(path, state | {"encoder.0.weight": torch.zeros(8, 3, 3, 3)})
    with pytest.raises(UsageError, match="encoder.1.running_mean is missing there"):
        restore(learner_of(), weights(path), path, "--pretrained_model", OPTIONAL)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {}},
        {"state_dict": {"classifier.weight": torch.zeros(1)}},
        {"state_dict": {"encoder.conv1.weight": 1}},
        {"state_dict": [torch.zeros(1)]},
        {1: torch.zeros(1)},
        torch.zeros(3),
    ],
)
def test_a_file_without_an_encoder(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "other.ckpt"
    torch.save(content, path)
    assert translate(content) is None
    with pytest.raises(UsageError, match="not a checkpoint of Kaizen or CaSSLe"):
        weights(path)


class Trap:
    """Runs a call when it is unpickled, and sets state on what comes out."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return (*self.call, {"__class__": dict})


@pytest.mark.parametrize("place", ["hyper_parameters", "callbacks", "state_dict"])
@pytest.mark.parametrize("function", [os.system, subprocess.call, shutil.rmtree, eval, exec, getattr, Path.touch])
def test_nothing_that_the_file_names_is_run(tmp_path: Path, place: str, function: Any) -> None:
    victim, mark = tmp_path / "victim", tmp_path / "ran"
    victim.mkdir()
    arguments: dict[Any, tuple[Any, ...]] = {
        os.system: (f"touch {mark}",),
        subprocess.call: (["touch", str(mark)],),
        shutil.rmtree: (str(victim),),
        eval: (f"open({str(mark)!r}, 'w')",),
        exec: (f"open({str(mark)!r}, 'w')",),
        getattr: (Path(mark), "touch"),
        Path.touch: (mark,),
    }
    state: Any = published_state(learner_of())
    trap = Trap(function, *arguments[function])
    more = {place: {**state, "encoder.trap": trap} if place == "state_dict" else {"trap": trap}}
    path = lightning_file(tmp_path / "evil.ckpt", state, **more)
    try:
        weights(path)
    except UsageError as error:
        assert "damaged" in str(error) or "not a checkpoint" in str(error)
    assert victim.exists() and not mark.exists()


def test_the_traps_work(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = lightning_file(tmp_path / "evil.ckpt", {}, callbacks=Trap(os.system, f"touch {mark}"))
    with pytest.raises(AttributeError):
        torch.load(path, weights_only=False)  # the state that it sets does not fit an int
    assert mark.exists()


def test_strange_objects_become_inert_for_one_file_only(tmp_path: Path) -> None:
    path = lightning_file(tmp_path / "model.ckpt", published_state(learner_of()))
    content = read_weights(path)
    assert isinstance(content["hyper_parameters"]["args"], Inert)
    assert content["hyper_parameters"]["args"].__dict__ == {}
    with pytest.raises(Exception, match="Unsupported global"):
        torch.load(path, weights_only=True)


def test_unknown_parts_have_no_name_here() -> None:
    names = our_names(["encoder.conv1.weight", "teacher.weight", "classifier.fc_output.bias", "classifier.fc_0.bias"])
    assert names == {
        "encoder.conv1.weight": "method.encoder.conv1.weight",
        "classifier.fc_output.bias": "classifier.2.bias",
        "classifier.fc_0.bias": "classifier.0.bias",
    }


def test_training_goes_on_from_a_published_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = learner_of("--classifier_layers", "12")
    with torch.no_grad():
        for parameter in there.parameters():
            parameter.add_(1)
    path = lightning_file(tmp_path / "model.ckpt", published_state(there, layers=1))
    flags = ("--classifier_layers", "12", "--task_idx", "1", "--pretrained_model", str(path), "--online_evaluation")
    args = args_of("--num_tasks", "5", *flags)
    learner = learner_of("--classifier_layers", "12", "--online_evaluation", task_idx=1)
    (tmp_path / "run").mkdir()
    take_up(learner, args, Experiment(tmp_path / "run", {}), 1)
    assert changed(there, state_of(learner)) == set()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"--pretrained_model {path}: not taken over: callbacks, ") and line.endswith("probes")
