"""Judging representations without training anything: k nearest neighbours (Wu et al., 2018, arXiv 1805.01978)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kaizen.features import Features

KNN_TEMPERATURE = 0.07


@torch.no_grad()
def knn_correct(bank: Features, test: Features, num_classes: int, k: int) -> Tensor:
    """Which images a vote among the nearest training images gets right.

    Args:
        bank: the images that vote, weighted by exp(cosine / 0.07); unlabelled ones are left out.
        test: the images to classify.
        num_classes: over all tasks.
        k: voters.

    Returns:
        One bool per test image, in the order of the image set.
    """
    from lightly.utils.benchmarking import knn_predict

    labelled = bank.targets >= 0
    voters, labels = F.normalize(bank.feats[labelled], dim=1), bank.targets[labelled]
    correct = []
    for feats, targets in zip(test.feats.split(256), test.targets.split(256), strict=True):
        query = F.normalize(feats, dim=1)
        votes = knn_predict(query, voters.T, labels, num_classes, min(k, len(voters)), KNN_TEMPERATURE)
        correct.append(votes[:, 0] == targets)
    return test.in_order_of_images(torch.cat(correct))
