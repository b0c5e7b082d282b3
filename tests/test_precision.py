"""Half precision: networks in half, losses in float32. Double precision: both in double."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import batch_of, begin_task, command_line, learner_of, method_of, output_of, run_experiment, views_of
from torch import Tensor, nn

from kaizen.checkpoint import load_task
from kaizen.distillers import FEATURE_DISTILLERS, Distiller
from kaizen.losses import labelled_cross_entropy
from kaizen.methods import METHODS, Output, SSLMethod
from kaizen.precision import float32, in_float32

HALVES = [torch.bfloat16, torch.float16]
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, -1, -1])
CASES: list[tuple[str, int, dict[str, Any]]] = [(name, 0, {}) for name in METHODS]
CASES += [(name, 2, {}) for name, kind in METHODS.items() if kind.takes_multicrop]
CASES += [("simclr", 0, {"supervised": True}), ("simclr", 2, {"supervised": True}), ("swav", 0, {"queue_size": 0})]


def half(dtype: torch.dtype) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype=dtype)


def large(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The same in half precision, so large that its squares overflow float16; a leaf."""
    return (value * (300 / value.abs().max())).detach().to(dtype).requires_grad_()


def cosines(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The same in half precision and -1..1, whose exp(x / 0.05) overflows float16; a leaf."""
    return (value / value.abs().max()).detach().to(dtype).requires_grad_()


def rounded(method: SSLMethod, out: Output, dtype: torch.dtype) -> Output:
    """Outputs as a network gives them in half precision."""
    scores: Callable[[Tensor, torch.dtype], Tensor] = cosines if method.has_prototypes else large
    return Output(
        [large(value, dtype) for value in out.feats],
        [cosines(z, dtype) if isinstance(method, METHODS["deepclusterv2"]) else large(z, dtype) for z in out.z],
        [scores(p, dtype) for p in out.p],
        [cosines(key, dtype).detach() for key in out.keys],
        out.full,
        out.indices,
    )


def loss_of(name: str, flags: dict[str, Any], small: int, dtype: torch.dtype, autocast: bool) -> tuple[Tensor, Output]:
    """The loss on outputs that `dtype` has rounded, given in it under autocast or in float32 without."""
    method = method_of(name, **flags)
    begin_task(method, views_of())
    out = rounded(method, output_of(method, views_of(small=small)), dtype)
    torch.manual_seed(1)
    if autocast:
        with half(dtype):
            return method.loss(out, LABELS), out
    return method.loss(float32(out), LABELS), out


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("name", "small", "flags"), CASES)
def test_the_loss_of_a_method(name: str, small: int, flags: dict[str, Any], dtype: torch.dtype) -> None:
    loss, out = loss_of(name, flags, small, dtype, autocast=True)
    expected, _ = loss_of(name, flags, small, dtype, autocast=False)
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    (loss / 1e4).backward()  # gradients of values far beyond those of training need not fit into float16
    grads = [value.grad for value in (*out.z, *out.p) if value.grad is not None]
    assert grads and all(torch.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", METHODS)
def test_a_step_of_a_method(name: str, dtype: torch.dtype) -> None:
    method = method_of(name)
    begin_task(method, views_of())
    state = {key: value.dtype for key, value in method.state_dict().items()}
    for seed in (1, 2):
        with half(dtype):
            out = output_of(method, views_of(seed=seed))
            assert out.feats[0].dtype == dtype
            loss = method.loss(out, LABELS)
        loss.backward()
        method.after_batch(out)
        method.update_momentum(0.5)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in method.parameters())
    assert {key: value.dtype for key, value in method.state_dict().items()} == state


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", ["deepclusterv2", "mocov2plus", "nnclr", "ressl", "swav"])
def test_what_is_remembered_has_unit_length(name: str, dtype: torch.dtype) -> None:
    method = method_of(name)
    begin_task(method, views_of())
    with half(dtype):
        out = output_of(method, views_of())
    method.after_batch(out)
    memory = method.memory if name == "deepclusterv2" else method.queue
    rows = {"mocov2plus": memory.mT}.get(name, memory) if isinstance(memory, Tensor) else torch.empty(0)
    length = rows.norm(dim=-1)
    torch.testing.assert_close(length[length > 0], torch.ones_like(length[length > 0]), rtol=1e-5, atol=0)


def distiller_of(name: str, **flags: Any) -> Distiller:
    torch.manual_seed(0)
    prototypes = [nn.Linear(6, 5, bias=False)] if FEATURE_DISTILLERS[name].needs_prototypes else []
    return FEATURE_DISTILLERS[name](6, *prototypes, proj_hidden_dim=8, **flags)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("name", FEATURE_DISTILLERS)
def test_a_distiller(name: str, bare: bool, dtype: torch.dtype) -> None:
    distiller = distiller_of(name, no_predictor=bare)
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(8, 6, generator=generator) for _ in range(4)]
    current, frozen = [[large(view, dtype) for view in pair] for pair in (views[:2], views[2:])]
    seen: list[Tensor] = []
    distiller.predictor.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with half(dtype):
        loss = distiller(current, frozen)
    assert [value.dtype for value in seen] == [dtype] * 2  # the predictor is a network
    expected = distiller.compare(float32(seen), float32(frozen))
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    (loss / 1e4).backward()
    grads = [value.grad for value in (*current, *distiller.parameters()) if value.grad is not None]
    assert grads and all(torch.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize("dtype", HALVES)
def test_labelled_cross_entropy_sums_more_than_float16_can_hold(dtype: torch.dtype) -> None:
    logits = (30_000 * torch.eye(3)[LABELS]).to(dtype)
    targets = torch.where(LABELS == -1, -1, (LABELS + 1) % 3)  # all wrong: 6 times 30000
    loss = labelled_cross_entropy(logits, targets)
    torch.testing.assert_close(loss, labelled_cross_entropy(logits.float(), targets))
    assert loss.item() == pytest.approx(30_000, rel=0.01)


@pytest.mark.usefixtures("tiny")
def test_the_learners_terms_are_in_float32() -> None:
    flags = ("--distiller", "decorrelative", "--distiller_classifier", "soft_label", "--online_evaluation")
    learner = learner_of(*flags, task_idx=1)
    with half(torch.bfloat16):
        result = learner.training_step({"task": batch_of(), "online": batch_of()}, 0)
    assert result["loss"].dtype == torch.float32
    result["loss"].backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in learner.parameters())


def test_float32_leaves_everything_else_alone() -> None:
    double, whole, single = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.long), torch.zeros(2)
    out = Output([single], [single.half()], full=3, indices=whole)
    found = float32(out)
    assert found.feats[0] is single and found.z[0].dtype == torch.float32 and out.z[0].dtype == torch.float16
    assert found.full == 3 and found.indices is whole and float32(double) is double
    assert float32("word") == "word" and float32(Output) is Output


def test_in_float32_gives_autocast_back_even_after_an_error() -> None:
    @in_float32
    def product(a: Tensor, *, b: Tensor) -> Tensor:
        return a @ b

    ones = torch.ones(2, 2, dtype=torch.bfloat16)
    with half(torch.bfloat16):
        assert product(ones, b=ones).dtype == torch.float32
        with pytest.raises(RuntimeError, match="shapes"):
            product(torch.ones(3, 3), b=ones)
        assert (ones @ ones.float()).dtype == torch.bfloat16


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("method", "precision", "place"),
    [
        *((method, "bf16", "device") for method in ("barlow_twins", "deepclusterv2", "dino", "mocov2plus", "wmse")),
        *(("deepclusterv2", "64", "workers"), ("wmse", "64", "device")),
    ],
)
def test_two_tasks(tmp_path: Path, method: str, precision: str, place: str) -> None:
    flags = ["--precision", precision, "--augment_on", place, "--num_workers", "1"]
    flags += ["--num_tasks", "2", "--replay", "--online_evaluation", "--momentum_classifier"]
    flags += ["--distiller", "contrastive", "--distiller_classifier", "soft_label", "--log_every_n_steps", "1"]
    experiment = run_experiment(command_line(*flags, method=method), tmp_path)
    for task in (0, 1):
        rows = list(csv.DictReader((experiment.task_folder(task) / "metrics.csv").open()))
        values = [value for row in rows for name, value in row.items() if name.startswith("train/") and value]
        assert values and all(math.isfinite(float(value)) for value in values)
    state = load_task(experiment.checkpoint(1), "--flag")["state"]
    kept = torch.float64 if precision == "64" else torch.float32
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {kept}
    wanted = {"mocov2plus": {"queue", "momentum"}, "dino": {"momentum"}}.get(method, set())
    assert wanted <= {name.split(".")[1] for name in state}
