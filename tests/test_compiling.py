from __future__ import annotations

import pytest
import torch
from helpers import learner_of
from torch._dynamo.utils import counters

from kaizen.compiling import compile_networks
from kaizen.data.loaders import Batch


@pytest.mark.usefixtures("tiny")
@pytest.mark.slow
def test_a_compiled_learner_trains_and_keeps_its_names() -> None:
    plain = "--brightness 0 --contrast 0 --saturation 0 --hue 0 --gray_scale_prob 0 --gaussian_prob 0"  # quicker made
    learner = learner_of(*plain.split(), "--online_evaluation", "True", "--online_eval_batchnorm", "frozen")
    names, transform = list(learner.state_dict()), learner.views.transforms[0]
    eager = transform.crop
    compile_networks(learner)
    assert list(learner.state_dict()) == names
    assert transform.crop is not eager
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    batch: dict[str, Batch] = {
        name: (torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8), torch.arange(8), torch.arange(8))
        for name in ("task", "online")
    }
    views = []
    for make in (learner.views, learner_of(*plain.split()).views):
        torch.manual_seed(1)
        views.append(torch.cat(make(batch["task"][0])))
    assert (views[0] - views[1]).abs().mean() < 1e-3  # of the same random numbers
    loss = learner.training_step(batch, 0)["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in learner.method.encoder.parameters())
    assert counters["stats"]["unique_graphs"] >= 4  # crop and colours of views; encoder in two modes
