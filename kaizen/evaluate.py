"""Judging representations without training anything: k nearest neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lightly.utils.benchmarking import knn_predict
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kaizen.data.loaders import Batch
from kaizen.learner import evaluating, mean_by_task

KNN_TEMPERATURE = 0.07


@torch.no_grad()
def extract_features(
    encoder: nn.Module, view: nn.Module, loader: DataLoader[Batch], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """All images of a loader through an encoder in evaluation mode, each once.

    Returns:
        Unit-length features (N, D), targets (N,) and indices into the image set (N,), on `device`.
    """
    feats, targets, indices = [], [], []
    with evaluating(encoder):
        for images, labels, chosen in loader:
            feats.append(F.normalize(encoder(view(images.to(device))).float(), dim=1))
            targets.append(labels.to(device))
            indices.append(chosen.to(device))
    return torch.cat(feats), torch.cat(targets), torch.cat(indices)


@torch.no_grad()
def knn_accuracy_by_task(
    encoder: nn.Module,
    view: nn.Module,
    train: DataLoader[Batch],
    test: DataLoader[Batch],
    test_indices: list[Tensor],
    num_classes: int,
    k: int,
    device: torch.device,
) -> list[float]:
    """Accuracy in 0-1 on each task's test images of a vote among the nearest training images (Wu et al., 2018).

    Args:
        encoder: judged in evaluation mode.
        view: uint8 images -> normalised images.
        train: the labelled images that vote; unlabelled ones are left out.
        test: all test images.
        test_indices: for each task, the indices of its test images.
        num_classes: over all tasks.
        k: voters, weighted by exp(cosine / 0.07).
        device: where it runs.
    """
    bank, labels, _ = extract_features(encoder, view, train, device)
    bank, labels = bank[labels >= 0], labels[labels >= 0]
    feats, targets, indices = extract_features(encoder, view, test, device)
    correct = torch.zeros(int(indices.max()) + 1, dtype=torch.bool)
    for rows in torch.arange(len(feats), device=device).split(256):
        votes = knn_predict(feats[rows], bank.T, labels, num_classes, min(k, len(bank)), KNN_TEMPERATURE)
        correct[indices[rows].cpu()] = (votes[:, 0] == targets[rows]).cpu()
    return mean_by_task(correct, test_indices)
