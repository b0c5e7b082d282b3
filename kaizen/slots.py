"""Several experiments on one machine: as many at a time as there are slots, on the CPU or on GPUs."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kaizen.recipe import OUTPUT, Run
from kaizen.relay import Child, Relay

MOST = 400  # bytes of an experiment's last line that are shown


@dataclass(frozen=True)
class Slot:
    """A place for one experiment at a time.

    Attributes:
        environment: what its process sees besides the recipe's own environment.
        flags: what is added to its command.
    """

    environment: Mapping[str, str]
    flags: Sequence[str]


def slots_on(number: int | None, gpus: Sequence[int], environment: Mapping[str, str]) -> list[Slot]:
    """The slots of a machine.

    Args:
        number: how many; None: one for each GPU, or a single one.
        gpus: indices of GPUs to share, among those that CUDA_VISIBLE_DEVICES leaves; none: as the scripts say.
        environment: of this process.
    """
    count = number or max(1, len(gpus))
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    places = [visible[gpu] if gpu < len(visible) else str(gpu) for gpu in gpus]
    threads = {} if count == 1 or "OMP_NUM_THREADS" in environment else {"OMP_NUM_THREADS": str(cores() // count or 1)}
    return [
        Slot({**threads, "CUDA_VISIBLE_DEVICES": places[i % len(places)]}, ["--gpus=0"])
        if places
        else Slot(threads, [])
        for i in range(count)
    ]


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Slots:
    """Runs experiments in slots, each at the first one that is free, and goes on when one fails.

    Bad input or a kill of one of a recipe's runs keeps the recipe's other runs from beginning, as they would end the
    same way; a signal keeps all of them.

    Attributes:
        relay: starts them.
        slots: where.
        dry_run: check only.
    """

    relay: Relay
    slots: Sequence[Slot]
    dry_run: bool

    def run(self, runs: Sequence[Run]) -> dict[int, int]:
        """Run them in their order; the exit code of each that was begun or was done, by its place."""
        apart = len(self.slots) > 1 and not self.dry_run
        waiting, free = deque(enumerate(runs)), list(self.slots[:1] if self.dry_run else self.slots)
        busy: dict[Child, tuple[int, Slot, float]] = {}
        codes: dict[int, int] = {}
        stopped: list[object] = []
        while True:
            while free and waiting and not self.relay.received:
                place, run = waiting.popleft()
                if any(run.recipe is recipe for recipe in stopped):
                    continue
                if len(runs) > 1 and not self.dry_run and run.done:
                    print(f"{run.folder} is done", flush=True)
                    codes[place] = 0
                    continue
                slot = free.pop(0)
                try:
                    busy[run.start(self.relay, slot.environment, slot.flags, self.dry_run, apart)] = (
                        place, slot, time.monotonic(),
                    )  # fmt: skip
                except OSError as error:
                    if not busy:
                        raise
                    print(f"error: {error.filename}: {error.strerror}; check this path", file=sys.stderr)
                    codes[place] = 2
                    stopped.append(run.recipe)
                    free.append(slot)
            if not busy:
                return codes
            child, code = self.relay.wait()
            place, slot, begun = busy.pop(child)
            codes[place] = code
            free.append(slot)
            if apart:
                tell(runs[place], code, time.monotonic() - begun, f"{len(codes)} of {len(runs)}")
            runs[place].over(code)
            if code == 2 or code > 128:
                stopped.append(runs[place].recipe)


def tell(run: Run, code: int, seconds: float, progress: str) -> None:
    """Say how an experiment ended whose output nobody has seen."""
    after = f"after {seconds / 60:.0f} minutes" if seconds >= 90 else f"after {seconds:.0f} seconds"
    if code == 0:
        print(f"{run.folder.name}: done {after} ({progress})", flush=True)
        return
    output = run.folder / OUTPUT
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - MOST))
        lines = file.read().decode("utf-8", "replace").splitlines()
    words = next((line for line in reversed(lines) if line.strip()), "")
    words = "".join(c if c.isprintable() else "\ufffd" for c in words)
    print(f"{run.folder.name}: exit status {code} {after} ({progress}): {words}", flush=True)
