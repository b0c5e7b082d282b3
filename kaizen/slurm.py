"""What is asked of SLURM for the jobs of experiments: the launcher's flags for it, and the header of a batch script."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from math import ceil

from kaizen.args import UsageError, shown

WARNING = 120  # seconds before its limit that a job hears of it
LONGEST = 10_000  # hours
PLAIN = r"[A-Za-z0-9][A-Za-z0-9_.,@:+-]{0,99}"  # names of partitions, accounts and qualities of service
OWN = ("partition", "account", "qos", "nodes", "tasks", "cpus", "hours", "requeue", "array")


@dataclass(frozen=True)
class SlurmFlags:
    """What is asked of SLURM for each job.

    Attributes:
        partition, account, qos: None: as the cluster has it.
        nodes: machines.
        gpus: of each machine.
        tasks: processes on each machine, which share each step.
        cpus: of each process.
        minutes: until the job is ended.
        requeue: a job that was asked to end, or whose machine fails, is put back into the queue.
        array: all runs are one job.
        at_once: how many elements of the array may run at a time.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    nodes: int = 1
    gpus: int = 0
    tasks: int = 1
    cpus: int | None = None
    minutes: int | None = None
    requeue: bool = False
    array: bool = False
    at_once: int | None = None

    @property
    def flags(self) -> list[tuple[str, str]]:
        """Of main_continual.py, in front of those that the user sets: what SLURM decides, whatever a script says."""
        devices = ",".join(str(index) for index in range(self.tasks))
        where = [] if self.gpus else [("accelerator", "cpu")]
        return [("gpus", devices), ("num_nodes", "1"), *where]

    def header(self, name: str, output: str, runs: int) -> list[str]:
        """The lines in which sbatch reads what is asked for.

        Args:
            name: of the job.
            output: the file for what it prints, with SLURM's own patterns.
            runs: how many elements an array has.
        """
        warning = WARNING if self.minutes is None else min(WARNING, self.minutes * 30)
        at_once = f"%{self.at_once}" if self.at_once else ""
        time = None if self.minutes is None else f"{self.minutes // 60}:{self.minutes % 60:02}:00"
        asked = {
            "job-name": name,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "nodes": self.nodes,
            "ntasks-per-node": self.tasks,
            "cpus-per-task": self.cpus,
            "gres": f"gpu:{self.gpus}" if self.gpus else None,
            "time": time,
            "array": f"0-{runs - 1}{at_once}" if self.array else None,
            "signal": f"B:USR1@{warning}",
            "output": output,
            "open-mode": "append",
        }
        lines = [f"#SBATCH --{key}={quoted(str(value))}" for key, value in asked.items() if value is not None]
        return [*lines, f"#SBATCH --{'requeue' if self.requeue else 'no-requeue'}"]


def quoted(value: str) -> str:
    """A value as sbatch reads it, to which blanks, quotes and # mean something."""
    return value if re.fullmatch(r"[\w@%+=:,./-]+", value) else '"' + re.sub(r'["\\]', r"\\\g<0>", value) + '"'


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The launcher's flags for SLURM."""
    group = parser.add_argument_group(
        "SLURM", "With --mode slurm each run is a job, and --gpus N a number of GPUs per node, each with one process."
    )
    group.add_argument("--mode", choices=("local", "slurm"), default="local", help="slurm: submit jobs, and stop")
    group.add_argument("--partition", metavar="P", help="for the jobs (default: the cluster's)")
    group.add_argument("--account", metavar="A", help="that pays for them")
    group.add_argument("--qos", metavar="Q", help="their quality of service")
    group.add_argument("--nodes", metavar="N", help="machines of a job, which share each step (default: 1)")
    group.add_argument(
        "--tasks", metavar="N", help="without GPUs: processes per node, which share each step (default: 1)"
    )
    group.add_argument("--cpus", metavar="N", help="CPUs of each process (default: the cluster's)")
    group.add_argument("--hours", metavar="H", help="time limit, e.g. 0.5 (default: the partition's)")
    group.add_argument(
        "--requeue",
        action="store_true",
        help="a job that ends before it is done, as its time is over or others come first, is put back into the queue "
        "and goes on where it was",
    )
    group.add_argument(
        "--array",
        action="store_true",
        help="all scripts, arms and seeds are one job array, with --slots N at most N at a time",
    )


def checked(options: argparse.Namespace) -> SlurmFlags | None:
    """Read the flags for SLURM; None with --mode local.

    Raises:
        UsageError: one of them cannot be, or does not go with another.
    """
    if options.mode != "slurm":
        for name in OWN:
            if getattr(options, name):
                raise UsageError(f"--{name}: is for SLURM; add --mode slurm, or leave it out")
        return None
    for name in ("partition", "account", "qos"):
        value = getattr(options, name)
        if value is not None and not re.fullmatch(PLAIN, value):
            raise UsageError(f"--{name} {shown(value)}: cannot be the name of one; write it as SLURM shows it")
    gpus = whole("gpus", options.gpus, "of GPUs on each node: --gpus 4", 0) or 0
    tasks = whole("tasks", options.tasks, "of processes on each node: --tasks 2")
    if gpus and tasks not in (None, gpus):
        raise UsageError(f"--tasks {tasks}: each of --gpus {gpus} has one process; leave --tasks out")
    if options.slots is not None and not options.array:
        raise UsageError(f"--slots {options.slots}: jobs wait in SLURM's queue; leave it out, or add --array")
    for name, value in [*options.set, *(changed for _, flags in options.arm for changed in flags)]:
        if name in ("gpus", "num_nodes"):
            where = shown(f"{name}={value}")
            raise UsageError(f"--set {where}: SLURM says it; use --gpus N or --tasks N, and --nodes N, of the launcher")
    return SlurmFlags(
        partition=options.partition,
        account=options.account,
        qos=options.qos,
        nodes=whole("nodes", options.nodes, "of machines: --nodes 2") or 1,
        gpus=gpus,
        tasks=gpus or tasks or 1,
        cpus=whole("cpus", options.cpus, "for each process: --cpus 4"),
        minutes=minutes(options.hours),
        requeue=options.requeue,
        array=options.array,
        at_once=options.slots,
    )


def whole(name: str, text: str | None, cure: str, low: int = 1) -> int | None:
    """Read a whole number. Raises UsageError where it is none."""
    if text is not None and not (re.fullmatch("[0-9]{1,4}", text) and int(text) >= low):
        raise UsageError(f"--{name} {shown(text)}: must be a whole number from {low} to 9999, {cure}")
    return None if text is None else int(text)


def minutes(hours: str | None) -> int | None:
    """Read --hours. Raises UsageError where it is no time."""
    if hours is None:
        return None
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,9})?", hours) or not 0 < float(hours) <= LONGEST:
        raise UsageError(f"--hours {shown(hours)}: must be a number above 0 and at most {LONGEST}: --hours 1.5")
    return ceil(float(hours) * 60)
