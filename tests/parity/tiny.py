"""The small networks and ready-made views that the recorded training steps were taken with."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from torch import Tensor, nn

from kaizen.args import Args
from kaizen.building import build_learner
from kaizen.data.datasets import dataset_info
from kaizen.learner import ContinualLearner
from kaizen.models.encoders import ENCODERS


def tiny_encoder(size: int, stem_padding: int, width: float, recompute: bool = True) -> tuple[nn.Module, int]:
    """Two convolutions; images (B, 3, H, W) -> features (B, 16)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        bn1=nn.BatchNorm2d(8),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
        bn2=nn.BatchNorm2d(16),
        relu2=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
    )
    return nn.Sequential(layers), 16


class ReadyViews(nn.Module):
    """Images that are views already: one (B, 3, H, W) for each view."""

    def forward(self, images: list[Tensor]) -> list[Tensor]:
        return images


def tiny_learner(args: Args, task_idx: int) -> ContinualLearner:
    """What the flags make, with the tiny encoder, and without any change to the images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, args.encoder, tiny_encoder)
        num_classes = dataset_info(args.dataset).num_classes
        assert num_classes is not None
        learner = build_learner(args, num_classes, task_idx)
    learner.views, learner.probe_view = ReadyViews(), nn.Identity()
    return learner
