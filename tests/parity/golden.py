"""Reading the recorded numbers. Every case of every test comes from the files, so another folder may hold others."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

FOLDER = Path(os.environ.get("KAIZEN_GOLDEN_DIR") or Path(__file__).parents[1] / "golden")
RTOL, ATOL = 1e-4, 1e-5


@cache
def arrays(file: str) -> dict[str, Tensor]:
    """Name -> tensor of one .npz; empty where the folder lacks it."""
    path = FOLDER / file
    if not path.exists():
        return {}
    with np.load(path) as content:
        return {name: torch.from_numpy(content[name]) for name in content.files if content[name].dtype.kind in "biuf"}


@cache
def records(file: str) -> dict[str, Any]:
    """One .json; empty where the folder lacks it."""
    path = FOLDER / file
    return json.loads(path.read_text()) if path.exists() else {}


def below(content: Mapping[str, Tensor], *path: str) -> dict[str, Tensor]:
    """What lies below a prefix, e.g. below(content, "simclr", "in") -> {"z1": ..., "z2": ...}."""
    prefix = "".join(f"{part}/" for part in path)
    return {name.removeprefix(prefix): value for name, value in content.items() if name.startswith(prefix)}


def cases(file: str, names: Iterable[str]) -> Any:
    """The cases of a file as test parameters; without any, one that is skipped by the file's name."""
    found = sorted(set(names))
    return found or [pytest.param("", id=file, marks=pytest.mark.skip(reason=f"{file}: no cases in {FOLDER}"))]


def require(*files: str) -> None:
    """Skip by name what the folder lacks."""
    for file in files:
        if not (FOLDER / file).exists():
            pytest.skip(f"{file}: not in {FOLDER}")


def assert_close(actual: Any, expected: Any, what: str, rtol: float = RTOL, atol: float = ATOL) -> None:
    """Equal shapes, and |actual - expected| <= atol + rtol * |expected| everywhere."""
    found, wanted = (torch.as_tensor(value).detach().double() for value in (actual, expected))
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=atol, msg=lambda text: f"{what}: {text}")


def assert_gradients_close(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Gradients by name, relative to the largest entry of each: the rounding of their sums goes by that.

    BatchNorm takes the bias in front of it away again: exactly computed, its gradient is zero, and in fp32 it is what
    rounding leaves of the gradients of its layer's weights, so it is held against those.
    """
    for name, value in expected.items():
        atol = ATOL + RTOL * float(value.abs().max())
        if _in_front_of_batchnorm(name, expected):
            atol = 10 * RTOL * float(expected[name.removesuffix("bias") + "weight"].abs().max())
        assert_close(actual[name], value, f"gradient of {name}", atol=atol)


def _in_front_of_batchnorm(name: str, gradients: Mapping[str, Tensor]) -> bool:
    layer = re.fullmatch(r"(.+\.)?(\d+)\.bias", name)
    after = gradients.get(f"{layer[1] or ''}{int(layer[2]) + 1}.weight") if layer else None
    return after is not None and after.ndim == 1


def gradients_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What reached each tensor; zeros where nothing did, as it is recorded."""
    return {name: torch.zeros_like(t) if t.grad is None else t.grad.clone() for name, t in tensors.items()}


def sha256(indices: Tensor) -> str:
    """The digest under which long index lists are recorded."""
    return hashlib.sha256(indices.to(torch.int64).numpy().tobytes()).hexdigest()


def leaves(inputs: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs of a case, ready for a backward pass.

    Where the recorded gradient is zero, the input is a key or a teacher. Those come out of the momentum network and
    the frozen model without a gradient (test_steps.py looks at that), and so they do here.
    """
    return {
        name: value.clone().requires_grad_(bool(name in gradients and gradients[name].any()))
        for name, value in inputs.items()
    }
