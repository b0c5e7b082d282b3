"""W-MSE."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from kaizen.args import COUNT, FRACTION, UsageError
from kaizen.losses import whiten
from kaizen.methods.base import Output, OutputDim, ProjHidden, SSLMethod
from kaizen.models.heads import mlp


class WMSE(SSLMethod):
    """Both views agree after whitening, which rules collapse out (Ermolov et al., 2021, arXiv 2007.06346)."""

    def __init__(
        self,
        encoder: nn.Module,
        feature_dim: int,
        *,
        proj_hidden_dim: ProjHidden = 1024,
        output_dim: OutputDim = 128,
        whitening_iters: Annotated[int, "partitions of the batch that a loss averages over", COUNT] = 1,
        whitening_size: Annotated[int, "images that are whitened together, at least", COUNT] = 256,
        whitening_eps: Annotated[float, "share of the identity in their covariance", FRACTION] = 0.0,
        whitening_both: Annotated[bool, "both views learn, as in the paper; published: the first alone"] = False,
    ) -> None:
        from lightly.loss import NegativeCosineSimilarity

        super().__init__(encoder, feature_dim)
        self.whitening_both = whitening_both
        self.output_dim = output_dim
        self.whitening_iters, self.whitening_size, self.whitening_eps = whitening_iters, whitening_size, whitening_eps
        self.projector = mlp([feature_dim, proj_hidden_dim, output_dim], batch_norm=True)
        self.similarity = NegativeCosineSimilarity()

    @classmethod
    def check_flags(cls, flags: dict[str, Any], batch_size: int) -> None:
        """Without `whitening_eps` the covariance of n projections has an inverse only where n exceeds their width."""
        size, dim, hidden = flags["whitening_size"], flags["output_dim"], flags["proj_hidden_dim"]
        if size > batch_size:
            raise UsageError(f"--whitening_size {size}: above --batch_size {batch_size}; use at most that")
        if size < 2:
            raise UsageError(f"--whitening_size {size}: a single image has no covariance; use at least 2")
        if flags["whitening_eps"] > 0:
            return
        if size <= dim:
            raise UsageError(
                f"--whitening_size {size}: not above --output_dim {dim}, so whitening is singular; use a larger one, "
                "a smaller --output_dim or --whitening_eps 0.01"
            )
        if hidden < dim:
            raise UsageError(
                f"--proj_hidden_dim {hidden}: below --output_dim {dim}, so whitening is singular; use a larger one "
                "or --whitening_eps 0.01"
            )

    def loss(self, out: Output, targets: Tensor) -> Tensor:
        """Distance of the whitened views, eq. 6 of the paper.

        The published code takes the second view for a fixed target, which `whitening_both` does not.
        """
        return torch.stack([self.partition_loss(*out.z) for _ in range(self.whitening_iters)]).mean()

    def partition_loss(self, z1: Tensor, z2: Tensor) -> Tensor:
        """The loss over one random partition into equal parts, none smaller than `whitening_size`."""
        order = torch.randperm(len(z1), device=z1.device)
        parts = order.tensor_split(max(1, len(order) // self.whitening_size))
        v1, v2 = (torch.cat([whiten(z[part], self.whitening_eps) for part in parts]) for z in (z1, z2))
        return 2 + 2 * self.similarity(v1, v2 if self.whitening_both else v2.detach())

    def not_finite_cure(self) -> str:
        """Whitening fails where the covariance is singular."""
        return (
            f"where the projections fill fewer than {self.output_dim} dimensions, whitening is singular at "
            f"--whitening_eps {self.whitening_eps:g}: use a larger one, a smaller --output_dim or a smaller --lr"
        )
