"""The self-supervised methods by name. A new one is its own file and a line here.

Flags are read from all of them, and one is built: so each imports its loss where it is built. That spares the
reading of flags lightly and, through it, torchvision: over two seconds.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from kaizen.args import Flag, UsageError, flags_of_signature, nearest
from kaizen.methods.barlow_twins import BarlowTwins
from kaizen.methods.base import Output, SSLMethod, full_crops
from kaizen.methods.byol import BYOL
from kaizen.methods.deepclusterv2 import DeepClusterV2
from kaizen.methods.dino import DINO
from kaizen.methods.mocov2plus import MoCoV2Plus
from kaizen.methods.nnclr import NNCLR
from kaizen.methods.ressl import ReSSL
from kaizen.methods.simclr import SimCLR
from kaizen.methods.simsiam import SimSiam
from kaizen.methods.swav import SwAV
from kaizen.methods.vicreg import VICReg
from kaizen.methods.wmse import WMSE

__all__ = ["METHODS", "Output", "SSLMethod", "build_method", "full_crops", "method_flags", "method_named"]

METHODS: dict[str, type[SSLMethod]] = {
    "barlow_twins": BarlowTwins,
    "byol": BYOL,
    "deepclusterv2": DeepClusterV2,
    "dino": DINO,
    "mocov2plus": MoCoV2Plus,
    "nnclr": NNCLR,
    "ressl": ReSSL,
    "simclr": SimCLR,
    "simsiam": SimSiam,
    "swav": SwAV,
    "vicreg": VICReg,
    "wmse": WMSE,
}


def method_named(name: str) -> type[SSLMethod]:
    """The class of a method.

    Raises:
        UsageError: the name is not in METHODS.
    """
    if name not in METHODS:
        raise UsageError(f"--method {name or '(not given)'}: choose from {', '.join(METHODS)}{nearest(name, METHODS)}")
    return METHODS[name]


def method_flags(name: str) -> list[Flag]:
    """The flags that one method takes, with its own defaults."""
    return flags_of_signature(METHODS[name].__init__, "self-supervised method")


def build_method(name: str, encoder: nn.Module, feature_dim: int, flags: dict[str, Any]) -> SSLMethod:
    """Make a method.

    Args:
        name: a key of METHODS.
        encoder: images (B, 3, H, W) -> features (B, feature_dim).
        feature_dim: width of the features.
        flags: by name; what the method does not know is left aside.
    """
    known = {item.name for item in method_flags(name)}
    return METHODS[name](encoder, feature_dim, **{key: value for key, value in flags.items() if key in known})
