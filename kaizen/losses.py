"""Losses that lightly does not have, or has with other maths."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def labelled_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over the labelled images of a batch; 0 where none is labelled.

    Args:
        logits: (B, C).
        targets: (B,) class indices, -1 = unlabelled.
    """
    total = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
    return total / (targets != -1).sum().clamp(min=1)


def soft_label_cross_entropy(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy against the teacher's distribution at temperature 1 (Kaizen's L_C^KD).

    Args:
        logits, teacher_logits: (B, C).
    """
    return F.cross_entropy(logits, F.softmax(teacher_logits, dim=1))


def contrastive_distillation(z: Tensor, teacher_z: Tensor, temperature: float) -> Tensor:
    """InfoNCE of one set of projections against another (CaSSLe, section 4).

    Row i of `teacher_z` is the positive of row i of `z`; every row of `teacher_z` is a candidate.

    Args:
        z, teacher_z: (N, D), the views concatenated; normalised here.
        temperature: of the softmax.
    """
    similarity = F.normalize(z, dim=1) @ F.normalize(teacher_z, dim=1).T / temperature
    return F.cross_entropy(similarity, torch.arange(len(z), device=z.device))


def queue_contrastive(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """InfoNCE of a query against its key and a queue of older keys (MoCo, He et al., 2020, eq. 1).

    Args:
        query, key: (B, D), normalised.
        queue: (D, K), normalised columns.
        temperature: of the softmax.
    """
    positive = (query * key).sum(dim=1, keepdim=True)
    logits = torch.cat([positive, query @ queue], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long, device=query.device))
