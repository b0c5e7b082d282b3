from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import method_of, views_of
from lightly.loss.swav_loss import sinkhorn
from torch import Tensor

from kaizen.methods.swav import SwAV

UNLABELLED = torch.full((8,), -1)


def swav(**flags: object) -> SwAV:
    method = method_of("swav", **flags)
    assert isinstance(method, SwAV)
    return method


def step(method: SwAV, epoch: int, seed: int = 1) -> None:
    """One optimiser step, as the learner makes it."""
    method.start_epoch(epoch)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.5, weight_decay=0.1)
    out = method(views_of(seed=seed))
    method.loss(out, UNLABELLED).backward()
    method.after_backward()
    optimizer.step()
    method.after_batch(out)


def weights(method: SwAV) -> Tensor:
    return torch.cat([p.flatten() for p in method.prototypes.parameters()])


def test_every_crop_predicts_the_assignments_of_the_full_ones() -> None:
    method = swav(temperature=0.5, sk_epsilon=0.2, sk_iters=4)
    out = method(views_of(small=1))
    scores = [F.normalize(z, dim=1) @ method.prototypes.weight.T for z in out.z]
    assigned = [sinkhorn(p, 4, 0.2) for p in scores[:2]]
    losses = [F.cross_entropy(scores[v] / 0.5, assigned[i]) for i in (0, 1) for v in (0, 1, 2) if v != i]
    torch.testing.assert_close(method.loss(out, UNLABELLED), torch.stack(losses).mean())


def test_what_distillation_is_given_has_any_length() -> None:
    method = swav()
    out = method(views_of())
    torch.testing.assert_close(out.z[0], method.projector(out.feats[0]), rtol=1e-3, atol=1e-3)
    assert (out.z[0].norm(dim=1) - 1).abs().max() > 0.01
    assert method.teaching_prototypes(F.normalize(out.z[0], dim=1)).equal(out.p[0])


@pytest.mark.parametrize(("epoch", "moves"), [(0, False), (1, False), (2, True)])
def test_prototypes_rest_in_the_first_epochs(epoch: int, moves: bool) -> None:
    method = swav(freeze_prototypes_epochs=2)
    before, encoder = weights(method).clone(), method.encoder[0].weight.clone()
    step(method, epoch)
    assert weights(method).equal(before) is not moves
    assert not method.encoder[0].weight.equal(encoder)


def test_the_queue_holds_the_latest_projections_of_both_views() -> None:
    method = swav(queue_size=20)
    made = []
    for seed in (1, 2, 3):
        out = method(views_of(seed=seed))
        method.after_batch(out)
        made.append(F.normalize(torch.stack(out.z), dim=2))
    torch.testing.assert_close(method.queue[:, 8:16], made[1])
    torch.testing.assert_close(method.queue[:, 16:], made[2][:, :4])
    torch.testing.assert_close(method.queue[:, :4], made[2][:, 4:])  # around the end


def test_the_queue_joins_in_from_its_epoch_on_as_far_as_it_is_filled() -> None:
    method = swav(queue_size=20, epoch_queue_starts=3, temperature=0.5)
    method.after_batch(method(views_of(seed=2)))
    out = method(views_of())
    without = swav(queue_size=0, temperature=0.5).loss(out, UNLABELLED)
    method.start_epoch(2)
    torch.testing.assert_close(method.loss(out, UNLABELLED), without)
    method.start_epoch(3)
    losses = []
    for i in (0, 1):
        remembered = method.queue[i, :8] @ method.prototypes.weight.T
        assigned = sinkhorn(torch.cat([out.p[i], remembered]), 3, 0.05)[:8]
        losses.append(F.cross_entropy(out.p[1 - i] / 0.5, assigned))
    torch.testing.assert_close(method.loss(out, UNLABELLED), torch.stack(losses).mean())
    assert not torch.isclose(method.loss(out, UNLABELLED), without)


def test_an_empty_queue_and_three_full_crops() -> None:
    method = swav(queue_size=6, epoch_queue_starts=0)
    images = [*views_of(), views_of(seed=2)[0]]
    for _ in range(2):
        out = method(images)
        assert out.full == 3 and torch.isfinite(method.loss(out, UNLABELLED))
        method.after_batch(out)
    nothing = swav(queue_size=0, epoch_queue_starts=0)
    step(nothing, 0)
    assert nothing.queue.numel() == 0


def test_queue_and_prototypes_go_into_the_next_task() -> None:
    method = swav()
    step(method, 1)
    other = swav()
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    assert other.queue.equal(method.queue) and other.queue.any() and int(other.queue_ptr) == 8
    assert weights(other).equal(weights(method)) and not weights(other).equal(weights(swav()))
