"""Backbones by name: torchvision's ResNets, with a stem for small images, and small ones for a CPU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from kaizen.models.convolution import widen

# Images up to this side get the 3x3 stem without max-pooling.
SMALL_IMAGE = 64


def _resnet(name: str, size: int, stem_padding: int, recompute: bool) -> tuple[nn.Module, int]:
    from kaizen.models.resnet import build_resnet  # here: torchvision is slow to import

    encoder, feature_dim = build_resnet(name, recompute)
    if size <= SMALL_IMAGE:
        encoder.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=stem_padding, bias=False)
        encoder.maxpool = nn.Identity()
    return encoder, feature_dim


def _resnet9(size: int, stem_padding: int, width: float) -> tuple[nn.Module, int]:
    """Lightly's resnet-9 with its linear layer taken off. Its 3x3 stem is made for small images as it is."""
    from lightly.models import ResNetGenerator

    net = ResNetGenerator(name="resnet-9", width=width)
    body: OrderedDict[str, nn.Module] = OrderedDict(conv1=net.conv1, bn1=net.bn1, relu=nn.ReLU(inplace=True))
    body.update({f"layer{i}": getattr(net, f"layer{i}") for i in range(1, 5)})
    body.update(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
    return nn.Sequential(body), net.linear.in_features


ENCODERS: dict[str, Callable[[int, int, float, bool], tuple[nn.Module, int]]] = {
    "resnet18": lambda size, padding, width, recompute: _resnet("resnet18", size, padding, recompute),
    "resnet50": lambda size, padding, width, recompute: _resnet("resnet50", size, padding, recompute),
    "resnet9": lambda size, padding, width, recompute: _resnet9(size, padding, width),
}


def build_encoder(
    name: str, size: int, stem_padding: int = 2, width: float = 1.0, recompute: bool = True
) -> tuple[nn.Module, int]:
    """Build a backbone.

    Args:
        name: a key of ENCODERS.
        size: side of the images in pixels; up to SMALL_IMAGE torchvision's ResNets get a 3x3 stem, stride 1,
            and no max-pooling.
        stem_padding: padding of that stem. The published one is 2, which makes the maps 2 pixels larger.
        width: multiplier of the channels (resnet9 only).
        recompute: train in less memory (all but resnet9, where it would cost more than it saves).

    Returns:
        The encoder, images (B, 3, size, size) -> features (B, feature_dim); and feature_dim.
    """
    encoder, feature_dim = ENCODERS[name](size, stem_padding, width, recompute)
    widen(encoder)
    return encoder, feature_dim
