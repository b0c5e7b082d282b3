"""The ResNet-18 for images of 32x32."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from kaizen.models.encoders import build_encoder

from .golden import FOLDER, arrays, assert_close, gradients_of, require

FILE = "resnet18_cifar.npz"
VALUES, BATCH = arrays(FILE), arrays("step_batch.npz")


def draw_weights(encoder: nn.Module) -> None:
    """The recorded draw: name after name in alphabetical order, from one numpy generator."""
    generator = np.random.RandomState(1234)
    for name, value in sorted(encoder.state_dict().items()):
        if not value.is_floating_point():
            continue
        drawn = torch.from_numpy(generator.standard_normal(tuple(value.shape)))
        value.copy_(scaled(name, drawn))


def scaled(name: str, drawn: Tensor) -> Tensor:
    if name.endswith("weight") and drawn.ndim == 4:
        return drawn * math.sqrt(2 / drawn[0].numel())
    if name.endswith("weight"):
        return 1 + 0.1 * drawn
    if name.endswith("running_var"):
        return 1 + 0.1 * drawn.abs()
    return 0.1 * drawn


def test_resnet18() -> None:
    require(FILE, "step_batch.npz")
    encoder, feature_dim = build_encoder("resnet18", 32)
    draw_weights(encoder)
    images = BATCH["x1"][: len(VALUES["feats_eval"])].float()

    with torch.no_grad():
        assert_close(encoder.eval()(images), VALUES["feats_eval"], "features in evaluation mode")
    feats = encoder.train()(images)
    assert feats.shape[1] == feature_dim
    assert_close(feats, VALUES["feats_train"], "features in training mode")

    feats.square().mean().backward()
    with np.load(FOLDER / FILE) as content:
        names = content["param_names"].tolist()
    gradients = gradients_of(dict(encoder.named_parameters()))
    assert names == list(gradients)
    norms = [recorded_norm(gradients[name]) for name in names]
    assert_close(norms, VALUES["grad_norms"], "gradient norms")


def recorded_norm(values: Tensor) -> float:
    """The norm as it was recorded: squares added up one by one in fp32, off by 1e-3 over the largest layers."""
    flat = values.flatten().numpy()
    return float(np.sqrt(np.add.accumulate(flat * flat)[-1]))
