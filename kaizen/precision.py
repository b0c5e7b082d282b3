"""Half precision is for networks; what compares their outputs is computed in float32. Double is for all but views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


def evaluation_precision(precision: str, device: torch.device) -> torch.autocast:
    """Networks run in the precision of their training; fp16 is for CUDA alone."""
    kinds = {"16": torch.float16 if device.type == "cuda" else None, "bf16": torch.bfloat16}
    kind = kinds.get(precision)
    return torch.autocast(device.type, dtype=kind, enabled=kind is not None)


def weight_type(precision: str) -> torch.dtype:
    """How weights are kept, and images that networks see."""
    return torch.float64 if precision == "64" else torch.float32


def float32(value: T) -> T:
    """float16 and bfloat16 tensors as float32, also inside lists and dataclasses; anything else as it is."""
    found: Any = value
    if isinstance(value, Tensor):
        found = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    elif isinstance(value, list):
        found = [float32(item) for item in value]
    elif is_dataclass(value) and not isinstance(value, type):
        found = replace(value, **{item.name: float32(getattr(value, item.name)) for item in fields(value)})
    return found


def in_float32(function: Callable[P, T]) -> Callable[P, T]:
    """A loss that does its maths in float32 whatever its inputs are and wherever it is called.

    Under autocast a cast of the inputs alone is not enough: matrix products would take them back to half precision,
    where the sums over a batch or over a queue lose digits (bfloat16) or overflow (float16).
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        args, kwargs = float32([*args]), {name: float32(value) for name, value in kwargs.items()}  # type: ignore[assignment]
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            return function(*args, **kwargs)

    return run
