"""--compile: encoders and views as fused kernels (torch.compile), with the same parameters under the same names."""

from __future__ import annotations

import torch
from torch import nn

from kaizen.data.views import ViewTransform
from kaizen.learner import ContinualLearner


def compile_networks(learner: ContinualLearner) -> None:
    """Compile whatever images go through, each time it meets a new shape or mode.

    Encoders are compiled one by one, since each runs in modes and shapes of its own. A view is compiled in two parts:
    as one graph, crop and colours want different layouts in memory, which costs more than it saves.
    """
    for owner in (learner.method, learner.method.momentum, learner.frozen):
        if owner is not None:
            owner.encoder.compile(dynamic=False)
    for module in nn.ModuleList([learner.views, learner.probe_view]).modules():
        if isinstance(module, ViewTransform):
            module.crop = torch.compile(module.crop, dynamic=False)  # type: ignore[method-assign]
            module.colour = torch.compile(module.colour, dynamic=False)  # type: ignore[method-assign]
