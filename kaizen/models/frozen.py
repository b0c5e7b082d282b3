"""The frozen model: what the previous task's model knew, kept as a teacher."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kaizen.ranks import Share


@dataclass
class FrozenOutput:
    """What the teacher says, one tensor per view: z (B, output_dim) and logits (B, num_classes)."""

    z: list[Tensor]
    logits: list[Tensor]

    def shared(self, share: Share) -> FrozenOutput:
        """The same for the whole batch, of which this is a share."""
        return FrozenOutput(share.whole_views(self.z), share.whole_views(self.logits))


class FrozenModel(nn.Module):
    """Encoder, projector and classifier of the task before, without gradient.

    Args:
        encoder, projector, classifier: copied; `classifier` may be None.
        batchnorm: "batch" normalises with the statistics of each batch, as the published code does;
            "running" with those of the task before.
    """

    def __init__(self, encoder: nn.Module, projector: nn.Module, classifier: nn.Module | None, batchnorm: str) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        self.projector = copy.deepcopy(projector)
        self.classifier = copy.deepcopy(classifier)
        self.batchnorm = batchnorm
        self.requires_grad_(False)
        self.train()  # the copies come in the mode of their originals

    def train(self, mode: bool = True) -> FrozenModel:
        """With "running" statistics this model never trains."""
        super().train(mode and self.batchnorm == "batch")
        return self

    @torch.no_grad()
    def forward(self, views: list[Tensor]) -> FrozenOutput:
        """Views (B, 3, H, W) each -> projections and logits per view."""
        feats = [self.encoder(view) for view in views]
        logits = [self.classifier(f) for f in feats] if self.classifier is not None else []
        return FrozenOutput([self.projector(f) for f in feats], logits)


@contextmanager
def evaluating(module: nn.Module, active: bool = True) -> Iterator[None]:
    """Run a module in evaluation mode, its BatchNorm statistics untouched; it trains again afterwards."""
    was_training = module.training
    module.train(was_training and not active)
    try:
        yield
    finally:
        module.train(was_training)
