"""Where a run computes: the GPUs that --gpus names, or the CPU."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kaizen.args import Args, NotReady, UsageError
from kaizen.processes import first_seat, node_rank, seat


def check_devices(args: Args) -> None:
    """Raises UsageError where the devices asked for, or what --compile needs for them, cannot be had."""
    indices, count = gpu_indices(args), torch.cuda.device_count()
    if count and max(indices) >= count:
        raise UsageError(f"--gpus {args.gpus}: this machine has {count}; give an index from 0 to {count - 1}")
    if args.accelerator == "gpu" and not torch.cuda.is_available():
        raise NotReady("--accelerator gpu: no CUDA here; use auto or cpu")
    if args.compile:
        _check_compiler(uses_cuda(args))


def uses_cuda(args: Args) -> bool:
    """Is there CUDA, and may it be used."""
    return torch.cuda.is_available() and args.accelerator != "cpu"


def gpu_indices(args: Args) -> list[int]:
    """The GPUs of this machine to train on: those that --gpus names, without it one for each process.

    Raises:
        UsageError: it names none, one twice, or not as many as processes were started for.
    """
    place = seat()
    started = place.local_world if place else 1
    if args.gpus is None:
        return list(range(started))
    parts = [part for part in args.gpus.split(",") if part]
    if not parts or not all(part.isdecimal() for part in parts):
        raise UsageError(f"--gpus {args.gpus}: give the index of a GPU, e.g. --gpus 0")
    indices = [int(part) for part in parts]
    if len({*indices}) < len(indices):
        raise UsageError(f"--gpus {args.gpus}: names a GPU twice; name each once")
    if place and len(indices) != started:
        raise UsageError(
            f"--gpus {args.gpus}: this machine has {started} processes of the run; name as many GPUs, or leave it out"
        )
    return indices


def gpu_index(args: Args) -> int:
    """The first of the GPUs, for what one process does alone."""
    return gpu_indices(args)[0]


def device_count(args: Args) -> int:
    """How many devices, each with a process of its own, share each step on all machines. Raises UsageError."""
    local = len(gpu_indices(args))
    place = seat()
    return place.world if place else local * args.num_nodes


def leads(args: Args) -> bool:
    """Is this the process of several that writes, shows and judges; yes where it is alone."""
    if seat() or device_count(args) == 1:
        return first_seat()
    return os.environ.get("LOCAL_RANK", "0") == "0" and (args.num_nodes == 1 or node_rank() == 0)


@contextmanager
def memory_told(args: Args) -> Iterator[None]:
    """Turn an end for want of memory, the device's or the machine's, into one line.

    Raises:
        UsageError: an allocation has failed.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = str(error)
        on_cpu = "can't allocate memory" in said  # a plain RuntimeError, unlike that of a GPU
        if not (on_cpu or isinstance(error, MemoryError | torch.OutOfMemoryError)):
            raise
        asked = re.search(r"allocate (\d[\d.]* \w+)", said)
        more = f" ({asked[1]} more)" if asked else ""
        raise UsageError(
            f"--batch_size {args.batch_size}: there is not enough memory for it and the networks{more}; "
            f"give a smaller one, {'' if args.recompute else '--recompute True, '}or less of what is large here: "
            "--encoder_width, --queue_size, --size"
        ) from None


def _check_compiler(cuda: bool) -> None:
    if cuda and importlib.util.find_spec("triton") is None:
        raise NotReady("--compile: needs triton on CUDA; pip install triton, or leave --compile out")
    compiler = os.environ.get("CXX", "g++")
    if not cuda and shutil.which(compiler) is None:
        raise NotReady(
            f"--compile: no C++ compiler {compiler} here; install g++, name one in CXX, or leave --compile out"
        )
