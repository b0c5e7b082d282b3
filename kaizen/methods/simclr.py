"""SimCLR."""

from __future__ import annotations

from lightly.loss import NTXentLoss
from torch import Tensor, nn

from kaizen.methods.base import Output, OutputDim, ProjHidden, SSLMethod, Temperature
from kaizen.models.heads import mlp


class SimCLR(SSLMethod):
    """Both views of an image attract, all other images of the batch repel (Chen et al., 2020, arXiv 2002.05709)."""

    def __init__(
        self,
        encoder: nn.Module,
        feature_dim: int,
        *,
        proj_hidden_dim: ProjHidden = 2048,
        output_dim: OutputDim = 128,
        temperature: Temperature = 0.1,
    ) -> None:
        super().__init__(encoder, feature_dim)
        self.output_dim = output_dim
        self.projector = mlp([feature_dim, proj_hidden_dim, output_dim])
        self.criterion = NTXentLoss(temperature)

    def loss(self, out: Output, targets: Tensor) -> Tensor:
        """NT-Xent, eq. 1 of the paper."""
        return self.criterion(*out.z)
