"""Barlow Twins."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from kaizen.args import NOT_NEGATIVE
from kaizen.methods.base import Output, OutputDim, ProjHidden, SSLMethod
from kaizen.models.heads import mlp


class BarlowTwins(SSLMethod):
    """The correlation matrix of both views' dimensions becomes the identity.

    Zbontar et al., 2021, arXiv 2103.03230.
    """

    def __init__(
        self,
        encoder: nn.Module,
        feature_dim: int,
        *,
        proj_hidden_dim: ProjHidden = 2048,
        output_dim: OutputDim = 2048,
        lamb: Annotated[float, "weight of the off-diagonal part", NOT_NEGATIVE] = 5e-3,
        scale_loss: Annotated[float, "factor of the whole loss", NOT_NEGATIVE] = 0.025,
    ) -> None:
        from lightly.loss import BarlowTwinsLoss

        super().__init__(encoder, feature_dim)
        self.output_dim = output_dim
        self.projector = mlp([feature_dim, proj_hidden_dim, proj_hidden_dim, output_dim], batch_norm=True)
        self.criterion, self.scale_loss = BarlowTwinsLoss(lamb), scale_loss

    def loss(self, out: Output, targets: Tensor) -> Tensor:
        """Eq. 1 of the paper, scaled."""
        return self.scale_loss * self.criterion(*out.z)
