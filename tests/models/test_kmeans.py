from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kaizen.models.kmeans import POINTS_AT_ONCE, nearest_centroids, spherical_kmeans


def blobs(centres: Tensor, count: int, spread: float = 0.05) -> tuple[Tensor, Tensor]:
    """`count` unit vectors around each centre (K, D), in random order, and which centre each belongs to."""
    torch.manual_seed(0)
    label = torch.arange(len(centres)).repeat_interleave(count)[torch.randperm(len(centres) * count)]
    return F.normalize(centres[label] + spread * torch.randn(len(label), centres.shape[1]), dim=1), label


def similarity(points: Tensor, centroids: Tensor, nearest: Tensor) -> float:
    """What k-means makes large."""
    return float((points * centroids[nearest]).sum(dim=1).mean())


def test_clusters_that_lie_apart_are_found() -> None:
    centres = torch.eye(4)
    points, label = blobs(centres, 20)
    for seed in range(20):  # a start with all clusters; others may end in a worse place
        torch.manual_seed(seed)
        if len(label[torch.randperm(80)[:4]].unique()) == 4:
            break
    torch.manual_seed(seed)
    centroids, nearest = spherical_kmeans(points, torch.randn(4, 4), 10)
    match = centroids @ centres.T
    assert sorted(match.argmax(dim=1).tolist()) == [0, 1, 2, 3] and match.max(dim=1).values.min() > 0.99
    assert match.argmax(dim=1)[nearest].equal(label)
    means = torch.stack([points[nearest == k].mean(dim=0) for k in range(4)])
    torch.testing.assert_close(centroids, F.normalize(means, dim=1))


def test_every_iteration_helps_and_points_are_with_their_nearest() -> None:
    torch.manual_seed(1)
    points = F.normalize(torch.randn(300, 6), dim=1)
    reached = []
    for iterations in (0, 1, 2, 5, 20):
        torch.manual_seed(2)
        centroids, nearest = spherical_kmeans(points, torch.randn(10, 6), iterations)
        reached.append(similarity(points, centroids, nearest))
        torch.testing.assert_close(centroids.norm(dim=1), torch.ones(10))
        assert nearest.equal((points @ centroids.T).argmax(dim=1))
    assert reached == sorted(reached) and reached[-1] > reached[0]


def test_the_same_seed_gives_the_same_clusters_and_another_one_others() -> None:
    points = F.normalize(torch.randn(100, 6, generator=torch.Generator().manual_seed(3)), dim=1)
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        runs.append(spherical_kmeans(points, torch.ones(8, 6), 3)[0])
    assert runs[0].equal(runs[1]) and not runs[0].equal(runs[2])


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_points_than_clusters(count: int) -> None:
    points = torch.eye(6)[:count]
    before = F.normalize(-torch.rand(5, 6), dim=1)
    centroids, nearest = spherical_kmeans(points, before, 10)
    torch.testing.assert_close(centroids[nearest], points)
    assert sorted(nearest.tolist()) == list(range(count))
    assert centroids[count:].equal(before[count:])  # nobody joins those


def test_equal_points_and_points_that_cancel_out() -> None:
    same = F.normalize(torch.ones(7, 3), dim=1)
    centroids, nearest = spherical_kmeans(same, torch.zeros(4, 3), 5)
    torch.testing.assert_close(centroids[nearest], same)
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    centroids, _ = spherical_kmeans(opposite, torch.tensor([[0.0, 1.0]]), 5)
    assert torch.isfinite(centroids).all() and centroids.norm() > 0


def test_many_points_are_taken_in_parts() -> None:
    torch.manual_seed(0)
    points, centroids = torch.randn(POINTS_AT_ONCE + 5, 3), torch.randn(4, 3)
    assert nearest_centroids(points, centroids).equal((points @ centroids.T).argmax(dim=1))
