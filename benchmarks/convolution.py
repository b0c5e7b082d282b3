"""From how many channels on is our weight gradient of a 3x3 convolution faster than torch's own.

    python benchmarks/convolution.py [--threads 1] [--repeats 9]

CPU milliseconds, medians; both sides take turns in one process. The shapes are those of ResNet-18 at 32x32 with the
published stem and 40 images, and of resnet9 x 0.25 with 288 images at 32x32 and 16x16.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from kaizen.models.convolution import weight_gradient

SHAPES = [(40, 64, 34), (40, 128, 17), (40, 256, 9), (40, 512, 5), (288, 16, 32), (288, 64, 8), (288, 128, 4)]
SHAPES += [(288, 32, 8), (288, 64, 4), (288, 128, 2)]


def main(argv: list[str]) -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description="weight gradients of 3x3 convolutions")
    parser.add_argument("--threads", type=int, default=1, help="of torch [1]")
    parser.add_argument("--repeats", type=int, default=9, help="of each side [9]")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    print("images x channels x side   torch   ours   ratio")
    for batch, channels, side in SHAPES:
        theirs, ours = compare(batch, channels, side, options.repeats)
        shape = f"{batch} x {channels} x {side}"
        print(f"{shape:<24} {theirs:7.1f} {ours:6.1f} {theirs / ours:7.2f}")
    return 0


def compare(batch: int, channels: int, side: int, repeats: int) -> list[float]:
    """Milliseconds of torch's gradient and of ours."""
    images, grad = (torch.randn(batch, channels, side, side).to(memory_format=torch.channels_last) for _ in range(2))
    weight = torch.randn(channels, channels, 3, 3).to(memory_format=torch.channels_last)

    def theirs() -> Tensor:
        only_weight = [False, True, False]
        return torch.ops.aten.convolution_backward(
            grad, images, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, only_weight
        )[1]

    def ours() -> Tensor:
        return weight_gradient(images, grad, [1, 1], [1, 1], weight.shape[2:])

    sides: list[Callable[[], Tensor]] = [theirs, ours]
    times: list[list[float]] = [[], []]
    for _ in range(repeats + 1):
        for call, found in zip(sides, times, strict=True):
            start = time.process_time()
            call()
            found.append(1e3 * (time.process_time() - start))
    return [median(found[1:]) for found in times]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
