"""SwAV."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from kaizen.args import COUNT, NOT_NEGATIVE, POSITIVE
from kaizen.methods.base import Output, OutputDim, ProjHidden, Prototypes, SSLMethod, Temperature, enqueue
from kaizen.models.heads import mlp


class SwAV(SSLMethod):
    """Each crop predicts to which prototypes the other, full crops are assigned (Caron et al., 2020, arXiv 2006.09882).

    Assignments share the images out equally among the prototypes (Sinkhorn-Knopp); a queue of earlier projections
    joins in, one for each of the first two crops.
    """

    takes_multicrop = True
    has_prototypes = True
    queue: Tensor
    queue_ptr: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        feature_dim: int,
        *,
        proj_hidden_dim: ProjHidden = 2048,
        output_dim: OutputDim = 128,
        num_prototypes: Prototypes = 3000,
        temperature: Temperature = 0.1,
        sk_epsilon: Annotated[float, "softness of the assignments", POSITIVE] = 0.05,
        sk_iters: Annotated[int, "iterations of Sinkhorn-Knopp", COUNT] = 3,
        queue_size: Annotated[int, "projections that are remembered; 0 for none", NOT_NEGATIVE] = 3840,
        epoch_queue_starts: Annotated[int, "epoch of a task from which the queue is used", NOT_NEGATIVE] = 15,
        freeze_prototypes_epochs: Annotated[int, "first epochs of a task without new prototypes", NOT_NEGATIVE] = 1,
    ) -> None:
        from lightly.loss import SwaVLoss

        super().__init__(encoder, feature_dim)
        self.output_dim = output_dim
        self.epoch_queue_starts, self.freeze_prototypes_epochs = epoch_queue_starts, freeze_prototypes_epochs
        self.projector = mlp([feature_dim, proj_hidden_dim, output_dim], batch_norm=True)
        self.prototypes = weight_norm(nn.Linear(output_dim, num_prototypes, bias=False))
        self.criterion = SwaVLoss(temperature, sk_iters, sk_epsilon)
        self.register_buffer("queue", torch.zeros(2, queue_size, output_dim))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        self.filled = 0  # rows of the queue that have been written to

    def forward(self, views: list[Tensor]) -> Output:
        """Projections, as distillation is given them, and the prototypes' scores of the normalised ones."""
        out = super().forward(views)
        out.p = [self.prototypes(F.normalize(z, dim=1)) for z in out.z]
        return out

    def loss(self, out: Output, targets: Tensor) -> Tensor:
        """Eq. 6 of the paper, full crops giving the assignments."""
        remembered = [self.remembered(i % 2) for i in range(out.full)] if self.uses_queue else None
        return self.criterion(out.p[: out.full], out.p[out.full :], remembered).squeeze()

    @property
    def uses_queue(self) -> bool:
        """Does the queue take part in the assignments of this epoch."""
        return self.queue.shape[1] > 0 and self.epoch >= self.epoch_queue_starts

    def start_epoch(self, epoch: int) -> None:
        """Look how far the queue is filled; in between the host counts along, as looking would make it wait."""
        super().start_epoch(epoch)
        self._count()

    def resume_epoch(self, epoch: int) -> None:
        """Look at what the queue holds by then."""
        super().resume_epoch(epoch)
        self._count()

    def _count(self) -> None:
        self.filled = int(self.queue[0].any(dim=1).sum())

    @torch.no_grad()
    def remembered(self, view: int) -> Tensor:
        """Scores of the projections in a view's queue. Rows not yet written to, the last ones, stay out."""
        return self.prototypes(self.queue[view, : self.filled])

    @property
    def teaching_prototypes(self) -> nn.Module:
        """The prototypes."""
        return self.prototypes

    def after_backward(self) -> None:
        """Leave the prototypes as they are in the first epochs."""
        if self.epoch < self.freeze_prototypes_epochs:
            self.prototypes.zero_grad()

    def after_batch(self, out: Output) -> None:
        """Remember the normalised projections of the first two crops."""
        if self.queue.shape[1] > 0:
            by_key = rearrange(self.queue, "view key dim -> key view dim")  # a view: writing to it writes to the queue
            enqueue(by_key, self.queue_ptr, F.normalize(torch.stack(out.z[:2], dim=1), dim=2))
            self.filled = min(len(by_key), self.filled + len(out.z[0]))
