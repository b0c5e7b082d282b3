"""torchvision's ResNets, that need less memory to train."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet as torchvision_resnet

from kaizen.models.recompute import recomputed

# Block and number of blocks in each stage.
DEPTHS: dict[str, tuple[Any, list[int]]] = {
    "resnet18": (torchvision_resnet.BasicBlock, [2, 2, 2, 2]),
    "resnet50": (torchvision_resnet.Bottleneck, [3, 4, 6, 3]),
}


class ResNet(torchvision_resnet.ResNet):
    """The same network, trained in less memory where `recompute` is set.

    Then all maps but those of the convolutions are made again in the backward pass.
    """

    recompute: bool

    def _forward_impl(self, images: Tensor) -> Tensor:
        if not (self.recompute and self.training and torch.is_grad_enabled()) or torch.compiler.is_compiling():
            return super()._forward_impl(images)  # a compiler chooses for itself what to make again
        maps = recomputed(self._first_stage, [self.bn1, self.layer1], images)
        for stage in (self.layer2, self.layer3, self.layer4):
            maps = recomputed(stage, [stage], maps)
        return self.fc(self.avgpool(maps).flatten(1))

    def _first_stage(self, images: Tensor) -> Tensor:
        return self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))


def build_resnet(name: str, recompute: bool) -> tuple[ResNet, int]:
    """Build torchvision's network of this name without its last layer.

    Returns:
        The network, images (B, 3, H, W) -> features (B, feature_dim); and feature_dim.
    """
    net = ResNet(*DEPTHS[name])
    net.recompute = recompute
    feature_dim = net.fc.in_features
    net.fc = nn.Identity()
    return net, feature_dim
