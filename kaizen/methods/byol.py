"""BYOL."""

from __future__ import annotations

from torch import Tensor, nn

from kaizen.methods.base import BaseTau, FinalTau, Output, OutputDim, PredHidden, ProjHidden, SSLMethod
from kaizen.models.heads import mlp
from kaizen.models.momentum import MomentumNetwork


class BYOL(SSLMethod):
    """A predictor finds the momentum network's projection of the other view (Grill et al., 2020, arXiv 2006.07733)."""

    has_momentum = True
    momentum: MomentumNetwork

    def __init__(
        self,
        encoder: nn.Module,
        feature_dim: int,
        *,
        proj_hidden_dim: ProjHidden = 2048,
        output_dim: OutputDim = 128,
        pred_hidden_dim: PredHidden = 512,
        base_tau_momentum: BaseTau = 0.99,
        final_tau_momentum: FinalTau = 1.0,
    ) -> None:
        from lightly.loss import NegativeCosineSimilarity

        super().__init__(encoder, feature_dim)
        self.output_dim = output_dim
        self.projector = mlp([feature_dim, proj_hidden_dim, output_dim], batch_norm=True)
        self.predictor = mlp([output_dim, pred_hidden_dim, output_dim], batch_norm=True)
        self.momentum = MomentumNetwork(encoder, self.projector, base_tau_momentum, final_tau_momentum)
        self.similarity = NegativeCosineSimilarity()

    def forward(self, views: list[Tensor]) -> Output:
        """Projections and predictions with gradient, targets without."""
        keys = [self.momentum(view) for view in views]
        out = super().forward(views)
        out.p, out.keys = [self.predictor(z) for z in out.z], keys
        return out

    def loss(self, out: Output, targets: Tensor) -> Tensor:
        """2 - 2 cos(prediction, key of the other view), summed over the ordered pairs of views; eq. 2 and 3."""
        pairs = [(p, k) for i, p in enumerate(out.p) for j, k in enumerate(out.keys) if i != j]
        return sum((2 + 2 * self.similarity(p, key) for p, key in pairs), start=out.p[0].new_zeros(()))
