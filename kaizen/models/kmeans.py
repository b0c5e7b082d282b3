"""K-means on the sphere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

POINTS_AT_ONCE = 8192  # bounds the memory that the similarities take


@torch.no_grad()
def spherical_kmeans(points: Tensor, centroids: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Cluster unit vectors by cosine similarity (Dhillon & Modha, 2001).

    Starts from random points, drawn with torch's default generator. A cluster that nobody joins keeps its centroid,
    so there may be fewer points than clusters.

    Args:
        points: (N, D), unit length.
        centroids: (K, D), where those clusters start for which there is no point.
        iterations: how often the centroids are moved.

    Returns:
        The centroids (K, D), unit length, and for each point the index of the nearest one, (N,) int64.
    """
    start = torch.randperm(len(points))[: len(centroids)].to(points.device)
    centroids = torch.cat([points[start], centroids[len(start) :]])
    nearest = nearest_centroids(points, centroids)
    for _ in range(iterations):
        sums = torch.zeros_like(centroids).index_add_(0, nearest, points)
        alive = sums.norm(dim=1, keepdim=True) > 0
        centroids = torch.where(alive, F.normalize(sums, dim=1), centroids)
        nearest = nearest_centroids(points, centroids)
    return centroids, nearest


def nearest_centroids(points: Tensor, centroids: Tensor) -> Tensor:
    """(N, D) and (K, D) -> the most similar centroid of each point, (N,)."""
    parts = [(part @ centroids.T).argmax(dim=1) for part in points.split(POINTS_AT_ONCE)]
    return torch.cat(parts)
