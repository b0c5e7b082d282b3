"""DINO."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.parametrizations import weight_norm

from kaizen.args import NOT_NEGATIVE, POSITIVE
from kaizen.methods.base import BaseTau, FinalTau, Output, OutputDim, ProjHidden, Prototypes, SSLMethod, full_crops
from kaizen.models.heads import UnitLength, mlp
from kaizen.models.momentum import MomentumNetwork

Sharpness = Annotated[float, "temperature of a softmax over the prototypes", POSITIVE]


class DINO(SSLMethod):
    """Each crop predicts the momentum network's distribution over prototypes (Caron et al., 2021, arXiv 2104.14294).

    Centring and a low temperature of the momentum network's scores keep both networks from collapse.
    """

    takes_multicrop = True
    has_prototypes = True
    has_momentum = True
    momentum: MomentumNetwork

    def __init__(
        self,
        encoder: nn.Module,
        feature_dim: int,
        *,
        proj_hidden_dim: ProjHidden = 2048,
        output_dim: OutputDim = 256,
        num_prototypes: Prototypes = 4096,
        norm_last_layer: Annotated[bool, "prototypes of unit length"] = True,
        clip_grad: Annotated[float, "largest gradient norm of an encoder parameter; 0 for any", NOT_NEGATIVE] = 0.0,
        freeze_last_layer: Annotated[int, "first epochs of a task without new prototypes", NOT_NEGATIVE] = 1,
        student_temperature: Sharpness = 0.1,
        teacher_temperature: Sharpness = 0.07,
        warmup_teacher_temperature: Sharpness = 0.04,
        warmup_teacher_temperature_epochs: Annotated[int, "epochs of a task until then", NOT_NEGATIVE] = 50,
        base_tau_momentum: BaseTau = 0.99,
        final_tau_momentum: FinalTau = 1.0,
    ) -> None:
        from lightly.loss import DINOLoss

        super().__init__(encoder, feature_dim)
        self.output_dim, self.clip_grad, self.freeze_last_layer = output_dim, clip_grad, freeze_last_layer
        widths = [feature_dim, proj_hidden_dim, proj_hidden_dim, output_dim]
        self.projector = mlp(widths, batch_norm=True, activation=nn.GELU)
        self.projector.apply(_small_weights)
        self.prototypes = weight_norm(nn.Linear(output_dim, num_prototypes, bias=False))
        length = self.prototypes.parametrizations.weight.original0
        nn.init.ones_(length).requires_grad_(not norm_last_layer)
        self.momentum = MomentumNetwork(encoder, self.head(), base_tau_momentum, final_tau_momentum)
        temperatures = warmup_teacher_temperature, teacher_temperature, warmup_teacher_temperature_epochs
        self.criterion = DINOLoss(num_prototypes, *temperatures, student_temperature)

    def head(self) -> nn.Module:
        """Features -> scores of the prototypes: what the momentum network follows beside the encoder."""
        return nn.Sequential(self.projector, UnitLength(), self.prototypes)

    def forward(self, views: list[Tensor]) -> Output:
        """Projections, as distillation is given them; scores of the prototypes, and the momentum network's."""
        keys = [self.momentum(view) for view in views[: full_crops(views)]]
        out = super().forward(views)
        out.p, out.keys = [self.prototypes(F.normalize(z, dim=1)) for z in out.z], keys
        return out

    def loss(self, out: Output, targets: Tensor) -> Tensor:
        """Cross-entropy over all pairs of different crops, eq. 3 of the paper; moves the centre."""
        return self.criterion(out.keys, out.p, epoch=self.epoch)

    @property
    def teaching_prototypes(self) -> nn.Module:
        """The prototypes."""
        return self.prototypes

    def after_backward(self) -> None:
        """Clip the encoder's gradients one by one; leave the prototypes as they are in the first epochs."""
        if self.clip_grad > 0:
            for parameter in self.encoder.parameters():
                clip_grad_norm_(parameter, self.clip_grad)
        if self.epoch < self.freeze_last_layer:
            self.prototypes.zero_grad()

    def update_momentum(self, tau: float) -> None:
        """The prototypes move along."""
        self.momentum.update(self.encoder, self.head(), tau)


def _small_weights(layer: nn.Module) -> None:
    """The published start of the projector."""
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
