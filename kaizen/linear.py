"""Linear evaluation (CaSSLe, CVPR 2022): one linear layer, trained on the features of a frozen encoder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kaizen.args import Args, UsageError
from kaizen.data.loaders import ShuffledBatches
from kaizen.features import Features
from kaizen.models.heads import mlp
from kaizen.optim import build_optimizer, build_scheduler, parameter_group
from kaizen.progress import watched

# The rates of CaSSLe's linear evaluations; those of other methods are the default of its flag.
PUBLISHED_LR = {
    "barlow_twins": 0.1,
    "byol": 3.0,
    "mocov2plus": 3.0,
    "simclr": 1.0,
    "simsiam": 30.0,
    "swav": 0.15,
    "vicreg": 0.3,
}
OTHER_LR = 0.3


def with_published_defaults(args: Args, method: str) -> Args:
    """Flags of the linear classifier: those given, and CaSSLe's values for the others.

    SGD with momentum 0.9, no weight decay, batches of 256, 100 epochs, the rate of the method divided by ten after
    60 % and 80 % of them.

    Args:
        args: as given.
        method: that trained the encoder; its name says which rate was published.
    """
    epochs = args.max_epochs if "max_epochs" in args.given else 100
    published: dict[str, Any] = {
        "optimizer": "sgd",
        "scheduler": "step",
        "lr": PUBLISHED_LR.get(method, OTHER_LR),
        "lr_decay_steps": sorted({max(1, epochs * 6 // 10), max(1, epochs * 8 // 10)}),
        "weight_decay": 0.0,
        "batch_size": 256,
        "max_epochs": epochs,
    }
    return replace(args, **{name: value for name, value in published.items() if name not in args.given})


def train_linear(train: Features, num_classes: int, args: Args, title: str) -> nn.Module:
    """Train a linear layer, or the --classifier_layers that are asked for, on features.

    The published evaluation crops and mirrors its training images anew in each epoch, and so runs the encoder as
    often. Here each image goes through the encoder once, in its central view, and the layer trains on these features.

    Args:
        train: labelled images.
        num_classes: over all tasks.
        args: optimiser, schedule and epochs; the rate is not scaled. The seed fixes weights and batches.
        title: for the progress line.

    Returns:
        Features (B, D) -> logits (B, num_classes), on the device of the features.

    Raises:
        UsageError: the loss left the numbers.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        head = mlp([train.feats.shape[1], *args.classifier_layers, num_classes])
    head.to(train.feats)
    optimizer = build_optimizer(args, parameter_group("linear", head.parameters(), args.lr, args.weight_decay))
    scheduler = build_scheduler(args, optimizer)
    batches = ShuffledBatches(len(train.feats), args.batch_size, args.seed)
    for epoch in watched(range(args.max_epochs), title, args.max_epochs):
        batches.set_epoch(epoch)
        losses = []
        for chosen in batches:
            loss = F.cross_entropy(head(train.feats[chosen]), train.targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        _step(scheduler, torch.stack(losses).mean(), args)
    return head


def _step(scheduler: object, loss: Tensor, args: Args) -> None:
    if not loss.isfinite():
        raise UsageError(f"--lr {args.lr:g}: the loss of the linear classifier is {float(loss)}; give a smaller rate")
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        scheduler.step(float(loss))
    elif isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler):
        scheduler.step()
