"""NNCLR."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kaizen.args import COUNT
from kaizen.losses import contrastive_distillation
from kaizen.methods.base import Output, OutputDim, PredHidden, ProjHidden, SSLMethod, Temperature, enqueue
from kaizen.models.heads import mlp
from kaizen.precision import in_float32


class NNCLR(SSLMethod):
    """A prediction attracts the other view's nearest neighbour in a queue (Dwibedi et al., 2021, arXiv 2104.14548)."""

    queue: Tensor
    queue_ptr: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        feature_dim: int,
        *,
        proj_hidden_dim: ProjHidden = 2048,
        output_dim: OutputDim = 256,
        pred_hidden_dim: PredHidden = 4096,
        temperature: Temperature = 0.2,
        queue_size: Annotated[int, "projections that are remembered", COUNT] = 65536,
    ) -> None:
        super().__init__(encoder, feature_dim)
        self.output_dim, self.temperature = output_dim, temperature
        hidden = mlp([feature_dim, proj_hidden_dim, proj_hidden_dim, output_dim], batch_norm=True)
        self.projector = nn.Sequential(*hidden, nn.BatchNorm1d(output_dim))
        self.predictor = mlp([output_dim, pred_hidden_dim, output_dim], batch_norm=True)
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, output_dim), dim=1))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    def forward(self, views: list[Tensor]) -> Output:
        """Projections and predictions; the keys are the nearest neighbours."""
        out = super().forward(views)
        out.p = [self.predictor(z) for z in out.z]
        out.keys = [self.neighbours(z) for z in out.z]
        return out

    @torch.no_grad()
    @in_float32
    def neighbours(self, z: Tensor) -> Tensor:
        """(B, D) -> the most similar remembered projections, (B, D), unit length."""
        similarity = F.normalize(z, dim=1) @ self.queue.T
        return self.queue[similarity.argmax(dim=1)]

    def loss(self, out: Output, targets: Tensor) -> Tensor:
        """Mean of both directions of eq. 3: the neighbours pick the prediction of the other view among the batch's."""
        (p1, p2), (n1, n2) = out.p, out.keys
        first = contrastive_distillation(n1, p2, self.temperature)
        return (first + contrastive_distillation(n2, p1, self.temperature)) / 2

    def after_batch(self, out: Output) -> None:
        """Remember the first view's projections."""
        enqueue(self.queue, self.queue_ptr, F.normalize(out.z[0], dim=1))
