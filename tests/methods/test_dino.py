from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import method_of, state_of, views_of
from torch import Tensor

from kaizen.methods.dino import DINO

UNLABELLED = torch.full((8,), -1)


def dino(**flags: object) -> DINO:
    method = method_of("dino", **flags)
    assert isinstance(method, DINO)
    return method


def backward(method: DINO, epoch: int = 0) -> None:
    """The gradients of a step, as the learner makes them."""
    method.start_epoch(epoch)
    method.loss(method(views_of()), UNLABELLED).backward()
    method.after_backward()


def centre(method: DINO) -> Tensor:
    return method.state_dict()["criterion.center"].flatten()


def test_every_crop_predicts_the_momentum_networks_scores_of_the_full_ones() -> None:
    method = dino(student_temperature=0.5, warmup_teacher_temperature=0.2)
    out = method(views_of(small=1))
    assert len(out.p) == 3 and len(out.keys) == 2
    targets = [(key / 0.2).softmax(dim=1) for key in out.keys]
    losses = [F.cross_entropy(out.p[v] / 0.5, targets[i]) for i in (0, 1) for v in (0, 1, 2) if v != i]
    torch.testing.assert_close(method.loss(out, UNLABELLED), torch.stack(losses).mean())
    torch.testing.assert_close(centre(method), 0.1 * torch.cat(out.keys).mean(dim=0))


def test_the_teachers_temperature_rises_over_the_first_epochs_of_a_task() -> None:
    method = dino(warmup_teacher_temperature=0.1, teacher_temperature=0.5, warmup_teacher_temperature_epochs=3)
    out = method(views_of())
    for epoch, temperature in enumerate((0.1, 0.3, 0.5, 0.5)):
        method.criterion.center.zero_()
        method.start_epoch(epoch)
        targets = [(key / temperature).softmax(dim=1) for key in out.keys]
        expected = torch.stack([F.cross_entropy(out.p[1 - i] / 0.1, targets[i]) for i in (0, 1)]).mean()
        torch.testing.assert_close(method.loss(out, UNLABELLED), expected)


def test_without_a_warm_up_the_temperature_is_the_final_one() -> None:
    method = dino(warmup_teacher_temperature_epochs=0)
    other = dino(warmup_teacher_temperature=0.07)
    out = method(views_of())
    torch.testing.assert_close(method.loss(out, UNLABELLED), other.loss(out, UNLABELLED))


@pytest.mark.parametrize(("epoch", "learns"), [(0, False), (1, False), (2, True)])
def test_prototypes_rest_in_the_first_epochs(epoch: int, learns: bool) -> None:
    method = dino(freeze_last_layer=2)
    backward(method, epoch)
    directions = method.prototypes.parametrizations.weight.original1
    assert (directions.grad is not None) is learns
    assert all(p.grad is not None for p in method.projector.parameters())


@pytest.mark.parametrize("fixed", [True, False])
def test_prototypes_of_unit_length(fixed: bool) -> None:
    method = dino(norm_last_layer=fixed, freeze_last_layer=0)
    torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(5))
    backward(method)
    assert (method.prototypes.parametrizations.weight.original0.grad is None) is fixed


def test_each_gradient_of_the_encoder_is_clipped_by_itself() -> None:
    free, clipped = dino(), dino(clip_grad=1e-3)
    backward(free)
    backward(clipped)
    for before, after in zip(free.encoder.parameters(), clipped.encoder.parameters(), strict=True):
        assert before.grad is not None and after.grad is not None
        wanted = before.grad * min(1.0, 1e-3 / (float(before.grad.norm()) + 1e-6))
        torch.testing.assert_close(after.grad, wanted)
    assert any(float(p.grad.norm()) > 2e-3 for p in free.encoder.parameters() if p.grad is not None)
    for before, after in zip(free.projector.parameters(), clipped.projector.parameters(), strict=True):
        assert before.grad is not None and after.grad is not None and before.grad.equal(after.grad)


def test_the_momentum_network_follows_encoder_projector_and_prototypes() -> None:
    method = dino()
    with torch.no_grad():
        for parameter in (*method.encoder.parameters(), *method.head().parameters()):
            parameter += 1
    before = state_of(method.momentum)
    method.update_momentum(0.75)
    after = method.momentum.state_dict()
    parameters = {name for name, _ in method.momentum.named_parameters()}
    for name, value in before.items():
        moved = 0.25 if name in parameters else 0.0
        torch.testing.assert_close(after[name], value + moved if moved else value)
    assert sum("original" in name for name in parameters) == 2
    method.update_momentum(0.0)
    images = views_of()[0]
    expected = method.head()(method.encoder(images))
    torch.testing.assert_close(method.momentum(images), expected)


def test_centre_and_prototypes_go_into_the_next_task() -> None:
    method = dino()
    backward(method)
    other = dino()
    assert not centre(other).any() and centre(method).any()
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    assert centre(other).equal(centre(method))
