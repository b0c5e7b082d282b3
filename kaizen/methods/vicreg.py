"""VICReg."""

from __future__ import annotations

from torch import Tensor, nn

from kaizen.losses import covariance_loss
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
        super().__init__(encoder, feature_dim)
        self.output_dim = output_dim
        self.projector = mlp([feature_dim, proj_hidden_dim, proj_hidden_dim, output_dim], batch_norm=True)
        self.weights = sim_loss_weight, var_loss_weight, cov_loss_weight

    def loss(self, out: Output, targets: Tensor) -> Tensor:
        """Eq. 6 of the paper."""
        from lightly.loss.vicreg_loss import invariance_loss, variance_loss

        z1, z2 = out.z
        invariance, variance, covariance = self.weights
        loss = invariance * invariance_loss(z1, z2) + variance * (variance_loss(z1) + variance_loss(z2))
        return loss + covariance * (covariance_loss(z1) + covariance_loss(z2))
