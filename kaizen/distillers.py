"""Distillers: how the current model is held to what the frozen one says. One small module each.

A distiller takes one tensor per view of the current model and of the frozen one, and returns a scalar. Its
keyword-only parameters are command-line flags, with `feature_extractor_distill_` or `classifier_distill_` before them.
"""

from __future__ import annotations

import copy
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from kaizen.args import COUNT, NOT_NEGATIVE, POSITIVE, Alias, Flag, flags_of_signature
from kaizen.losses import contrastive_distillation, soft_label_cross_entropy
from kaizen.models.heads import mlp
from kaizen.precision import in_float32

Lamb = Annotated[float, "weight of the term; 0 switches it off", NOT_NEGATIVE]
Hidden = Annotated[int, "hidden width of the predictor", COUNT]
NoPredictor = Annotated[bool, "compare without a predictor between the two models", Alias("no_predictior")]


class Distiller(nn.Module):
    """Base of the distillers: a predictor on the current side, then `compare`.

    Args:
        dim: width of what is compared.
        lamb: weight of the term in the total.
        proj_hidden_dim: hidden width of the predictor, Linear - BatchNorm - ReLU - Linear.
        no_predictor: compare directly.
    """

    # Published: the predictor's rate is divided by a weight below 1, so that it learns at full speed.
    full_speed_predictor = False
    needs_prototypes = False  # is the constructor's second argument the method's prototypes

    def __init__(
        self, dim: int, *, lamb: Lamb = 1.0, proj_hidden_dim: Hidden = 2048, no_predictor: NoPredictor = False
    ) -> None:
        super().__init__()
        self.lamb = lamb
        self.predictor: nn.Module = nn.Identity() if no_predictor else mlp([dim, proj_hidden_dim, dim], batch_norm=True)

    def keep_teacher(self, prototypes: nn.Module | None) -> None:
        """Called when a task begins.

        Args:
            prototypes: the method's, as the task before left them: projections (B, dim) -> scores (B, K); or None.
        """

    def forward(self, current: list[Tensor], frozen: list[Tensor]) -> Tensor:
        """The term, to be weighted with `lamb`.

        Args:
            current: tensors (B, dim), one per view, of the model that learns.
            frozen: the same of the task before's; no gradient.

        Returns:
            A scalar.
        """
        return in_float32(self.compare)([self.predictor(z) for z in current], frozen)

    def compare(self, current: list[Tensor], frozen: list[Tensor]) -> Tensor:
        """Mean of `compare_view` over the views; float32 also under autocast, unlike the predictor."""
        losses = [self.compare_view(z, q) for z, q in zip(current, frozen, strict=True)]
        return torch.stack(losses).mean()

    def compare_view(self, z: Tensor, q: Tensor) -> Tensor:
        """What is compared in one view.

        Args:
            z: (B, dim), of the model that learns, behind the predictor.
            q: (B, dim), of the frozen model.

        Returns:
            A scalar.
        """
        raise NotImplementedError

    @property
    def lr_factor(self) -> float:
        """What the predictor's learning rate is multiplied with."""
        return 1 / self.lamb if self.full_speed_predictor and 0 < self.lamb < 1 else 1.0


class Contrastive(Distiller):
    """Symmetric InfoNCE over all views together (CaSSLe, for SimCLR and MoCo)."""

    def __init__(
        self,
        dim: int,
        *,
        lamb: Lamb = 1.0,
        proj_hidden_dim: Hidden = 2048,
        no_predictor: NoPredictor = False,
        temperature: Annotated[float, "temperature of the softmax", POSITIVE] = 0.2,
    ) -> None:
        super().__init__(dim, lamb=lamb, proj_hidden_dim=proj_hidden_dim, no_predictor=no_predictor)
        self.temperature = temperature

    def compare(self, current: list[Tensor], frozen: list[Tensor]) -> Tensor:
        """Mean of both directions."""
        z, q = torch.cat(current), torch.cat(frozen)
        return (contrastive_distillation(z, q, self.temperature) + contrastive_distillation(q, z, self.temperature)) / 2


class Predictive(Distiller):
    """2 - 2 cos(z, q) (CaSSLe, for BYOL)."""

    full_speed_predictor = True

    def compare_view(self, z: Tensor, q: Tensor) -> Tensor:
        """Mean over the batch."""
        from lightly.loss import NegativeCosineSimilarity  # here: reading flags needs no loss, see kaizen.methods

        return 2 + 2 * NegativeCosineSimilarity()(z, q)


class PredictiveMSE(Distiller):
    """Mean squared error (CaSSLe, for VICReg)."""

    def __init__(
        self,
        dim: int,
        *,
        lamb: Lamb = 25.0,
        proj_hidden_dim: Hidden = 2048,
        no_predictor: NoPredictor = False,
    ) -> None:
        super().__init__(dim, lamb=lamb, proj_hidden_dim=proj_hidden_dim, no_predictor=no_predictor)

    def compare_view(self, z: Tensor, q: Tensor) -> Tensor:
        """Mean over batch and dimensions."""
        return F.mse_loss(z, q)


class Decorrelative(Distiller):
    """The Barlow Twins loss between current and frozen projections (CaSSLe)."""

    def __init__(
        self,
        dim: int,
        *,
        lamb: Lamb = 1.0,
        proj_hidden_dim: Hidden = 2048,
        no_predictor: NoPredictor = False,
        barlow_lamb: Annotated[float, "weight of the off-diagonal part", NOT_NEGATIVE] = 5e-3,
        scale_loss: Annotated[float, "factor of the Barlow Twins loss", NOT_NEGATIVE] = 0.1,
    ) -> None:
        from lightly.loss import BarlowTwinsLoss

        super().__init__(dim, lamb=lamb, proj_hidden_dim=proj_hidden_dim, no_predictor=no_predictor)
        self.criterion, self.scale_loss = BarlowTwinsLoss(barlow_lamb), scale_loss

    def compare_view(self, z: Tensor, q: Tensor) -> Tensor:
        """Correlation of dimensions over the batch."""
        return self.scale_loss * self.criterion(z, q)


class Knowledge(Distiller):
    """Assignments to prototypes: those of the frozen model are the soft labels of new ones (CaSSLe, for SwAV).

    Args:
        dim: width of the projections.
        prototypes: normalised projections (B, dim) -> scores (B, K); frozen here, with the task before's weights.
    """

    needs_prototypes = True

    def __init__(
        self,
        dim: int,
        prototypes: nn.Module,
        *,
        lamb: Lamb = 1.0,
        proj_hidden_dim: Hidden = 2048,
        no_predictor: NoPredictor = False,
        temperature: Annotated[float, "temperature of the softmax", POSITIVE] = 0.1,
    ) -> None:
        super().__init__(dim, lamb=lamb, proj_hidden_dim=proj_hidden_dim, no_predictor=no_predictor)
        self.temperature = temperature
        self.frozen_prototypes = copy.deepcopy(prototypes).requires_grad_(False)
        count = self.frozen_prototypes(torch.zeros(1, dim)).shape[1]
        self.prototypes = weight_norm(nn.Linear(dim, count, bias=False))

    def keep_teacher(self, prototypes: nn.Module | None) -> None:
        """Take over the weights of the task before."""
        assert prototypes is not None
        self.frozen_prototypes.load_state_dict(prototypes.state_dict())

    def compare_view(self, z: Tensor, q: Tensor) -> Tensor:
        """Mean over the batch."""
        with torch.no_grad():
            target = self.frozen_prototypes(F.normalize(q, dim=1)) / self.temperature
        return soft_label_cross_entropy(self.prototypes(F.normalize(z, dim=1)) / self.temperature, target)


class SoftLabel(Distiller):
    """Cross-entropy against the frozen model's softmax (Kaizen's classifier distillation)."""

    full_speed_predictor = True

    def compare_view(self, z: Tensor, q: Tensor) -> Tensor:
        """Mean over the batch."""
        return soft_label_cross_entropy(z, q)


CLASSIFIER_DISTILLERS: dict[str, type[Distiller]] = {
    "contrastive": Contrastive,
    "decorrelative": Decorrelative,
    "predictive": Predictive,
    "predictive_mse": PredictiveMSE,
    "soft_label": SoftLabel,
}
FEATURE_DISTILLERS: dict[str, type[Distiller]] = {**CLASSIFIER_DISTILLERS, "knowledge": Knowledge}
SPELLINGS = {"predictiveMSE": "predictive_mse"}  # in one published script
# What stands before a distiller's parameters on the command line; CaSSLe's own spelling is understood too.
FEATURES = ("feature_extractor_distill_", "distill_")
CLASSIFIER = ("classifier_distill_",)


def distiller_flags(kind: type[Distiller], prefixes: tuple[str, ...]) -> list[Flag]:
    """The flags that one distiller takes, with its own defaults."""
    return flags_of_signature(kind.__init__, "distillation", prefixes)


def build_distiller(
    kind: type[Distiller],
    prefixes: tuple[str, ...],
    dim: int,
    flags: dict[str, Any],
    prototypes: nn.Module | None = None,
) -> Distiller:
    """Make a distiller.

    Args:
        kind: of the tables above.
        prefixes: FEATURES or CLASSIFIER.
        dim: width of what is compared.
        flags: those that carry the prefix are the distiller's; what it does not know is left aside.
        prototypes: of the method, for the distiller that needs them.
    """
    own = {item.name: item.name.removeprefix(prefixes[0]) for item in distiller_flags(kind, prefixes)}
    needed = [prototypes] if kind.needs_prototypes else []
    return kind(dim, *needed, **{own[name]: value for name, value in flags.items() if name in own})
