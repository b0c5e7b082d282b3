"""--compile: encoders and views as fused kernels (torch.compile), with the same parameters under the same names."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kaizen.data.views import ViewTransform
from kaizen.learner import ContinualLearner


def compile_networks(learner: ContinualLearner) -> None:
    """Compile whatever images go through, each time it meets a new shape or mode.

    Encoders are compiled one by one, since each runs in modes and shapes of its own.
    """
    for owner in (learner.method, learner.method.momentum, learner.frozen):
        if owner is not None:
            owner.encoder.compile(dynamic=False)
    for module in nn.ModuleList([learner.views, learner.probe_view]).modules():
        if isinstance(module, ViewTransform):
            compile_view(module)


def compile_view(view: ViewTransform) -> None:
    """Compile a view in two parts: as one graph, crop and colours want different layouts, at a loss.

    Random numbers are torch's own, as without --compile: those that kernels draw are others, and slower on a CPU.
    """
    options: dict[str, Any] = {"fallback_random": True}
    view.crop = torch.compile(view.crop, dynamic=False, options=options)  # type: ignore[method-assign]
    if view.mean.device.type == "cpu":
        # The kernel of the colours goes through all steps image by image, so what two steps need stays in the cache: to
        # keep it is faster than to make it in both (4.0 for 4.7 ms). On a GPU it would go through memory.
        options = options | {"realize_reads_threshold": 2, "realize_opcount_threshold": 100}
    view.colour = torch.compile(view.colour, dynamic=False, options=options)  # type: ignore[method-assign]
