"""Random numbers that follow from where a run stands, so that one taken up again draws what it would have drawn."""

from __future__ import annotations

import random

import numpy as np
import torch

# What draws: places in a task that have random numbers of their own.
START, EPOCH, STEP = range(3)


def draw_from(*key: int) -> None:
    """Let all random numbers of this process, python's, numpy's and torch's on every device, follow from a key alone.

    Args:
        key: numbers from 0, e.g. the seed of the experiment, the task, what draws, and how often it did before.
    """
    small, *halves = (int(word) for word in np.random.SeedSequence(key).generate_state(3))
    random.seed(small)
    np.random.seed(small)
    torch.manual_seed(halves[0] << 31 | halves[1] >> 1)
