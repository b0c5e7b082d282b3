"""Where the time of a step goes: a clock that is told which part of the work is going on."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

REST = "loop"  # what no part claims: loaders, the trainer's own work


@dataclass
class Lap:
    """One step: its seconds, its CPU seconds over all threads, and the seconds of each part."""

    seconds: float
    cpu_seconds: float
    parts: dict[str, float] = field(default_factory=dict)


class Clock:
    """Seconds by part. A part inside another one is charged to the inner one alone, so the parts add up to the step."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin a lap."""
        self._parts: dict[str, float] = {}
        self._stack = [REST]
        self._cpu = time.process_time()
        self._last = time.perf_counter()

    def lap(self) -> Lap:
        """End a lap that `start` began; time passes uncounted until the next `start`."""
        self._charge()
        return Lap(sum(self._parts.values()), time.process_time() - self._cpu, self._parts)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Charge what is done inside to a part."""
        self._charge()
        self._stack.append(name)
        try:
            yield
        finally:
            self._charge()
            self._stack.pop()

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Charge each call of an object's method to a part; the object itself is left as it is otherwise."""
        inner = getattr(owner, method)

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return inner(*args, **kwargs)

        setattr(owner, method, timed)

    def _charge(self) -> None:
        now = time.perf_counter()
        name = self._stack[-1]
        self._parts[name] = self._parts.get(name, 0.0) + now - self._last
        self._last = now


def typical(laps: list[Lap]) -> Lap:
    """Medians over laps, each part for itself."""
    names = dict.fromkeys(name for lap in laps for name in lap.parts)
    parts = {name: median(lap.parts.get(name, 0.0) for lap in laps) for name in names}
    return Lap(median(lap.seconds for lap in laps), median(lap.cpu_seconds for lap in laps), parts)
