"""DeepCluster-v2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kaizen.args import COUNT
from kaizen.losses import assignment_cross_entropy
from kaizen.methods.base import Output, OutputDim, ProjHidden, SSLMethod, Temperature
from kaizen.models.heads import mlp
from kaizen.models.kmeans import spherical_kmeans

DEFAULT_PROTOTYPES = [3000, 3000, 3000]


class DeepClusterV2(SSLMethod):
    """Each crop predicts its image's clusters (Caron et al., 2018 and 2020, arXiv 2006.09882, appendix).

    At the start of each epoch k-means clusters what was remembered of the epoch before, once for each set of
    prototypes; its centroids become the prototypes. They go on into the next task, the memory does not.
    """

    takes_multicrop = True
    has_prototypes = True
    memory: Tensor
    assignments: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        feature_dim: int,
        *,
        proj_hidden_dim: ProjHidden = 2048,
        output_dim: OutputDim = 128,
        num_prototypes: Annotated[list[int], "number of prototypes, of each set", COUNT] = DEFAULT_PROTOTYPES,
        temperature: Temperature = 0.1,
        kmeans_iters: Annotated[int, "iterations of k-means", COUNT] = 10,
    ) -> None:
        super().__init__(encoder, feature_dim)
        self.output_dim, self.temperature, self.kmeans_iters = output_dim, temperature, kmeans_iters
        self.projector = mlp([feature_dim, proj_hidden_dim, output_dim], batch_norm=True)
        self.prototypes = nn.ModuleList(nn.Linear(output_dim, number, bias=False) for number in num_prototypes)
        for weight in self.prototypes.requires_grad_(False).parameters():
            weight.copy_(F.normalize(weight, dim=1))
        # Both by index into the image set: projections (crops, images, output_dim), zeros for images not yet seen,
        # and clusters (sets, images), -1 for those.
        self.register_buffer("memory", torch.zeros(0, 0, output_dim), persistent=False)
        self.register_buffer("assignments", torch.zeros(len(num_prototypes), 0, dtype=torch.long), persistent=False)

    def forward(self, views: list[Tensor]) -> Output:
        """Normalised projections, also for distillation."""
        out = super().forward(views)
        out.z = [F.normalize(z, dim=1) for z in out.z]
        return out

    def loss(self, out: Output, targets: Tensor) -> Tensor:
        """Cross-entropy of all crops' scores against the image's clusters, mean over the sets of prototypes."""
        scores = [torch.stack([prototypes(z) for z in out.z]) for prototypes in self.prototypes]
        return assignment_cross_entropy(scores, self.assignments[:, out.indices], self.temperature)

    @property
    def teaching_prototypes(self) -> nn.Module:
        """The first set of prototypes."""
        return self.prototypes[0]

    @torch.no_grad()
    def start_task(self, batches: Iterator[tuple[list[Tensor], Tensor]], num_images: int) -> None:
        """Forget the last task's images and remember this one's, so that the first epoch has something to cluster."""
        self.assignments = self.assignments.new_full((len(self.prototypes), num_images), -1)
        self.memory = self.memory[:0, :0]
        for views, indices in batches:
            out = self([view for view in views if view.shape == views[0].shape]).shared(self.share)
            out.indices = self.share.whole(indices)
            if len(self.memory) == 0:
                self.memory = self.memory.new_zeros(out.full, num_images, self.output_dim)
            self.after_batch(out)

    @torch.no_grad()
    def start_epoch(self, epoch: int) -> None:
        """Cluster the remembered projections; the sets of prototypes take the crops in turn."""
        super().start_epoch(epoch)
        seen = self.memory.any(dim=2).all(dim=0).nonzero().squeeze(1)
        if len(seen) > 0:
            for i, prototypes in enumerate(self.prototypes.parameters()):
                points = self.memory[i % len(self.memory), seen]
                centroids, nearest = spherical_kmeans(points, prototypes, self.kmeans_iters)
                prototypes.copy_(centroids)
                self.assignments[i, seen] = nearest

    @torch.no_grad()
    def after_batch(self, out: Output) -> None:
        """Remember the projections of the full crops."""
        self.memory[:, out.indices] = torch.stack(out.z[: out.full])
