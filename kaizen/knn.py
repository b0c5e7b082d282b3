"""Judging representations without training anything: k nearest neighbours (Wu et al., 2018, arXiv 1805.01978)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from kaizen.features import Features

KNN_TEMPERATURE = 0.07
VOTERS = 8192  # that are compared at a time
QUERIES = 1024  # test images that they are compared with at a time


@torch.no_grad()
def knn_correct(bank: Iterable[Features], test: Features, num_classes: int, k: int) -> Tensor:
    """Which images a vote among the nearest training images gets right.

    The vote is that of lightly's `knn_predict`, which needs the features of all voters at once. Here the voters come in
    parts, and of them each test image remembers its nearest alone: memory does not grow with the training images.

    Args:
        bank: the images that vote, in parts, weighted by exp(cosine / 0.07); unlabelled ones are left out.
        test: the images to classify.
        num_classes: over all tasks.
        k: voters.

    Returns:
        One bool per test image, in the order of the image set.
    """
    queries = F.normalize(test.feats, dim=1).split(QUERIES)
    cosines = [query.new_empty(len(query), 0) for query in queries]
    labels = [test.targets.new_empty(len(query), 0) for query in queries]
    for feats, targets in _chunks(bank):
        with torch.autocast(feats.device.type, enabled=False):  # the encoder's precision is none for comparing
            voters = F.normalize(feats, dim=1)
            for place, query in enumerate(queries):
                near, who = (query @ voters.T).topk(min(k, len(voters)), dim=1)
                near, known = torch.cat([cosines[place], near], dim=1), torch.cat([labels[place], targets[who]], dim=1)
                cosines[place], nearest = near.topk(min(k, near.shape[1]), dim=1)
                labels[place] = known.gather(1, nearest)
    winners = [_vote(near, known, num_classes) for near, known in zip(cosines, labels, strict=True)]
    return test.in_order_of_images(torch.cat(winners) == test.targets)


def _vote(cosines: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Cosines and labels of the nearest (M, k) -> classes (M,)."""
    votes = cosines.new_zeros(len(cosines), num_classes)
    return votes.scatter_add_(1, labels, (cosines / KNN_TEMPERATURE).exp()).argmax(dim=1)


def _chunks(bank: Iterable[Features]) -> Iterator[tuple[Tensor, Tensor]]:
    """Features and labels of the labelled voters, at least VOTERS at a time but for the last."""
    waiting: list[tuple[Tensor, Tensor]] = []
    for part in bank:
        for feats, targets in zip(part.feats.split(VOTERS), part.targets.split(VOTERS), strict=True):
            waiting.append((feats[targets >= 0], targets[targets >= 0]))
            if sum(len(targets) for _, targets in waiting) >= VOTERS:
                yield _joined(waiting)
                waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    feats, targets = zip(*parts, strict=True)
    return torch.cat(feats), torch.cat(targets)
