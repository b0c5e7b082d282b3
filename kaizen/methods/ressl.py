"""ReSSL."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kaizen.args import COUNT, POSITIVE
from kaizen.losses import relational
from kaizen.methods.base import BaseTau, FinalTau, Output, OutputDim, ProjHidden, SSLMethod, enqueue
from kaizen.models.heads import mlp
from kaizen.models.momentum import MomentumNetwork


class ReSSL(SSLMethod):
    """Both views stand in the same relation to a queue of other images (Zheng et al., 2021, arXiv 2107.09282)."""

    queue: Tensor
    queue_ptr: Tensor
    has_momentum = True
    momentum: MomentumNetwork

    def __init__(
        self,
        encoder: nn.Module,
        feature_dim: int,
        *,
        proj_hidden_dim: ProjHidden = 2048,
        output_dim: OutputDim = 512,
        temperature_q: Annotated[float, "temperature of the student's relation", POSITIVE] = 0.1,
        temperature_k: Annotated[float, "temperature of the momentum network's relation", POSITIVE] = 0.04,
        queue_size: Annotated[int, "keys that are remembered", COUNT] = 65536,
        base_tau_momentum: BaseTau = 0.99,
        final_tau_momentum: FinalTau = 1.0,
    ) -> None:
        super().__init__(encoder, feature_dim)
        self.output_dim = output_dim
        self.temperature_q, self.temperature_k = temperature_q, temperature_k
        self.projector = mlp([feature_dim, proj_hidden_dim, output_dim], batch_norm=True)
        self.momentum = MomentumNetwork(encoder, self.projector, base_tau_momentum, final_tau_momentum)
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, output_dim), dim=1))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    def forward(self, views: list[Tensor]) -> Output:
        """Queries of all views with gradient; keys of the second view from the momentum network."""
        keys = [F.normalize(self.momentum(views[1]), dim=1)]
        out = super().forward(views)
        out.keys = keys
        return out

    def loss(self, out: Output, targets: Tensor) -> Tensor:
        """Eq. 4: cross-entropy of the first view's relation against the second's."""
        query = F.normalize(out.z[0], dim=1)
        return relational(query, out.keys[0], self.queue, self.temperature_q, self.temperature_k)

    def after_batch(self, out: Output) -> None:
        """Remember the keys."""
        enqueue(self.queue, self.queue_ptr, out.keys[0])
