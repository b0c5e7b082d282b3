"""Where a run computes: the GPU that --gpus names, or the CPU."""

from __future__ import annotations

import importlib.util
import os
import shutil

import torch

from kaizen.args import Args, NotReady, UsageError


def check_devices(args: Args) -> None:
    """Raises UsageError where the device asked for, or what --compile needs for it, cannot be had."""
    gpu_index(args)
    if args.accelerator == "gpu" and not torch.cuda.is_available():
        raise NotReady("--accelerator gpu: no CUDA here; use auto or cpu")
    if args.compile:
        _check_compiler(uses_cuda(args))


def uses_cuda(args: Args) -> bool:
    """Is there CUDA, and may it be used."""
    return torch.cuda.is_available() and args.accelerator != "cpu"


def gpu_indices(args: Args) -> list[int]:
    """The GPUs that --gpus names, the first one without it. Raises UsageError where it names none."""
    parts = [part for part in ("0" if args.gpus is None else args.gpus).split(",") if part]
    if not parts or not all(part.isdecimal() for part in parts):
        raise UsageError(f"--gpus {args.gpus}: give the index of a GPU, e.g. --gpus 0")
    return [int(part) for part in parts]


def gpu_index(args: Args) -> int:
    """The one GPU to train on. Raises UsageError where --gpus names several, or one that is not there."""
    index, *others = gpu_indices(args)
    if others:
        raise NotReady(
            f"--gpus {args.gpus}: training on several GPUs is not built yet; give one index, and for the same "
            f"effective batch and learning rate: --gpus {index} --batch_size {(1 + len(others)) * args.batch_size}"
        )
    count = torch.cuda.device_count()
    if count and index >= count:
        raise UsageError(f"--gpus {args.gpus}: this machine has {count}; give an index from 0 to {count - 1}")
    return index


def _check_compiler(cuda: bool) -> None:
    if cuda and importlib.util.find_spec("triton") is None:
        raise NotReady("--compile: needs triton on CUDA; pip install triton, or leave --compile out")
    compiler = os.environ.get("CXX", "g++")
    if not cuda and shutil.which(compiler) is None:
        raise NotReady(
            f"--compile: no C++ compiler {compiler} here; install g++, name one in CXX, or leave --compile out"
        )
