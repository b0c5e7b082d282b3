"""SimSiam."""

from __future__ import annotations

from torch import Tensor, nn

from kaizen.methods.base import Output, OutputDim, PredHidden, ProjHidden, SSLMethod
from kaizen.models.heads import mlp


class SimSiam(SSLMethod):
    """A predictor finds the other view's projection, which gets no gradient (Chen & He, 2021, arXiv 2011.10566)."""

    # The predictor keeps its rate while the others follow the schedule (section 4.2 of the paper).
    static_lr = ("predictor",)

    def __init__(
        self,
        encoder: nn.Module,
        feature_dim: int,
        *,
        proj_hidden_dim: ProjHidden = 2048,
        output_dim: OutputDim = 128,
        pred_hidden_dim: PredHidden = 512,
    ) -> None:
        from lightly.loss import NegativeCosineSimilarity

        super().__init__(encoder, feature_dim)
        self.output_dim = output_dim
        hidden = mlp([feature_dim, proj_hidden_dim, proj_hidden_dim, output_dim], batch_norm=True)
        self.projector = nn.Sequential(*hidden, nn.BatchNorm1d(output_dim, affine=False))
        self.predictor = mlp([output_dim, pred_hidden_dim, output_dim], batch_norm=True)
        self.similarity = NegativeCosineSimilarity()

    def forward(self, views: list[Tensor]) -> Output:
        """Projections and predictions."""
        out = super().forward(views)
        out.p = [self.predictor(z) for z in out.z]
        return out

    def loss(self, out: Output, targets: Tensor) -> Tensor:
        """Mean of -cos(prediction, projection of the other view) over both directions, eq. 2."""
        (p1, p2), (z1, z2) = out.p, out.z
        return (self.similarity(p1, z2.detach()) + self.similarity(p2, z1.detach())) / 2
