"""Steps of LARS."""

from __future__ import annotations

import re
from functools import partial

import pytest
from torch import Tensor

from kaizen.optim import LARS

from .golden import arrays, assert_close, below, cases

VALUES = arrays("lars.npz")
# The recorded groups: (names, learning rate, weight decay).
GROUPS = ((("w1", "b1", "zero"), 0.5, 1e-4), (("w2", "b2"), 0.1, 0.0))
# The recorded `closure` figures are left out: there the rates were adapted before the closure computed the gradients,
# so that they had no effect. Ours must give the figures meant, `plain`, with a closure and without.
PLAIN = [name.split("/")[0] for name in VALUES if name.split("/")[0].endswith("_plain")]


@pytest.mark.parametrize("closure", [False, True], ids=["", "in_a_closure"])
@pytest.mark.parametrize("case", cases("lars.npz", PLAIN))
def test_lars(case: str, closure: bool) -> None:
    clip, exclude = (word == "True" for word in re.findall(r"True|False", case))
    weights = {name: value.clone().requires_grad_() for name, value in below(VALUES, "init").items()}
    groups = [
        {"params": [weights[name] for name in names if name in weights], "lr": lr, "weight_decay": decay}
        for names, lr, decay in GROUPS
    ]
    optimizer = LARS(groups, lr=0.5, eta=0.02, clip=clip, exclude_bias_n_norm=exclude)
    for step in sorted({int(name.split("/")[0]) for name in below(VALUES, "grad")}):
        backward = partial(give_gradients, weights, below(VALUES, "grad", str(step)))
        if closure:
            optimizer.step(backward)
        else:
            backward()
            optimizer.step()
        for name, expected in below(VALUES, case, f"step{step}").items():
            assert_close(weights[name], expected, f"{name} after step {step}")


def give_gradients(weights: dict[str, Tensor], gradients: dict[str, Tensor]) -> float:
    """What a backward pass leaves; the loss does not matter."""
    for name, value in gradients.items():
        weights[name].grad = value.clone()
    return 0.0
