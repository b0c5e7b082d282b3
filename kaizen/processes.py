"""Where a process stands among those that share each step: torchrun or srun has started it, or it is on its own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

SRUN_PORT = 15000  # and up, by the number of the job, as Lightning has it


@dataclass(frozen=True)
class Seat:
    """One of several processes that were started from outside.

    Attributes:
        rank, world: its number, and how many there are.
        local_rank, local_world: the same on its machine.
        node: the number of its machine.
        address, port: where the first of them is met.
        served: somebody else keeps a store there.
        start: how often they were started anew.
    """

    rank: int
    world: int
    local_rank: int
    local_world: int
    node: int
    address: str
    port: int
    served: bool = False
    start: str = "0"

    def environment(self, port: int) -> dict[str, str]:
        """What tells Lightning the same in the process of a task, whose processes meet at a port of their own."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_world),
            "GROUP_RANK": str(self.node),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": "kaizen",
            "TORCHELASTIC_USE_AGENT_STORE": "False",
        }


def seat(environment: Mapping[str, str] | None = None) -> Seat | None:
    """The place that torchrun or srun gives this process; None where it is alone, or starts the others itself."""
    known = os.environ if environment is None else environment
    found = None
    if "TORCHELASTIC_RUN_ID" in known:
        found = _of_torchrun(known)
    elif "SLURM_STEP_ID" in known and known["SLURM_STEP_ID"].isdecimal():
        found = _of_srun(known)
    return found if found is not None and found.world > 1 else None


def first_seat() -> bool:
    """Is this process alone, or the first of those that torchrun or srun has started."""
    place = seat()
    return place is None or place.rank == 0


def node_rank() -> int:
    """The number of this machine where --num_nodes says that there are several."""
    return int(os.environ.get("NODE_RANK", "0"))


def _of_torchrun(known: Mapping[str, str]) -> Seat:
    rank, world, local_rank, local_world = (
        int(known[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    )
    served = known.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    restarts = known.get("TORCHELASTIC_RESTART_COUNT", "0")
    node, address, port = int(known.get("GROUP_RANK", 0)), known["MASTER_ADDR"], int(known["MASTER_PORT"])
    return Seat(rank, world, local_rank, local_world, node, address, port, served, restarts)


def _of_srun(known: Mapping[str, str]) -> Seat:
    node, world = int(known["SLURM_NODEID"]), int(known["SLURM_STEP_NUM_TASKS"])
    job = int(known["SLURM_JOB_ID"])
    address = known.get("MASTER_ADDR") or _first_host(known["SLURM_STEP_NODELIST"])
    port = int(known.get("MASTER_PORT") or SRUN_PORT + job % 10_000)
    counts = _tasks_per_node(known["SLURM_STEP_TASKS_PER_NODE"])
    return Seat(int(known["SLURM_PROCID"]), world, int(known["SLURM_LOCALID"]), counts[node], node, address, port)


def _tasks_per_node(text: str) -> list[int]:
    """`2(x3),1` -> [2, 2, 2, 1]."""
    counts = []
    for part in text.split(","):
        count, _, times = part.partition("(x")
        counts += [int(count)] * int(times.rstrip(")") or 1)
    return counts


def _first_host(nodes: str) -> str:
    """`host[5-9,12],other` -> host5."""
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", nodes).split(",")[0]
