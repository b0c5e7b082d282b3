"""MoCo v2+."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kaizen.args import COUNT
from kaizen.losses import queue_contrastive
from kaizen.methods.base import BaseTau, FinalTau, Output, OutputDim, ProjHidden, SSLMethod, Temperature, enqueue
from kaizen.models.heads import mlp
from kaizen.models.momentum import MomentumNetwork


class MoCoV2Plus(SSLMethod):
    """A query attracts the momentum network's key of the other view; a queue of older keys repels it.

    MoCo v2 (Chen et al., 2020, arXiv 2003.04297), made symmetric: each view has a queue of its own.
    """

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
        output_dim: OutputDim = 128,
        temperature: Temperature = 0.1,
        queue_size: Annotated[int, "keys that are remembered", COUNT] = 65536,
        base_tau_momentum: BaseTau = 0.99,
        final_tau_momentum: FinalTau = 1.0,
    ) -> None:
        super().__init__(encoder, feature_dim)
        self.output_dim, self.temperature = output_dim, temperature
        self.projector = mlp([feature_dim, proj_hidden_dim, output_dim])
        self.momentum = MomentumNetwork(encoder, self.projector, base_tau_momentum, final_tau_momentum)
        self.register_buffer("queue", F.normalize(torch.randn(2, output_dim, queue_size), dim=1))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    def forward(self, views: list[Tensor]) -> Output:
        """Queries with gradient, keys without; both are normalised, and so is what distillation is given of them."""
        keys = [F.normalize(self.momentum(view), dim=1) for view in views]
        out = super().forward(views)
        out.z, out.keys = [F.normalize(z, dim=1) for z in out.z], keys
        return out

    def loss(self, out: Output, targets: Tensor) -> Tensor:
        """Mean over both directions: the query of one view, the key and the queue of the other."""
        (q1, q2), (k1, k2) = out.z, out.keys
        first = queue_contrastive(q1, k2, self.queue[1], self.temperature)
        second = queue_contrastive(q2, k1, self.queue[0], self.temperature)
        return (first + second) / 2

    def after_batch(self, out: Output) -> None:
        """Remember the keys of both views."""
        by_key = rearrange(self.queue, "view dim key -> key view dim")  # a view: writing to it writes to the queue
        enqueue(by_key, self.queue_ptr, torch.stack(out.keys, dim=1))
