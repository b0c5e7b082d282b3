from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import begin_task, method_of, output_of, state_of, views_of
from torch import Tensor

from kaizen.methods.deepclusterv2 import DeepClusterV2

UNLABELLED = torch.full((8,), -1)


def deepcluster(**flags: object) -> DeepClusterV2:
    method = method_of("deepclusterv2", **{"num_prototypes": [3, 4, 3], **flags})
    assert isinstance(method, DeepClusterV2)
    return method


def weights(method: DeepClusterV2) -> list[Tensor]:
    return [prototypes.weight for prototypes in method.prototypes]


def test_every_crop_predicts_the_clusters_of_its_image_in_every_set() -> None:
    method = deepcluster(temperature=0.5)
    begin_task(method, views_of(), num_images=8)
    out = output_of(method, views_of(small=1))
    losses = [
        F.cross_entropy(z @ prototypes.T / 0.5, method.assignments[i])
        for i, prototypes in enumerate(weights(method))
        for z in out.z
    ]
    torch.testing.assert_close(method.loss(out, UNLABELLED), torch.stack(losses).mean())


def test_a_task_begins_with_the_memory_of_all_its_images() -> None:
    method = deepcluster()
    first, second = views_of(small=1), views_of(seed=2, small=1)
    method.start_task(iter([(first, torch.arange(8) * 2), (second, torch.arange(8) * 2 + 1)]), 16)
    assert method.memory.shape == (2, 16, 6)
    for images, rows in ((first, slice(0, None, 2)), (second, slice(1, None, 2))):
        torch.testing.assert_close(method.memory[:, rows], torch.stack(method(images).z[:2]))
    method.start_epoch(0)
    assert method.assignments.shape == (3, 16) and (method.assignments >= 0).all()


def test_an_epoch_begins_with_prototypes_in_the_middle_of_their_images() -> None:
    method = deepcluster(kmeans_iters=20)
    begin_task(method, views_of(), num_images=8)
    for i, prototypes in enumerate(weights(method)):
        points = method.memory[i % 2]  # the sets take the crops in turn
        assert (points @ prototypes.T).argmax(dim=1).equal(method.assignments[i])
        for k in method.assignments[i].unique():
            mean = points[method.assignments[i] == k].mean(dim=0)
            torch.testing.assert_close(prototypes[k], F.normalize(mean, dim=0))


def test_a_batch_replaces_what_was_remembered_and_clusters_follow_at_the_next_epoch() -> None:
    method = deepcluster()
    begin_task(method, views_of())
    assigned = method.assignments.clone()
    out = output_of(method, views_of(4, seed=2), first=2)
    before = method.memory.clone()
    method.after_batch(out)
    torch.testing.assert_close(method.memory[:, 2:6], torch.stack(out.z))
    assert method.memory[:, [0, 1, 6, 7]].equal(before[:, [0, 1, 6, 7]]) and not method.memory.requires_grad
    assert method.assignments.equal(assigned)
    prototypes = torch.cat(weights(method)).clone()
    method.start_epoch(1)
    assert not torch.cat(weights(method)).equal(prototypes)


def test_images_without_a_cluster_are_left_out() -> None:
    method = deepcluster()
    begin_task(method, views_of())
    known = output_of(method, [view[:4] for view in views_of()])
    both = output_of(method, views_of())
    both.z = [torch.cat([z, F.normalize(torch.randn(4, 6), dim=1)]) for z in known.z]
    both.indices = torch.tensor([0, 1, 2, 3, 8, 9, 70, 11])
    torch.testing.assert_close(method.loss(both, UNLABELLED), method.loss(known, UNLABELLED))


def test_a_batch_of_unknown_images_says_nothing() -> None:
    method = deepcluster()
    begin_task(method, views_of())
    loss = method.loss(output_of(method, views_of(), first=20), UNLABELLED)
    loss.backward()
    assert loss.item() == 0 and all(not p.grad.any() for p in method.parameters() if p.grad is not None)


def test_images_that_come_later_are_clustered_in_the_next_epoch() -> None:
    method = deepcluster()
    begin_task(method, views_of(), num_images=28)
    method.after_batch(output_of(method, views_of(seed=2), first=20))
    method.start_epoch(1)
    unseen = torch.ones(28, dtype=torch.bool)
    unseen[:8] = unseen[20:] = False
    assert (method.assignments == -1).all(dim=0).equal(unseen)


def test_prototypes_are_moved_by_k_means_alone() -> None:
    method = deepcluster()
    assert not any(p.requires_grad for p in method.prototypes.parameters())
    assert method.teaching_prototypes is method.prototypes[0]
    for prototypes in weights(method):
        torch.testing.assert_close(prototypes.norm(dim=1), torch.ones(len(prototypes)))


@pytest.mark.parametrize("number", [[100], [8], [1]])
def test_more_prototypes_than_images(number: list[int]) -> None:
    method = deepcluster(num_prototypes=number)
    begin_task(method, views_of(), num_images=8)
    loss = method.loss(output_of(method, views_of()), UNLABELLED)
    assert torch.isfinite(loss) and method.prototypes[0].weight.shape == (number[0], 6)
    assert len(method.assignments[0].unique()) == min(8, number[0])


def test_the_next_task_takes_the_prototypes_and_not_the_memory() -> None:
    method = deepcluster()
    begin_task(method, views_of())
    state = state_of(method)
    assert not [name for name in state if "memory" in name or "assignments" in name]
    other = deepcluster()
    begin_task(other, views_of(12, seed=3))
    other.load_state_dict(state)
    assert all(a.equal(b) for a, b in zip(weights(other), weights(method), strict=True))
    begin_task(other, views_of(4, seed=4), first=2, num_images=6)
    assert other.memory.shape == (2, 6, 6)
    assert (other.assignments[:, :2] == -1).all() and (other.assignments[:, 2:] >= 0).all()


def test_three_full_crops() -> None:
    method = deepcluster()
    images = [*views_of(), views_of(seed=2)[0]]
    begin_task(method, images, num_images=8)
    assert method.memory.shape[0] == 3
    torch.testing.assert_close(method.memory[2], method(images).z[2])
