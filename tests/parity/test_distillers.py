"""The distillers over a parent loss: values, totals, gradients, and the rate of their predictors."""

from __future__ import annotations

import pytest
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from kaizen.args import parse
from kaizen.cli import read_args
from kaizen.distillers import (
    CLASSIFIER,
    CLASSIFIER_DISTILLERS,
    FEATURE_DISTILLERS,
    FEATURES,
    Distiller,
    build_distiller,
    distiller_flags,
)
from kaizen.methods import method_flags

from .golden import arrays, assert_close, assert_gradients_close, below, cases, gradients_of, leaves, records, require
from .tiny import tiny_learner

VALUES, RECORDS = arrays("distillers.npz"), records("distillers.json")
# Of everything else, where the predictors' groups were recorded; a group without values of its own has these.
LEARNING_RATE, WEIGHT_DECAY = 1.0, 1e-5
METHOD = "swav"  # it has prototypes, which one distiller needs
EXPERIMENT = [
    "--dataset", "cifar10", "--num_tasks", "5", "--batch_size", "256",
    "--lr", str(LEARNING_RATE), "--weight_decay", str(WEIGHT_DECAY),
]  # fmt: skip


def kind_of(case: str) -> tuple[type[Distiller], tuple[str, ...]]:
    """The class that the name of a case begins with, and what stands before its flags."""
    require("distillers.npz")
    name = case.split("_lamb")[0]
    if f"{CLASSIFIER[0]}lamb" in RECORDS[case]["kwargs"]:
        return CLASSIFIER_DISTILLERS[name], CLASSIFIER
    return FEATURE_DISTILLERS[name], FEATURES


def command_line(case: str) -> list[str]:
    """The recorded flags, as they are spelled in the published scripts."""
    return [word for flag, value in RECORDS[case]["kwargs"].items() for word in (f"--{flag}", str(value))]


def build(case: str) -> Distiller:
    kind, prefixes = kind_of(case)
    flags = parse(command_line(case), distiller_flags(kind, prefixes) + method_flags(METHOD)).method_flags
    dim = VALUES[f"{case}/in/z1"].shape[1]
    distiller = build_distiller(kind, prefixes, dim, flags, prototypes(case))
    state = our_names(below(VALUES, case, "state"))
    assert distiller.state_dict().keys() == state.keys() | {f"frozen_{name}" for name in state if "prototypes" in name}
    distiller.load_state_dict(state, strict=False)
    distiller.keep_teacher(prototypes(case))
    return distiller


def prototypes(case: str) -> nn.Module | None:
    """The method's prototypes with the recorded weights, for the distiller that needs them."""
    state = {name.removeprefix("prototypes."): value for name, value in below(VALUES, case, "state").items()}
    if "weight_v" not in state:
        return None
    count, dim = state["weight_v"].shape
    module = weight_norm(nn.Linear(dim, count, bias=False))
    module.load_state_dict(
        {"parametrizations.weight.original0": state["weight_g"], "parametrizations.weight.original1": state["weight_v"]}
    )
    return module


def our_names(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is trained of a distiller: feature_extractor_distill_predictor.0.weight -> predictor.0.weight."""
    names = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    found = {name.partition("_distill_")[2]: value for name, value in values.items() if "_distill_" in name}
    return {
        f"{name.rpartition('.')[0]}.{names.get(last, last)}": value
        for name, value in found.items()
        if (last := name.rpartition(".")[2])
    }


@pytest.mark.parametrize("case", cases("distillers.json", RECORDS))
def test_distiller(case: str) -> None:
    distiller = build(case)
    record, gradients = RECORDS[case], below(VALUES, case, "grad")
    inputs = leaves(below(VALUES, case, "in"), gradients)

    value = distiller([inputs["z1"], inputs["z2"]], [inputs["frozen_z1"], inputs["frozen_z2"]])
    total = record["parent_loss"] + distiller.lamb * value
    total.backward()

    (logged,) = record["logged"].values()
    assert_close(value, logged, "logged value")
    assert_close(total, record["total"], "total")
    assert_gradients_close(gradients_of(inputs), gradients)
    of_weights = gradients_of({name: p for name, p in distiller.named_parameters() if p.requires_grad})
    expected = our_names(below(VALUES, case, "pgrad"))
    assert of_weights.keys() == expected.keys()
    assert_gradients_close(of_weights, expected)


@pytest.mark.parametrize("case", cases("distillers.json", RECORDS))
def test_predictor_is_trained_at_the_recorded_rate(case: str) -> None:
    flag = "--distiller" if kind_of(case)[1] == FEATURES else "--distiller_classifier"
    flags = ["--method", METHOD, flag, case.split("_lamb")[0], *command_line(case)]
    learner = tiny_learner(read_args([*EXPERIMENT, *flags]), task_idx=1)
    expected, *others = RECORDS[case]["param_groups_added"]
    found = [group for group in learner.parameter_groups() if group["name"].startswith("distill_")]

    assert sum(len(group["params"]) for group in found) == sum(group["params"] for group in [expected, *others])
    for group in found:  # none where there is no predictor
        assert group["lr"] == pytest.approx(expected.get("lr", LEARNING_RATE))
        assert group["weight_decay"] == pytest.approx(expected.get("weight_decay", WEIGHT_DECAY))
    distiller = learner.distill_features or learner.distill_classifier
    assert distiller is not None
    assert distiller.lr_factor == pytest.approx(expected.get("lr", LEARNING_RATE) / LEARNING_RATE)
