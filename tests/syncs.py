"""Finds where a step would make the host wait for the device, without a device."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
# Operations whose result, or whose result's shape, the host has to know; on CUDA it waits for it.
WAITING = {
    aten._local_scalar_dense.default: "item",
    aten._linalg_check_errors.default: "check of a decomposition",
    aten.equal.default: "equal",
    aten.is_nonzero.default: "bool",
    aten.masked_select.default: "masked_select",
    aten.nonzero.default: "nonzero",
    aten.nonzero_static.default: "nonzero",
    aten.repeat_interleave.Tensor: "repeat_interleave by a tensor",
    aten._unique2.default: "unique",
    aten.unique_dim.default: "unique",
    aten.unique_consecutive.default: "unique",
    aten.bincount.default: "bincount",
}
COPYING = {aten._to_copy.default, aten.copy_.default}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
HERE = Path(__file__).resolve().parent.parent


class HostWaits(TorchDispatchMode):
    """Records operations that wait. The CPU, where they cost nothing, has the same ones as CUDA but for copies.

    Attributes:
        found: for each, what it was and the lines of this project that led there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Look, then do as asked."""
        kind = WAITING.get(func)
        if func in INDEXING and any(t.dtype in (torch.bool, torch.uint8) for t in _tensors(args[1])):
            kind = "index by a mask"
        result = func(*args, **(kwargs or {}))
        if func in COPYING and len({t.device.type for t in _tensors([args, result])}) > 1:
            kind = "copy between devices"
        if kind is not None:
            frames = [frame for frame in traceback.extract_stack()[:-1] if "kaizen" in frame.filename]
            places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
            self.found.append(f"{kind} at {' > '.join(places[-4:])}")
        return result


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
