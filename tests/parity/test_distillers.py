"""The distillers over a parent loss: values, totals, gradients, and the rate of their predictors."""

from __future__ import annotations

import pytest
from torch import Tensor

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

from .golden import arrays, assert_close, assert_gradients_close, below, cases, gradients_of, leaves, records, require
from .tiny import tiny_learner

VALUES, RECORDS = arrays("distillers.npz"), records("distillers.json")
# Of everything else, where the predictors' groups were recorded; a group without values of its own has these.
LEARNING_RATE, WEIGHT_DECAY = 1.0, 1e-5
EXPERIMENT = [
    "--dataset", "cifar10", "--method", "simclr", "--num_tasks", "5", "--batch_size", "256",
    "--lr", str(LEARNING_RATE), "--weight_decay", str(WEIGHT_DECAY),
]  # fmt: skip


def kind_of(case: str) -> tuple[type[Distiller], tuple[str, ...]]:
    """The class that the name of a case begins with, and what stands before its flags. Skips what is not built yet."""
    require("distillers.npz")
    name = case.split("_lamb")[0]
    for table, prefixes in ((FEATURE_DISTILLERS, FEATURES), (CLASSIFIER_DISTILLERS, CLASSIFIER)):
        if name in table:
            return table[name], prefixes
    pytest.skip(f"{case}: {name}: not built yet")


def command_line(case: str) -> list[str]:
    """The recorded flags, as they are spelled in the published scripts."""
    return [word for flag, value in RECORDS[case]["kwargs"].items() for word in (f"--{flag}", str(value))]


def build(case: str) -> Distiller:
    kind, prefixes = kind_of(case)
    flags = parse(command_line(case), distiller_flags(kind, prefixes)).method_flags
    return build_distiller(kind, prefixes, VALUES[f"{case}/in/z1"].shape[1], flags)


def without_owner(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """feature_extractor_distill_predictor.0.weight -> 0.weight."""
    return {name.partition(".")[2]: value for name, value in values.items()}


@pytest.mark.parametrize("case", cases("distillers.json", RECORDS))
def test_distiller(case: str) -> None:
    distiller = build(case)
    record, gradients = RECORDS[case], below(VALUES, case, "grad")
    inputs = leaves(below(VALUES, case, "in"), gradients)
    distiller.predictor.load_state_dict(without_owner(below(VALUES, case, "state")))

    value = distiller([inputs["z1"], inputs["z2"]], [inputs["frozen_z1"], inputs["frozen_z2"]])
    total = record["parent_loss"] + distiller.lamb * value
    total.backward()

    (logged,) = record["logged"].values()
    assert_close(value, logged, "logged value")
    assert_close(total, record["total"], "total")
    assert_gradients_close(gradients_of(inputs), gradients)
    of_predictor = gradients_of(dict(distiller.predictor.named_parameters()))
    expected = without_owner(below(VALUES, case, "pgrad"))
    assert of_predictor.keys() == expected.keys()
    assert_gradients_close(of_predictor, expected)


@pytest.mark.parametrize("case", cases("distillers.json", RECORDS))
def test_predictor_is_trained_at_the_recorded_rate(case: str) -> None:
    flag = "--distiller" if kind_of(case)[1] == FEATURES else "--distiller_classifier"
    learner = tiny_learner(read_args([*EXPERIMENT, flag, case.split("_lamb")[0], *command_line(case)]), task_idx=1)
    (expected,) = RECORDS[case]["param_groups_added"]
    found = [group for group in learner.parameter_groups() if group["name"].startswith("distill_")]

    assert sum(len(group["params"]) for group in found) == expected["params"]
    for group in found:  # none where there is no predictor
        assert group["lr"] == pytest.approx(expected.get("lr", LEARNING_RATE))
        assert group["weight_decay"] == pytest.approx(expected.get("weight_decay", WEIGHT_DECAY))
    distiller = learner.distill_features or learner.distill_classifier
    assert distiller is not None
    assert distiller.lr_factor == pytest.approx(expected.get("lr", LEARNING_RATE) / LEARNING_RATE)
