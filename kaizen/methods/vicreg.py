"""VICReg."""

from __future__ import annotations

from torch import Tensor, nn

from kaizen.methods.base import Output, OutputDim, ProjHidden, SSLMethod, Weight
from kaizen.models.heads import mlp


class VICReg(SSLMethod):
    """Views agree (invariance), dimensions vary (variance) and tell different things (covariance).

    Bardes et al., 2022, arXiv 2105.04906.
    """

    def __init__(
        self,
        encoder: nn.Module,
        feature_dim: int,
        *,
        proj_hidden_dim: ProjHidden = 2048,
        output_dim: OutputDim = 2048,
        sim_loss_weight: Weight = 25.0,
        var_loss_weight: Weight = 25.0,
        cov_loss_weight: Weight = 1.0,
    ) -> None:
        from lightly.loss import VICRegLoss

        super().__init__(encoder, feature_dim)
        self.output_dim = output_dim
        self.projector = mlp([feature_dim, proj_hidden_dim, proj_hidden_dim, output_dim], batch_norm=True)
        # lightly takes the mean of both views' variance terms, the published loss their sum.
        self.criterion = VICRegLoss(sim_loss_weight, 2 * var_loss_weight, cov_loss_weight)

    def loss(self, out: Output, targets: Tensor) -> Tensor:
        """Eq. 6 of the paper."""
        return self.criterion(*out.z)
