"""Full training steps of each method: outputs, terms, gradients, optimiser, and the state afterwards."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from kaizen.data.tasks import split_classes
from kaizen.optim import scaled_lr

from .golden import arrays, assert_close, assert_gradients_close, below, cases
from .step import RECORDS, take_step

every_case = pytest.mark.parametrize("case", cases("steps.json", RECORDS))

# The recorded value -> ours. An accuracy is in percent there and a fraction here.
TERMS = {
    "train_barlow_loss": "ssl",
    "train_nce_loss": "ssl",
    "train_neg_cos_sim": "ssl",
    "train_vicreg_loss": "ssl",
    "train_classifier_soft_label_distill_loss": "distill_classifier",
    "train_online_eval_loss": "online",
    "train_online_eval_momentum_class_loss": "momentum_online",
    "train_z_std": "z_std",
    "tau": "tau",
}
ACCURACIES = {
    "train_online_eval_acc1": "online_acc1",
    "train_online_eval_acc5": "online_acc5",
    "train_online_eval_momentum_acc1": "momentum_online_acc1",
    "train_online_eval_momentum_acc5": "momentum_online_acc5",
}
# Recorded for each of the two views; ours, and the share that each view has in it: the losses are summed up,
# the accuracies averaged.
VIEWS = {
    "train_classifier_loss": ("classifier", 1),
    "train_classifier_acc1": ("classifier_acc1", 1 / 200),
    "train_classifier_acc5": ("classifier_acc5", 1 / 200),
}


def expected_values(logged: dict[str, float]) -> dict[str, float]:
    """Our name -> the value that follows from the recorded ones. Raises KeyError for one that we do not know."""
    expected: dict[str, float] = {}
    for name, value in logged.items():
        view = name.partition("_crop_")[0]
        if view in VIEWS:
            ours, share = VIEWS[view]
            expected[ours] = expected.get(ours, 0.0) + share * value
        elif name.startswith("train_feature_extractor_") and name.endswith("_distill_loss"):
            expected["distill_features"] = value
        elif name in ACCURACIES:
            expected[ACCURACIES[name]] = value / 100
        elif name != "train_n_positives":  # labels make them; none without
            expected[TERMS[name]] = value
    return expected


@every_case
def test_flags_are_understood(case: str) -> None:
    step, record = take_step(case), RECORDS[case]
    classes = sum(map(len, record["tasks"]))
    assert split_classes(classes, step.args.num_tasks, step.args.split_seed) == record["tasks"]
    assert scaled_lr(step.args) == pytest.approx(record["lr_after_batch_scaling"])


@every_case
def test_outputs(case: str) -> None:
    step = take_step(case)
    for name, expected in below(arrays(f"step_{case}.npz"), "out").items():
        assert_close(step.outputs[name], expected, name)


@every_case
def test_terms_and_total(case: str) -> None:
    step, record = take_step(case), RECORDS[case]
    assert_close(step.total, record["total"], "total")
    assert record["logged"].get("train_n_positives", 0) == 0
    for name, expected in expected_values(record["logged"]).items():
        assert_close(step.logged[name], expected, name)


@every_case
def test_keys_and_teachers_come_without_gradient(case: str) -> None:
    assert not any(tensor.requires_grad for tensor in take_step(case).untaught)


@every_case
def test_gradients(case: str) -> None:
    step, recorded = take_step(case), below(arrays(f"step_{case}.npz"), "grad")
    assert step.gradients.keys() == {step.names[name] for name in recorded}
    assert_gradients_close({name: step.gradients[step.names[name]] for name in recorded}, recorded)


@every_case
def test_state_after_the_step(case: str) -> None:
    step, values = take_step(case), arrays(f"step_{case}.npz")
    after = below(values, "after")
    for name, before in below(values, "state").items():
        assert_close(step.after[step.names[name]], after.get(name, before), name)


@every_case
def test_batchnorm_sees_each_image_as_often(case: str) -> None:
    step, counted = take_step(case), RECORDS[case]["num_batches_tracked_delta"]
    for name, before in below(arrays(f"step_{case}.npz"), "state").items():
        if name.endswith("num_batches_tracked"):
            assert step.after[step.names[name]] - before == counted.get(name, 0), name


@every_case
def test_parameter_groups(case: str) -> None:
    step = take_step(case)
    recorded = [group for group in RECORDS[case]["groups"] if group["n_params"]]  # the original makes empty ones too
    assert len(step.groups) == len(recorded)
    for expected in recorded:
        (group,) = (group for group in step.groups if step.names[expected["first"]] in group["names"])
        assert len(group["names"]) == expected["n_params"]
        assert group["lr"] == pytest.approx(expected["lr_base"])
        assert group["weight_decay"] == pytest.approx(expected["weight_decay"])
        norm = torch.cat([step.gradients[name].flatten() for name in group["names"]]).norm()
        assert_close(norm, expected["grad_norm"], f"gradient norm of {expected['first']}")


@pytest.mark.slow
def test_a_compiled_step() -> None:
    case = "mocov2plus"
    torch._dynamo.reset()
    counters.clear()
    step, record, values = take_step(case, compiled=True), RECORDS[case], arrays(f"step_{case}.npz")
    assert_close(step.total, record["total"], "total")
    for name, expected in below(values, "out").items():
        assert_close(step.outputs[name], expected, name)
    recorded = below(values, "grad")
    assert_gradients_close({name: step.gradients[step.names[name]] for name in recorded}, recorded)
    after = below(values, "after")
    for name, before in below(values, "state").items():
        assert_close(step.after[step.names[name]], after.get(name, before), name)
    assert counters["stats"]["unique_graphs"] >= 3  # student, momentum and frozen encoder
