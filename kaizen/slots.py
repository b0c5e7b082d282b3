"""Several experiments on one machine: as many at a time as there are slots, on the CPU or on GPUs."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kaizen.args import printable
from kaizen.files import path_error
from kaizen.lock import in_use, owner
from kaizen.recipe import OUTPUT, Run
from kaizen.relay import PAUSE, Child, Relay

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


class Slots:
    """Runs experiments in slots, each at the first one that is free, and goes on when one fails.

    Bad input that ends one of a recipe's runs before its first task keeps the recipe's other runs from beginning, as
    they would end the same way; a signal keeps all of them. An experiment that another process runs, as one whose
    launcher was killed, gets a slot and begins there once that process is over, if it is not done by then.
    """

    def __init__(self, relay: Relay, slots: Sequence[Slot], dry_run: bool, runs: Sequence[Run]) -> None:
        """Prepare to start `runs` by the relay; a dry run checks only, one after the other."""
        self.relay, self.runs, self.dry_run = relay, runs, dry_run
        self.several = len(runs) > 1 and not dry_run
        self.apart = len(slots) > 1 and not dry_run
        self.waiting, self.free = deque(range(len(runs))), list(slots[:1] if dry_run else slots)
        self.busy: dict[Child, tuple[int, Slot, float]] = {}
        self.elsewhere: dict[int, Slot] = {}
        self.stopped: list[object] = []  # recipes
        self.codes: dict[int, int] = {}

    def run(self) -> dict[int, int]:
        """Run them in their order; the exit code of each that was begun or was done, by its place."""
        while True:
            while self.free and self.waiting and not self.relay.received:
                self._begin(self.waiting.popleft())
            if self._come_back():
                continue
            if not self.busy and not self.elsewhere:
                return self.codes
            ended = self.relay.look() if self.elsewhere else self.relay.wait()
            if ended is None:
                time.sleep(PAUSE)
            else:
                self._over(*ended)

    def _begin(self, place: int) -> None:
        """Start a run, or see that it cannot begin, need not, or must wait."""
        run = self.runs[place]
        if any(run.recipe is recipe for recipe in self.stopped):
            return
        if self.several and run.done:
            print(f"{run.folder} is done", flush=True)
            self.codes[place] = 0
            return
        slot = self.free.pop(0)
        if self.several and not run.recipe.fresh and in_use(run.folder):
            print(f"{run.folder} is in use by {owner(run.folder)}; waiting until that is over", flush=True)
            self.elsewhere[place] = slot
            return
        try:
            child = run.start(self.relay, slot.environment, slot.flags, self.dry_run, self.apart)
            self.busy[child] = place, slot, time.monotonic()
        except OSError as error:
            if not self.busy:
                raise
            print(f"error: {path_error(error)}", file=sys.stderr)
            self.codes[place] = 2
            self.stopped.append(run.recipe)
            self.free.append(slot)

    def _come_back(self) -> bool:
        """Let what other processes have left wait again for a slot; after a signal nothing is waited for."""
        if self.relay.received:
            self.elsewhere.clear()
        over = [place for place in self.elsewhere if not in_use(self.runs[place].folder)]
        self.free += [self.elsewhere.pop(place) for place in over]
        self.waiting.extendleft(reversed(over))
        return bool(over)

    def _over(self, child: Child, code: int) -> None:
        """Note how a run ended."""
        place, slot, begun = self.busy.pop(child)
        run = self.runs[place]
        self.codes[place] = code
        self.free.append(slot)
        try:
            if self.apart:
                tell(run, code, time.monotonic() - begun, f"{len(self.codes)} of {len(self.runs)}")
            run.over(code)
        except OSError as error:  # the others need not suffer from it
            print(f"error: {path_error(error)}", file=sys.stderr)
            self.codes[place] = code or 2
        has_trained = any(run.folder.glob("task*/state.json"))
        if code == 2 and not has_trained:  # else the fault may be its own, as a loss that is no number
            self.stopped.append(run.recipe)


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
    print(f"{run.folder.name}: exit status {code} {after} ({progress}): {printable(words)}", flush=True)
