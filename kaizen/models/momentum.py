"""The momentum network: a slow copy of encoder and projector (He et al., 2020; Grill et al., 2020)."""

from __future__ import annotations

import copy

import torch
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn

from kaizen.precision import float32


class MomentumNetwork(nn.Module):
    """Exponential moving average of an encoder and its projector.

    theta_momentum <- tau * theta_momentum + (1 - tau) * theta, with tau on a cosine from `base_tau` to `final_tau`
    over the steps of a task. BatchNorm statistics are its own.
    """

    def __init__(self, encoder: nn.Module, projector: nn.Module, base_tau: float, final_tau: float) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.projector = copy.deepcopy(projector).requires_grad_(False)
        self.base_tau, self.final_tau = base_tau, final_tau

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> projections (B, output_dim), no gradient, float32 also under autocast."""
        return float32(self.projector(self.encoder(images)))

    def tau(self, step: int, total_steps: int) -> float:
        """Share of the old weights that the update after `step` (0-based) of `total_steps` keeps."""
        return cosine_schedule(step, total_steps + 1, self.base_tau, self.final_tau)

    @torch.no_grad()
    def update(self, encoder: nn.Module, projector: nn.Module, tau: float) -> None:
        """Move towards the current weights: theta_momentum <- tau * theta_momentum + (1 - tau) * theta.

        Args:
            encoder, projector: with the current weights.
            tau: share of the old weights that is kept, in 0-1.
        """
        slow: list[Tensor] = [*self.encoder.parameters(), *self.projector.parameters()]
        fast: list[Tensor] = [*encoder.parameters(), *projector.parameters()]
        torch._foreach_lerp_(slow, fast, 1 - tau)
