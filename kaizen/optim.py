"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, lr_scheduler

from kaizen.args import Args, UsageError

Groups = list[dict[str, Any]]


class LARS(SGD):
    """SGD with layer-wise adaptive rates (You et al., 2017, arXiv 1708.03888).

    For each layer the gradient becomes rate * (g + wd * w), rate = eta * |w| / (|g| + wd * |w|). lightly's LARS has
    other maths with clipping, and switches itself off at weight decay 0.

    Args:
        groups: parameters, with lr and weight_decay.
        lr, momentum, weight_decay: of SGD.
        eta: trust coefficient.
        clip: never raise a layer's rate above its lr (rate = min(rate / lr, 1)).
        exclude_bias_n_norm: leave one-dimensional parameters to plain SGD without weight decay.
        fused: take SGD's step in one kernel.
    """

    def __init__(
        self,
        groups: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 1e-3,
        clip: bool = False,
        exclude_bias_n_norm: bool = False,
        fused: bool = False,
    ) -> None:
        super().__init__(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=fused)
        self.eta, self.clip, self.exclude_bias_n_norm = eta, clip, exclude_bias_n_norm

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """The closure computes the gradients, so it runs before they are adapted."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        decays = [group["weight_decay"] for group in self.param_groups]
        try:
            for group in self.param_groups:
                self._adapt(group)
                group["weight_decay"] = 0.0  # it is in the adapted gradients already
            super().step()
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay
        return loss

    @torch.no_grad()
    def _adapt(self, group: dict[str, Any]) -> None:
        adapted = [p for p in group["params"] if p.grad is not None and not (self.exclude_bias_n_norm and p.ndim == 1)]
        if not adapted:
            return
        grads: list[Tensor] = [p.grad for p in adapted]
        decay = group["weight_decay"]
        weight_norm = torch.stack(torch._foreach_norm(adapted))
        grad_norm = torch.stack(torch._foreach_norm(grads))
        rate = self.eta * weight_norm / (grad_norm + decay * weight_norm + 1e-8)
        if self.clip:
            rate = (rate / group["lr"]).clamp(max=1)
        # A layer of zeros, or without gradient, keeps its plain gradient.
        alive = (weight_norm != 0) & (grad_norm != 0)
        torch._foreach_add_(grads, torch._foreach_mul(adapted, list((alive * decay).unbind())))
        torch._foreach_mul_(grads, list(torch.where(alive, rate, 1.0).unbind()))


class WarmupCosine(lr_scheduler.LRScheduler):
    """Per epoch: linear from `start_lr` to the group's rate, then a cosine down to `min_lr`.

    Every group warms up from the same absolute rate, which torch's LinearLR (one factor for all) cannot do.
    A group marked `static_lr` keeps its rate from the second epoch on.
    """

    def __init__(self, optimizer: Optimizer, warmup: int, epochs: int, start_lr: float, min_lr: float) -> None:
        self.warmup, self.epochs, self.start_lr, self.min_lr = warmup, epochs, start_lr, min_lr
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The rates of the current epoch, in closed form."""
        static = [bool(group.get("static_lr")) for group in self.optimizer.param_groups]
        return [self._rate(float(base), fixed) for base, fixed in zip(self.base_lrs, static, strict=True)]

    def _rate(self, base: float, fixed: bool) -> float:
        epoch = self.last_epoch
        if epoch == 0 and self.warmup > 0:
            return self.start_lr
        if fixed:
            return base
        if epoch < self.warmup:
            return self.start_lr + (base - self.start_lr) * epoch / (self.warmup - 1)
        progress = (epoch - self.warmup) / max(1, self.epochs - self.warmup)
        return self.min_lr + (base - self.min_lr) * (1 + math.cos(math.pi * progress)) / 2


def scaled_lr(args: Args) -> float:
    """The rate of all but classifiers: lr x batch_size x devices / 256 (Goyal et al., 2017, arXiv 1706.02677)."""
    return args.lr * args.whole(args.batch_size) / 256


def parameter_group(
    name: str, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, static_lr: bool = False
) -> Groups:
    """One named group of those parameters that are trained, or none where nothing is.

    Args:
        name: of the group, in the logs.
        parameters: of a module.
        lr, weight_decay: of the group.
        static_lr: warmup_cosine leaves the rate alone.
    """
    params = [p for p in parameters if p.requires_grad]
    group = {"name": name, "params": params, "lr": lr, "weight_decay": weight_decay, "static_lr": static_lr}
    return [group] if params else []


def build_optimizer(args: Args, groups: Groups) -> Optimizer:
    """The optimiser that --optimizer and --lars name; the groups bring their own rates and weight decays."""
    if args.optimizer == "adam":
        return Adam(groups)
    if args.optimizer == "adamw":
        return AdamW(groups)
    # With fp16 a fused step unscales gradients by itself, when LARS and the methods have already seen them scaled.
    fused = args.precision != "16"
    if args.lars:
        return LARS(
            groups,
            args.lr,
            eta=args.eta_lars,
            clip=args.grad_clip_lars,
            exclude_bias_n_norm=args.exclude_bias_n_norm,
            fused=fused,
        )
    return SGD(groups, args.lr, momentum=0.9, fused=fused)


def check_optimisation(args: Args) -> None:
    """Raises UsageError where flags of optimiser and schedule do not go together."""
    if args.lars and args.optimizer != "sgd":
        raise UsageError(f"--lars with --optimizer {args.optimizer}: LARS adapts SGD; use --optimizer sgd")
    if args.scheduler == "step" and not args.lr_decay_steps:
        raise UsageError("--scheduler step: give the epochs at which the rate drops, e.g. --lr_decay_steps 60 80")
    if args.scheduler == "reduce" and (args.lr_gamma or 0) >= 1:
        raise UsageError(f"--lr_gamma {args.lr_gamma:g}: --scheduler reduce makes the rate smaller; use less than 1")


def build_scheduler(args: Args, optimizer: Optimizer) -> Any:
    """The schedule that --scheduler names, stepped once an epoch; None for "none"."""
    if args.scheduler == "step":
        return lr_scheduler.MultiStepLR(optimizer, args.lr_decay_steps, gamma=args.lr_gamma or 0.1)
    if args.scheduler == "exponential":
        return lr_scheduler.ExponentialLR(optimizer, gamma=args.lr_gamma or 0.95)
    if args.scheduler == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, args.max_epochs, eta_min=args.min_lr)
    if args.scheduler == "warmup_cosine":
        return WarmupCosine(optimizer, args.warmup_epochs, args.max_epochs, args.warmup_start_lr, args.min_lr)
    if args.scheduler == "reduce":
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=args.lr_gamma or 0.1)
    return None
