"""Losses that lightly does not have, or has with other maths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kaizen.precision import in_float32


@in_float32
def labelled_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over the labelled images of a batch; 0 where none is labelled.

    Args:
        logits: (B, C).
        targets: (B,) class indices, -1 = unlabelled.

    Returns:
        A scalar, float32 also under autocast.
    """
    total = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
    return total / (targets != -1).sum().clamp(min=1)


def assignment_cross_entropy(scores: Sequence[Tensor], assignments: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of prototype scores against cluster assignments (DeepCluster, Caron et al., 2018, eq. 1).

    Args:
        scores: (V, B, K) of V views for each set of K prototypes; K may differ.
        assignments: (S, B), the clusters of the images in each of the S sets; -1 = none, ignored.
        temperature: of the softmax.

    Returns:
        Mean over the sets of the mean over the assigned images; 0 for a set where none is assigned.
    """
    losses = [
        labelled_cross_entropy(score.flatten(0, 1) / temperature, clusters.repeat(len(score)))
        for score, clusters in zip(scores, assignments, strict=True)
    ]
    return torch.stack(losses).mean()


def soft_label_cross_entropy(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy against the teacher's distribution at temperature 1 (Kaizen's L_C^KD).

    Args:
        logits, teacher_logits: (B, C).

    Returns:
        The mean over the batch, a scalar.
    """
    return F.cross_entropy(logits, F.softmax(teacher_logits, dim=1))


def contrastive_distillation(z: Tensor, teacher_z: Tensor, temperature: float) -> Tensor:
    """InfoNCE of one set of projections against another (CaSSLe, section 4).

    Row i of `teacher_z` is the positive of row i of `z`; every row of `teacher_z` is a candidate.

    Args:
        z, teacher_z: (N, D), the views concatenated; normalised here.
        temperature: of the softmax.

    Returns:
        The mean over the rows of `z`, a scalar.
    """
    similarity = F.normalize(z, dim=1) @ F.normalize(teacher_z, dim=1).T / temperature
    return F.cross_entropy(similarity, torch.arange(len(z), device=z.device))


def queue_contrastive(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE of a query against its key and a queue of older keys (MoCo, He et al., 2020, eq. 1).

    Args:
        query, key: (B, D), normalised.
        queue: (D, K), normalised columns.
        temperature: of the softmax.

    Returns:
        The mean over the batch, a scalar.
    """
    positive = (query * key).sum(dim=1, keepdim=True)
    logits = torch.cat([positive, query @ queue], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long, device=query.device))


def relational(query: Tensor, key: Tensor, queue: Tensor, temperature_q: float, temperature_k: float) -> Tensor:
    """Cross-entropy between two views' similarities to a queue (ReSSL, Zheng et al., 2021, eq. 4).

    Args:
        query, key: (B, D), normalised; no gradient reaches the key.
        queue: (K, D), normalised.
        temperature_q, temperature_k: of the two softmaxes; the key's is sharper.

    Returns:
        The mean over the batch, a scalar.
    """
    target = F.softmax(key.detach() @ queue.T / temperature_k, dim=1)
    return F.cross_entropy(query @ queue.T / temperature_q, target)


def crop_contrastive(z: Tensor, positives: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each positive of a row against the row's negatives alone, averaged over its positives.

    Unlike `supervised_contrastive`, the other positives of a row stay out of the denominator.

    Args:
        z: (N, D); normalised here.
        positives: (N, N) bool, what each row attracts; the diagonal is left out, and so are rows without any.
        negatives: (N, N) bool, what each row repels; the diagonal should be False.
        temperature: of the softmax.

    Returns:
        The mean over the rows that have a positive, a scalar.
    """
    z = F.normalize(z, dim=1)
    logits = z @ z.T / temperature
    repelled = logits.masked_fill(~negatives, float("-inf")).logsumexp(dim=1, keepdim=True)
    positives = positives & ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    count = positives.sum(dim=1)
    loss = F.softplus(repelled - logits).masked_fill(~positives, 0.0).sum(dim=1) / count.clamp(min=1)
    return loss.sum() / (count > 0).sum().clamp(min=1)


def supervised_contrastive(z: Tensor, positives: Tensor, temperature: float) -> Tensor:
    """InfoNCE with several positives per row (SupCon, Khosla et al., 2020, eq. 2).

    Args:
        z: (N, D); normalised here.
        positives: (N, N) bool, what each row attracts; at least one per row, the diagonal is left out.
        temperature: of the softmax.

    Returns:
        The mean over the rows, a scalar.
    """
    z = F.normalize(z, dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_prob = F.log_softmax((z @ z.T / temperature).masked_fill(itself, float("-inf")), dim=1)
    positives = positives & ~itself
    mean = log_prob.masked_fill(~positives, 0.0).sum(dim=1) / positives.sum(dim=1)
    return -mean.mean()


def covariance_loss(x: Tensor) -> Tensor:
    """Squared covariances of different dimensions, over the width (VICReg, Bardes et al., 2022, eq. 4).

    lightly's picks them with a mask, for which the host waits.

    Args:
        x: (N, D), at least two rows.

    Returns:
        A scalar.
    """
    x = x - x.mean(dim=0)
    covariance = x.T @ x / (len(x) - 1)
    width = len(covariance)
    # Without the last entry, in rows of D + 1, the diagonal is the first column.
    others = covariance.flatten()[:-1].view(width - 1, width + 1)[:, 1:]
    return others.square().sum() / width


def whiten(x: Tensor, eps: float) -> Tensor:
    """Centre and whiten a batch with the inverse Cholesky factor of its covariance (W-MSE, section 3.2).

    Args:
        x: (N, D).
        eps: share of the identity that is mixed into the covariance; without it N must exceed D.

    Returns:
        (N, D) of mean 0; at eps 0 its covariance is the identity. All NaN where the covariance has no Cholesky
        factor: to raise an error the host would have to wait for it.
    """
    x = x - x.mean(dim=0)
    covariance = x.T @ x / (len(x) - 1)
    mixed = (1 - eps) * covariance + eps * torch.eye(x.shape[1], device=x.device)
    factor, failed = torch.linalg.cholesky_ex(mixed)
    white = torch.linalg.solve_triangular(factor, x.T, upper=False).T
    return white.masked_fill(failed != 0, torch.nan)
