"""What the benchmarks of steps have in common on the command line."""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext
from typing import Any

import main_continual


def as_tasks_run(encoder: str = "resnet9") -> None:
    """Start anew with the environment that main_continual.py gives to an encoder's tasks, if this process has another.

    A task trains in its main thread; sides that take turns live in threads, which must not get a heap each.
    """
    wanted = {**main_continual.environment_of(encoder), "MALLOC_ARENA_MAX": "1"}
    missing = {name: value for name, value in wanted.items() if name not in os.environ}
    if missing:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **missing})


def ready_processes(module: str) -> ForkServerContext:
    """For processes of their own, which have the libraries of tasks and of one module from the start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kaizen.task", module])
    return context


def step_parser(description: str, parts: Sequence[str]) -> argparse.ArgumentParser:
    """Flags of a benchmark that takes steps: how many, and which parts of it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--only", choices=parts, help="one part alone")
    parser.add_argument("--quick", action="store_true", help="tiny batches: does it run?")
    parser.add_argument("--repeats", type=int, default=7, help="steps of each side [7]")
    parser.add_argument("--warmup", type=int, default=2, help="steps of each side that do not count [2]")
    parser.add_argument("--threads", type=int, default=1, help="of torch [1]")
    return parser


def answer(
    options: argparse.Namespace,
    measure: Callable[[argparse.Namespace], dict[str, Any]],
    show: Callable[[dict[str, Any]], None],
) -> int:
    """Measure, and print tables, or with --json one object."""
    with contextlib.redirect_stdout(sys.stderr):  # what training says
        result = measure(options)
    if options.json:
        print(json.dumps(result))
    else:
        show(result)
    return 0
