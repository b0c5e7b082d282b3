"""The self-supervised losses: values and gradients of every input."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.loss.swav_loss import sinkhorn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kaizen.losses import (
    assignment_cross_entropy,
    contrastive_distillation,
    crop_contrastive,
    queue_contrastive,
    relational,
    supervised_contrastive,
    whiten,
)
from kaizen.methods import Output, build_method

from .golden import arrays, assert_close, assert_gradients_close, below, cases, gradients_of, leaves, records, require

VALUES, RECORDS = arrays("losses.npz"), records("losses.json")
OWN_TESTS = ("dino", "swav", "whitening")
CASES = {*RECORDS, *(name.split("/")[0] for name in VALUES)}
NUMBER = r"([\d.]+)"


def loss_of(method: str, out: Output, **flags: Any) -> Tensor:
    """The loss that a method trains with, on given projections."""
    batch, dim = (out.z or out.p)[0].shape
    built = build_method(method, nn.Identity(), dim, {"proj_hidden_dim": 1, "output_dim": dim, **flags})
    return built.loss(out, torch.full((batch,), -1))


def byol(p: Tensor, z: Tensor, simplified: bool) -> Tensor:
    """One prediction and, in the other view's place, its target; `simplified` says how it is computed, not what."""
    return loss_of("byol", Output([], [], p=[p], keys=[z, z]))


def vicreg(z1: Tensor, z2: Tensor, **flags: Any) -> Tensor:
    return loss_of("vicreg", Output([], [z1, z2]), **flags)


def only(**weights: float) -> Callable[[Tensor, Tensor], Tensor]:
    """One of VICReg's three parts."""
    none = dict.fromkeys(("sim_loss_weight", "var_loss_weight", "cov_loss_weight"), 0.0)
    return lambda z1, z2: vicreg(z1, z2, **(none | weights))


def towards_teacher(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    return contrastive_distillation(torch.cat([p1, p2]), torch.cat([z1, z2]), temperature)


def supervised(z1: Tensor, z2: Tensor, extra_pos_mask: Tensor, temperature: float) -> Tensor:
    other_view = torch.eye(len(z1), dtype=torch.bool).repeat(2, 2)
    return supervised_contrastive(torch.cat([z1, z2]), other_view | extra_pos_mask.bool(), temperature)


# The recorded function -> ours. A new method adds a line.
LOSSES: dict[str, Callable[..., Tensor]] = {
    "barlow_loss_func": lambda z1, z2, **flags: loss_of("barlow_twins", Output([], [z1, z2]), **flags),
    "byol_loss_func": byol,
    "deepclusterv2_loss_func": lambda outputs, assignments, temperature: assignment_cross_entropy(
        outputs, assignments, temperature
    ),
    "covariance_loss": only(cov_loss_weight=1.0),
    "invariance_loss": only(sim_loss_weight=1.0),
    "moco_loss_func": queue_contrastive,
    "manual_simclr_loss_func with neg_mask, pos_mask": lambda z, pos_mask, neg_mask, temperature: crop_contrastive(
        z, pos_mask, neg_mask, temperature
    ),
    "simclr_distill_loss_func": towards_teacher,
    "nnclr_loss_func": lambda nn, p, temperature: contrastive_distillation(nn, p, temperature),
    "ressl_loss_func": lambda q, k, queue: relational(q, k, queue, 0.1, 0.04),
    "simclr_loss_func with extra_pos_mask": supervised,
    "simsiam_loss_func": lambda p, z, simplified: loss_of("simsiam", Output([], [z, z], p=[p, p])),
    "simclr_loss_func": lambda z1, z2, **flags: loss_of("simclr", Output([], [z1, z2]), **flags),
    "variance_loss": only(var_loss_weight=1.0),
    "vicreg_loss_func": vicreg,
    "wmse_loss_func": lambda z1, z2, simplified: (
        2 + 2 * NegativeCosineSimilarity()(z1, z2.detach() if simplified else z2)
    ),
}


def function_of(case: str) -> str:
    """The recorded function of a case, with its masks: those make it another one (supervised SimCLR)."""
    name = RECORDS[case]["func"].split("(")[0] if case in RECORDS else case.split("_")[0]
    masks = [mask for mask in sorted(below(VALUES, case, "in")) if mask.endswith("_mask")]
    return f"{name} with {', '.join(masks)}" if masks else name


def among(prefix: str) -> Any:
    """The cases whose name begins so, as test parameters."""
    return cases("losses.npz", [case for case in CASES if case.startswith(prefix)])


def numbers(case: str, pattern: str) -> list[float]:
    """The arguments that are recorded in words."""
    found = re.search(pattern, RECORDS[case]["func"])
    assert found, RECORDS[case]["func"]
    return [float(number) for number in found.groups()]


@pytest.mark.parametrize("case", cases("losses.npz", [case for case in CASES if not case.startswith(OWN_TESTS)]))
def test_loss(case: str) -> None:
    require("losses.npz", "losses.json")
    function = function_of(case)
    gradients = below(VALUES, case, "grad")
    inputs = leaves(below(VALUES, case, "in"), gradients)

    loss = LOSSES[function](**inputs, **RECORDS[case]["kwargs"])
    loss.backward()

    assert_close(loss, RECORDS[case]["loss"], "loss")
    assert_gradients_close(gradients_of(inputs), gradients)


@pytest.mark.parametrize("case", among("swav"))
def test_swav(case: str) -> None:
    """The assignments were made of scaled scores: of the scores themselves they are those of a larger epsilon."""
    require("losses.npz", "losses.json")
    temperature, iterations, epsilon, scale = numbers(
        case, rf"{NUMBER}\); assign_i = SinkhornKnopp\({NUMBER},{NUMBER}\)\(p_i\*{NUMBER}\)"
    )
    gradients = below(VALUES, case, "grad")
    recorded = below(VALUES, case, "in")
    views = range(sum(name.startswith("p") for name in recorded))
    inputs = leaves({f"p{i}": recorded[f"p{i}"] for i in views}, gradients)
    for i in views:
        assignments = sinkhorn(inputs[f"p{i}"] * scale, int(iterations), epsilon)
        assert_close(assignments, recorded[f"assign{i}"], f"assignments of p{i}")

    flags = {"temperature": temperature, "sk_iters": int(iterations), "sk_epsilon": epsilon / scale}
    loss = loss_of("swav", Output([], [], p=list(inputs.values()), full=len(views)), queue_size=0, **flags)
    loss.backward()

    assert_close(loss, RECORDS[case]["loss"], "loss")
    assert_gradients_close(gradients_of(inputs), gradients)


@pytest.mark.parametrize("case", cases("losses.npz", [c.split("_call")[0] for c in CASES if c.startswith("dino")]))
def test_dino(case: str) -> None:
    """One loss object for all calls, whose centre goes on from one to the next."""
    require("losses.npz", "losses.json")
    calls = [name for name in sorted(RECORDS) if name.startswith(f"{case}_call")]
    dim, warmup, final, warmup_epochs, _, student = numbers(
        calls[0], rf"DINOLoss\({','.join([NUMBER] * 5)},student_temp={NUMBER},"
    )
    flags = {"warmup_teacher_temperature": warmup, "warmup_teacher_temperature_epochs": int(warmup_epochs)}
    flags |= {"teacher_temperature": final, "student_temperature": student, "num_prototypes": int(dim)}
    method = build_method("dino", nn.Identity(), 4, {"proj_hidden_dim": 2, "output_dim": 2, **flags})
    for call in calls:
        gradients = below(VALUES, call, "grad")
        inputs = leaves(below(VALUES, call, "in"), gradients)
        epoch, crops = numbers(call, rf"epoch={NUMBER};")[0], numbers(call, rf"num_crops={NUMBER}\)")[0]
        method.start_epoch(int(epoch))
        scores, keys = inputs["student_output"].chunk(int(crops)), inputs["teacher_output"].chunk(2)
        loss = method.loss(Output([], [], p=list(scores), keys=list(keys)), torch.empty(0))
        loss.backward()
        assert_close(loss, RECORDS[call]["loss"], f"loss of {call}")
        assert_gradients_close(gradients_of(inputs), gradients)
        assert_close(method.state_dict()["criterion.center"].flatten(0, 1), VALUES[f"{call}/center_after"], "centre")
    scores = torch.randn(2, 3, int(dim))
    for epoch, temperature in enumerate(VALUES.get(f"{case}/temps", [])):
        method.load_state_dict(method.state_dict() | {"criterion.center": torch.zeros(1, 1, int(dim))})
        method.start_epoch(epoch)
        loss = method.loss(Output([], [], p=[*scores], keys=[*scores]), torch.empty(0))
        targets = (scores / temperature.float()).softmax(dim=2)
        expected = [cross_entropy(scores[i] / student, targets[1 - i]) for i in (0, 1)]
        assert_close(loss, torch.stack(expected).mean(), f"loss at the temperature of epoch {epoch}")


@pytest.mark.parametrize("case", among("whitening"))
def test_whitening(case: str) -> None:
    require("losses.npz")
    eps = float(case.split("eps")[1])
    gradients = below(VALUES, case, "grad")
    inputs = leaves({"x": VALUES[f"{case}/in/x"]}, gradients)

    whitened = whiten(inputs["x"], eps)
    (whitened * VALUES[f"{case}/in/cotangent"]).sum().backward()

    assert_close(whitened, VALUES[f"{case}/out"], "whitened")
    assert_gradients_close(gradients_of(inputs), gradients)
