"""The distillers over a parent loss: values, totals, gradients, and the rate of their predictors."""

from __future__ import annotations

import pytest
from torch import Tensor

from kaizen.args import parse
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

VALUES, RECORDS = arrays("distillers.npz"), records("distillers.json")
LEARNING_RATE = 1.0  # of everything else, where the predictors' groups were recorded


def build(case: str) -> Distiller:
    """The distiller that the recorded flags make, spelled as they are on the command line."""
    require("distillers.npz")
    name, flags = case.split("_lamb")[0], RECORDS[case]["kwargs"]
    dim = VALUES[f"{case}/in/z1"].shape[1]
    tables = ((FEATURE_DISTILLERS, FEATURES), (CLASSIFIER_DISTILLERS, CLASSIFIER))
    for table, prefixes in tables:
        if name in table:
            argv = [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]
            given = parse(argv, distiller_flags(table[name], prefixes)).method_flags
            return build_distiller(table[name], prefixes, dim, given)
    pytest.skip(f"{case}: {name}: not built yet")


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
    distiller = build(case)
    (group,) = RECORDS[case]["param_groups_added"]

    assert len(list(distiller.parameters())) == group["params"]
    assert LEARNING_RATE * distiller.lr_factor == pytest.approx(group.get("lr", LEARNING_RATE))
