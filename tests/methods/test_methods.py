from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import begin_task, output_of, small_heads
from helpers import method_of as build
from helpers import views_of as views

from kaizen.args import UsageError
from kaizen.methods import METHODS, Output, method_flags, method_named
from kaizen.methods.base import enqueue
from kaizen.methods.mocov2plus import MoCoV2Plus


def moco(**flags: object) -> MoCoV2Plus:
    method = build("mocov2plus", **flags)
    assert isinstance(method, MoCoV2Plus)
    return method


SYMMETRIC = ["barlow_twins", "byol", "mocov2plus", "nnclr", "simclr", "simsiam", "swav", "vicreg", "wmse"]
UNLABELLED = torch.full((8,), -1)


@pytest.mark.parametrize("name", METHODS)
def test_a_forward_gives_features_and_projections_per_view(name: str) -> None:
    method = build(name)
    out = method(views())
    assert [f.shape for f in out.feats] == [(8, 8)] * 2
    assert [z.shape for z in out.z] == [(8, method.output_dim)] * 2 == [(8, 6)] * 2
    assert all(t.requires_grad for t in (*out.feats, *out.z, *out.p))
    assert not any(key.requires_grad for key in out.keys)
    assert out.keys or method.momentum is None


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_a_finite_scalar_that_teaches_encoder_projector_and_predictor(name: str) -> None:
    method = build(name)
    begin_task(method, views())
    loss = method.loss(output_of(method, views()), UNLABELLED)
    assert loss.ndim == 0 and math.isfinite(loss.item())
    loss.backward()
    for part, parameters in (
        ("encoder", method.encoder.parameters()),
        ("projector", method.projector.parameters()),
        ("predictor", getattr(method, "predictor", method.projector).parameters()),
    ):
        assert any(p.grad is not None and p.grad.any() for p in parameters), part
    if method.momentum is not None:
        assert all(p.grad is None for p in method.momentum.parameters())


@pytest.mark.parametrize(
    "name", ["barlow_twins", "byol", "mocov2plus", "nnclr", "simclr", "simsiam", "swav", "vicreg", "wmse"]
)
def test_the_loss_does_not_mind_which_view_comes_first(name: str) -> None:
    method, images = build(name), views()
    if isinstance(method, MoCoV2Plus):
        method.queue[1] = method.queue[0]  # each view has a queue of its own
    there = method.loss(method(images), UNLABELLED)
    back = method.loss(method(images[::-1]), UNLABELLED)
    torch.testing.assert_close(there, back)


@pytest.mark.parametrize("name", METHODS)
def test_a_few_steps_bring_the_loss_down(name: str) -> None:
    method, images = build(name), views(16)
    begin_task(method, images)
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(25):
        loss = method.loss(output_of(method, images), UNLABELLED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", METHODS)
def test_every_flag_of_a_method_reaches_it(name: str) -> None:
    flags = {item.name: item for item in method_flags(name)}
    assert all(item.help and item.default is not None for item in flags.values())
    method = build(name, unknown_flag=3)
    for dim in ("proj_hidden_dim", "output_dim"):
        assert flags[dim].bounds is not None
    changed: dict[str, object] = {
        "temperature": 0.5,
        "lamb": 0.5,
        "scale_loss": 0.5,
        "sim_loss_weight": 3.0,
        "var_loss_weight": 3.0,
    }
    changed |= {"cov_loss_weight": 3.0}
    changed |= {"sk_epsilon": 0.5, "sk_iters": 1, "student_temperature": 0.5, "warmup_teacher_temperature": 0.01}
    changed |= {"num_prototypes": [4] if name == "deepclusterv2" else 4, "whitening_eps": 0.5}
    begin_task(method, views())
    before = method.loss(output_of(method, views()), UNLABELLED)
    for flag in flags.keys() & changed.keys():
        other = build(name, **{flag: changed[flag]})
        begin_task(other, views())
        assert not torch.equal(other.loss(output_of(other, views()), UNLABELLED), before), flag


def test_momentum_flags_reach_the_momentum_network() -> None:
    for name in ("byol", "mocov2plus"):
        momentum = build(name, base_tau_momentum=0.5, final_tau_momentum=0.75).momentum
        assert momentum is not None
        assert (momentum.base_tau, momentum.final_tau) == (0.5, 0.75)


def test_a_method_by_name() -> None:
    assert method_named("byol") is METHODS["byol"]
    with pytest.raises(UsageError, match=r"--method bayol: choose from barlow_twins.*\(did you mean byol\?\)"):
        method_named("bayol")
    assert small_heads("simclr") == ["--proj_hidden_dim", "8", "--output_dim", "6"]


# BYOL


def test_byol_is_2_minus_2_cos_between_a_prediction_and_the_other_views_key() -> None:
    method = build("byol")
    out = method(views())
    (p1, p2), (k1, k2) = out.p, out.keys
    expected = sum(2 - 2 * F.cosine_similarity(p, k).mean() for p, k in ((p1, k2), (p2, k1)))
    torch.testing.assert_close(method.loss(out, UNLABELLED), expected)


# MoCo


def put(method: MoCoV2Plus, *levels: float) -> None:
    """Queue one batch of keys, key i of both views filled with level i (negative in the second view)."""
    keys = torch.tensor(levels)[:, None].expand(-1, method.output_dim)
    method.after_batch(Output([], [], keys=[keys, -keys]))


def held(method: MoCoV2Plus, view: int = 0) -> list[float]:
    return method.queue[view, 0].tolist()


def test_new_keys_overwrite_the_oldest_around_the_end_of_the_queue() -> None:
    method = moco(queue_size=5)
    method.queue.zero_()
    put(method, 1, 2, 3)
    assert held(method) == [1, 2, 3, 0, 0] and int(method.queue_ptr) == 3
    put(method, 4, 5, 6)
    assert held(method) == [6, 2, 3, 4, 5] and int(method.queue_ptr) == 1
    assert held(method, view=1) == [-6, -2, -3, -4, -5]
    put(method, 7, 8, 9, 10)
    assert held(method) == [6, 7, 8, 9, 10] and int(method.queue_ptr) == 0


def test_a_batch_longer_than_the_queue_leaves_its_last_keys() -> None:
    method = moco(queue_size=3)
    put(method, 1)
    put(method, 2, 3, 4, 5, 6)
    assert sorted(held(method)) == [4, 5, 6]
    put(method, 7)  # the oldest goes first
    assert sorted(held(method)) == [5, 6, 7]


def test_a_batch_as_long_as_the_queue_replaces_it() -> None:
    method = moco(queue_size=3)
    put(method, 9)
    put(method, 1, 2, 3)
    assert sorted(held(method)) == [1, 2, 3] and int(method.queue_ptr) == 1


def test_queue_and_pointer_are_saved() -> None:
    method = moco(queue_size=5)
    put(method, 1, 2, 3)
    other = moco(queue_size=5)
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    assert torch.equal(other.queue, method.queue) and int(other.queue_ptr) == 3


def test_keys_have_unit_length_and_come_from_the_momentum_network() -> None:
    method = moco()
    images = views()
    out = method(images)
    for key, view in zip(out.keys, images, strict=True):
        torch.testing.assert_close(key.norm(dim=1), torch.ones(8))
        assert method.momentum is not None
        torch.testing.assert_close(key, F.normalize(method.momentum(view), dim=1))
    torch.testing.assert_close(method.queue.norm(dim=1), torch.ones(2, 16))


def test_moco_compares_a_query_with_its_key_and_the_other_views_queue() -> None:
    method = moco(temperature=0.5)
    out = method(views())
    (q1, q2), (k1, k2) = (F.normalize(z, dim=1) for z in out.z), out.keys
    losses = []
    for query, key, queue in ((q1, k2, method.queue[1]), (q2, k1, method.queue[0])):
        for i in range(8):
            scores = torch.cat([(query[i] @ key[i])[None], query[i] @ queue]) / 0.5
            losses.append(-scores.log_softmax(0)[0])
    torch.testing.assert_close(method.loss(out, UNLABELLED), torch.stack(losses).mean())


def test_a_loss_leaves_the_queue_alone() -> None:
    method = moco()
    before = method.queue.clone()
    method.loss(method(views()), UNLABELLED)
    assert torch.equal(method.queue, before)


@pytest.mark.parametrize(("batches", "kept"), [([3], [1, 2, 3]), ([3, 3], [4, 5, 6, 2, 3]), ([7], [3, 4, 5, 6, 7])])
def test_the_queue_of_the_other_methods(batches: list[int], kept: list[int]) -> None:
    queue, pointer = torch.zeros(5, 2), torch.zeros(1, dtype=torch.long)
    keys = iter(range(1, 20))
    for count in batches:
        enqueue(queue, pointer, torch.tensor([[float(next(keys))] * 2 for _ in range(count)]))
    assert sorted(i for i in queue[:, 0].tolist() if i) == sorted(kept)


# SimCLR, VICReg, Barlow Twins


def test_simclr_is_cross_entropy_over_all_other_views() -> None:
    method = build("simclr", temperature=0.5)
    out = method(views())
    z = F.normalize(torch.cat(out.z), dim=1)
    scores = (z @ z.T / 0.5).masked_fill(torch.eye(16, dtype=torch.bool), -torch.inf)
    partner = (torch.arange(16) + 8) % 16
    torch.testing.assert_close(method.loss(out, UNLABELLED), F.cross_entropy(scores, partner))


def test_vicreg_is_the_weighted_sum_of_its_three_parts() -> None:
    method = build("vicreg", sim_loss_weight=2.0, var_loss_weight=3.0, cov_loss_weight=5.0)
    out = method(views())
    z1, z2 = out.z
    similarity = F.mse_loss(z1, z2)
    variance = sum(F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() for z in out.z)
    covariance = sum((z.T.cov().fill_diagonal_(0) ** 2).sum() / 6 for z in out.z)
    torch.testing.assert_close(method.loss(out, UNLABELLED), 2 * similarity + 3 * variance + 5 * covariance)


def test_barlow_twins_measures_how_far_the_correlation_is_from_the_identity() -> None:
    method = build("barlow_twins", lamb=0.5, scale_loss=0.25)
    out = method(views())
    z1, z2 = ((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt() for z in out.z)
    difference = (z1.T @ z2 / 8 - torch.eye(6)) ** 2
    diagonal = difference.diagonal().sum()
    expected = 0.25 * (diagonal + 0.5 * (difference.sum() - diagonal))
    torch.testing.assert_close(method.loss(out, UNLABELLED), expected)


def test_supervised_simclr_attracts_a_class_and_leaves_the_unlabelled_alone() -> None:
    method = build("simclr", supervised=True, temperature=0.5)
    out = method(views())
    torch.testing.assert_close(method.loss(out, UNLABELLED), build("simclr", temperature=0.5).loss(out, UNLABELLED))
    targets = torch.tensor([0, 0, 1, 2, -1, -1, 3, 4])
    z = F.normalize(torch.cat(out.z), dim=1)
    log_probability = (z @ z.T / 0.5).masked_fill(torch.eye(16, dtype=torch.bool), -torch.inf).log_softmax(1)
    rows = []
    for i in range(16):
        image, label = i % 8, targets[i % 8]
        partners = [j for j in range(16) if j != i and (j % 8 == image or (label != -1 and targets[j % 8] == label))]
        rows.append(-log_probability[i, partners].mean())
    torch.testing.assert_close(method.loss(out, targets), torch.stack(rows).mean())
