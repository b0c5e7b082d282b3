"""The chains of several machines or processes, of which the first one leads: it says which task begins, and where."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from torch.distributed import DistError, PrefixStore, TCPStore  # type: ignore[attr-defined]

from kaizen.args import UsageError
from kaizen.processes import Seat

ARRIVE = timedelta(minutes=10)  # until all chains have started
WAIT = timedelta(days=30)  # until the leading one says the next thing; if it ends, the others notice at once
LEAVE = 10.0  # seconds that the leading chain stays for the others to hear the end


class Lost(UsageError):
    """The leading chain is not to be reached."""


@dataclass
class Meeting:
    """Of `world` chains, number 0 tells, the others hear the same things in the same order.

    Attributes:
        rank, world: number of this chain, and how many there are.
        store: what they share.
        place: what the process of a task is told about its own place, but for the port.
    """

    rank: int
    world: int
    store: PrefixStore
    place: Seat | None
    address: str
    told: int = 0

    @classmethod
    def of(cls, seat: Seat) -> Meeting:
        """Of processes that torchrun or srun has started."""
        store = _store(seat.address, seat.port, seat.rank == 0 and not seat.served)
        return cls(seat.rank, seat.world, PrefixStore(f"kaizen/{seat.start}", store), seat, seat.address)

    @classmethod
    def of_nodes(cls, num_nodes: int) -> Meeting:
        """Of machines on each of which somebody has started the same command.

        Raises:
            UsageError: MASTER_ADDR, MASTER_PORT or NODE_RANK are missing or cannot be.
        """
        address, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
        rank = os.environ.get("NODE_RANK", "")
        if not (address and port.isdecimal() and rank.isdecimal() and int(rank) < num_nodes):
            raise UsageError(
                f"--num_nodes {num_nodes}: set MASTER_ADDR and MASTER_PORT to a free port of the first machine, and "
                f"NODE_RANK to a number from 0 to {num_nodes - 1} on each; torchrun and srun do so"
            )
        store = _store(address, int(port), int(rank) == 0)
        return cls(int(rank), num_nodes, PrefixStore("kaizen/nodes", store), None, address)

    def tell(self, **said: Any) -> None:
        """To all others."""
        self.store.set(f"said{self.told}", json.dumps(said))
        self.told += 1

    def hear(self) -> dict[str, Any]:
        """The next thing that is told. Raises Lost where nobody is left to tell it."""
        key = f"said{self.told}"
        try:
            self.store.wait([key], WAIT)
            said = json.loads(self.store.get(key))
        except (DistError, RuntimeError):
            raise Lost("the process that leads has ended; its own output says why") from None
        self.told += 1
        return dict(said)

    def begin(self, folder: str, task: int, environment: dict[str, str]) -> dict[str, str]:
        """Tell all that a task begins, and the environment of its processes; what the one here is told of its place."""
        port = free_port()
        self.tell(folder=folder, task=task, port=port, environment=environment)
        return self.environment(port)

    def environment(self, port: int) -> dict[str, str]:
        """What the process of a task is told about its place."""
        if self.place is not None:
            return self.place.environment(port)
        return {"MASTER_ADDR": self.address, "MASTER_PORT": str(port), "NODE_RANK": str(self.rank)}

    def end(self, status: int) -> None:
        """Tell all that nothing follows, and wait a little until they know."""
        self.tell(status=status)
        until = time.monotonic() + LEAVE
        while self.store.add("left", 0) < self.world - 1 and time.monotonic() < until:
            time.sleep(0.05)

    def leave(self) -> None:
        """Nothing more is heard here."""
        try:
            self.store.add("left", 1)
        except (DistError, RuntimeError):
            return  # the leading chain has not waited


def _store(address: str, port: int, serve: bool) -> TCPStore:
    try:
        return TCPStore(address, port, is_master=serve, wait_for_workers=False, timeout=ARRIVE)
    except (DistError, RuntimeError) as error:
        why = "the port is taken" if serve else "nobody is there"
        raise Lost(f"MASTER_ADDR {address}, MASTER_PORT {port}: {why} ({str(error).splitlines()[0][:80]})") from None


def free_port() -> int:
    """A port of this machine at which processes can meet."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as place:
        place.bind(("", 0))
        return int(place.getsockname()[1])
