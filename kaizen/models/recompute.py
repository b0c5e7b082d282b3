"""Maps that are not kept for the backward pass but made again in it (Chen et al., 2016, arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts


def recomputed(forward: Callable[[Tensor], Tensor], parts: list[nn.Module], images: Tensor) -> Tensor:
    """The same result and gradients bit for bit, in less memory; BatchNorm's statistics move once.

    What convolutions give is kept: it is half of a residual stage's maps, and dear to make again.

    Args:
        forward: what is done with `images`.
        parts: the modules that take part in it.
        images: (B, C, H, W).
    """
    contexts = partial(_contexts, parts)
    uncached = partial(_without_cache, forward)
    return checkpoint(uncached, images, use_reentrant=False, context_fn=contexts, preserve_rng_state=False)


def _without_cache(forward: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Autocast's copies of weights, made by an earlier pass, would be missing the second time."""
    kind = images.device.type
    if not torch.is_autocast_enabled(kind):
        return forward(images)
    with torch.autocast(kind, torch.get_autocast_dtype(kind), cache_enabled=False):
        return forward(images)


def _contexts(parts: list[nn.Module]) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Around the first time, and around the second."""
    first, again = create_selective_checkpoint_contexts(_policy)
    return first, _again(parts, again)


def _policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    convolves = operator == torch.ops.aten.convolution.default
    return CheckpointPolicy.MUST_SAVE if convolves else CheckpointPolicy.PREFER_RECOMPUTE


@contextmanager
def _again(parts: list[nn.Module], inner: AbstractContextManager[Any]) -> Iterator[None]:
    """Running statistics stay as they are: they have seen this batch."""
    norms = [module for part in parts for module in part.modules() if isinstance(module, _BatchNorm)]
    kept = [(norm.momentum, None if (seen := norm.num_batches_tracked) is None else seen.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        with inner:
            yield
    finally:
        for norm, (momentum, seen) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            if seen is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(seen)  # nn.SyncBatchNorm has to have it
