"""SimCLR."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from kaizen.losses import crop_contrastive, supervised_contrastive
from kaizen.methods.base import Output, OutputDim, ProjHidden, SSLMethod, Temperature
from kaizen.models.heads import mlp


class SimCLR(SSLMethod):
    """Both views of an image attract, all other images of the batch repel (Chen et al., 2020, arXiv 2002.05709).

    With more than two crops, each pair of crops of one image attracts as if it were alone.
    """

    takes_multicrop = True

    def __init__(
        self,
        encoder: nn.Module,
        feature_dim: int,
        *,
        proj_hidden_dim: ProjHidden = 2048,
        output_dim: OutputDim = 128,
        temperature: Temperature = 0.1,
        supervised: Annotated[bool, "images of one class attract as well (SupCon)"] = False,
    ) -> None:
        super().__init__(encoder, feature_dim)
        self.output_dim = output_dim
        self.projector = mlp([feature_dim, proj_hidden_dim, output_dim])
        self.temperature, self.supervised = temperature, supervised

    def loss(self, out: Output, targets: Tensor) -> Tensor:
        """NT-Xent, eq. 1 of the paper; supervised: SupCon (Khosla et al., 2020), where -1 is a class of nobody else."""
        crops = len(out.z)
        labels = targets if self.supervised else targets.new_full((len(out.z[0]),), -1)
        z, positives = torch.cat(out.z), same_image_or_class(labels, crops)
        if crops == 2:
            return supervised_contrastive(z, positives, self.temperature)
        return crop_contrastive(z, positives, ~positives, self.temperature)


def same_image_or_class(targets: Tensor, views: int) -> Tensor:
    """Labels (B,) -> (views x B, views x B) bool: the same image, or both labelled and of one class."""
    image = torch.arange(len(targets), device=targets.device).repeat(views)
    label = targets.repeat(views)
    same_class = (label[:, None] == label) & (label != -1)
    return (image[:, None] == image) | same_class
