"""Train task after task, each in a process of its own, each from the checkpoint of the one before.

python3 main_continual.py --dataset digits --method mocov2plus --num_tasks 5 ... --dry_run
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kaizen.args import Args, NotReady, UsageError
from kaizen.disk import disk_told
from kaizen.experiment import Experiment, versions
from kaizen.files import path_error
from kaizen.folders import experiment_folder, make_folder
from kaizen.lock import Lock, held
from kaizen.processes import seat
from kaizen.signals import exit_status, handling
from kaizen.states import begin, end

if TYPE_CHECKING:
    from kaizen.meeting import Meeting

ROOT = Path(__file__).resolve().parent
# Threads that sleep while they wait cost nothing alone, and save most of the time where cores are shared.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
# The C library keeps the maps of small networks when they are freed, instead of giving them back and fetching them
# anew, page by page: tensors below 256 MB lie on its heap, which does not shrink until the task is over.
SMALL_MAPS = {"MALLOC_MMAP_THRESHOLD_": str(2**28)}
# Large maps would leave holes in that heap, a sixth of the memory; huge pages take most of the cost of fetching them.
LARGE_MAPS = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def environment_of(encoder: str) -> dict[str, str]:
    """What the process of a task is started with, unless it is set."""
    return ENVIRONMENT | (SMALL_MAPS if encoder == "resnet9" else LARGE_MAPS)


def main(argv: list[str]) -> int:
    """Returns the exit status: 0, 2 for bad input, or that of the task that failed."""
    try:
        if (meeting := meet(argv)) is None:
            status = run(argv)
        elif meeting.rank == 0:
            status = lead(argv, meeting)
        else:
            status = follow(meeting)
        sys.stdout.flush()
        return status
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # who read the output has gone, as `head` does; what is still to be said goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {path_error(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # between two tasks, of which none is hurt
        return 128 + signal.SIGINT


def meet(argv: list[str]) -> Meeting | None:
    """The chains that train together, on several machines or started by torchrun or srun; None for one alone."""
    from kaizen.cli import parsed

    place = seat()
    if place is None:
        args = parsed(argv)
        if args.num_nodes == 1 or args.dry_run or args.status:
            return None
    from kaizen.meeting import Meeting

    return Meeting.of_nodes(args.num_nodes) if place is None else Meeting.of(place)


def lead(argv: list[str], meeting: Meeting) -> int:
    """Do as one chain alone does, and tell the others of each task and of the end."""
    status = 2
    try:
        status = run(argv, meeting)
    finally:
        meeting.end(status)
    return status


def follow(meeting: Meeting) -> int:
    """Take part in the tasks that the leading chain begins."""
    while "status" not in (said := meeting.hear()):
        command = task_command(said["folder"], said["task"])
        status = run_process(command, said["environment"], None, meeting.environment(said["port"]))
        if status != 0:
            meeting.leave()
            return status
    meeting.leave()
    return int(said["status"])


def run(argv: list[str], meeting: Meeting | None = None) -> int:
    """Check everything, then train what is not trained yet."""
    from kaizen.cli import complete, flags_of, parsed, unused_flags
    from kaizen.devices import check_devices
    from kaizen.notices import notices
    from kaizen.plan import open_data
    from kaizen.plan_lines import data_notices
    from kaizen.status import show_status
    from kaizen.wandb_run import check_wandb

    args = parsed(argv)
    if args.status is not None:
        show_status(args.status)
        return 0
    folder = experiment_folder(args.base_experiment_dir, args.experiment_dir, args.name)
    args.devices = Experiment.devices(folder) or args.devices
    args = complete(args)
    told = notices(args)
    if unused := unused_flags(args):
        told.append(f"warning: not used by {args.method} with the other flags: {', '.join('--' + u for u in unused)}")
    for line in told:
        print(line)
    if args.dry_run:
        return dry_run(args, folder if args.experiment_dir else None)
    check_devices(args)
    check_wandb(args)
    data = open_data(args)
    data.skipped.tell()
    for line in data_notices(args, data):
        told.append(line)
        print(line, flush=True)
    with disk_told(f"--experiment_dir {folder.name}", folder):
        identities = data.identities
        Experiment.check(folder, flags_of(args), data.split.classes, data.skipped.names, identities)
        check_start(args, folder, data.num_classes)
        make_folder(folder)
        with held(folder) as lock:  # all that was checked may have changed until here, and `start` checks again
            experiment = Experiment.start(
                folder,
                flags_of(args),
                tasks=data.split.classes,
                task_names=data.task_names,
                skipped=data.skipped.names,
                classes=data.train.class_names,
                notices=told,
                images=identities,
            )
            return chain(experiment, args.task_idx, args.num_tasks, lock, meeting)


def dry_run(args: Args, folder: Path | None) -> int:
    """Print the plan. What a real run would miss here is named, and what needs it is left out."""
    from kaizen.cli import flags_of
    from kaizen.devices import check_devices
    from kaizen.plan import open_data
    from kaizen.plan_lines import data_notices, describe

    if folder is not None:
        Experiment.check(folder, flags_of(args))
    data = None
    with tolerated():
        check_devices(args)
    with tolerated():
        data = open_data(args)
        data.skipped.tell()
        for line in data_notices(args, data):
            print(line)
    if args.pretrained_model and not Path(args.pretrained_model).exists():
        print(f"not checked: --pretrained_model {args.pretrained_model}: not on this machine")
    elif data is not None:
        with tolerated():
            check_start(args, folder, data.num_classes)
    print("\n".join(describe(args, data, folder)))
    return 0


@contextmanager
def tolerated() -> Iterator[None]:
    """Say what a real run would stop at, and go on."""
    try:
        yield
    except NotReady as error:
        print(f"not checked: {error}")


def check_start(args: Args, folder: Path | None, num_classes: int) -> None:
    """Raises UsageError where the weights to start from are missing or do not fit."""
    ready = args.task_idx == 0 if folder is None else Experiment(folder, {}).can_start(args.task_idx)
    if args.task_idx > 1 and not ready:
        raise UsageError(
            f"--task_idx {args.task_idx}: the results need every task; start from task 0 or 1, "
            "or in an --experiment_dir in which the tasks before are done"
        )
    if args.pretrained_model:
        from kaizen.building import build_learner
        from kaizen.checkpoint import OPTIONAL, load_task, restore

        path = Path(args.pretrained_model)
        checkpoint = load_task(path, "--pretrained_model")
        restore(build_learner(args, num_classes, args.task_idx), checkpoint, path, "--pretrained_model", OPTIONAL)
    elif not ready:
        raise NotReady(
            f"--task_idx {args.task_idx}: needs the model of task {args.task_idx - 1}; give --pretrained_model, "
            "or an --experiment_dir in which that task is done"
        )


def chain(
    experiment: Experiment, first: int, num_tasks: int, lock: Lock | None = None, meeting: Meeting | None = None
) -> int:
    """Run the tasks that are not done, one process each; stop at the first that fails, with its exit status."""
    from kaizen.page.report import write_report
    from kaizen.report import draw_plots, show, write

    print(f"experiment {experiment.folder}", flush=True)
    for task in range(first, num_tasks):
        if experiment.done(task):
            print(f"task {task} is done", flush=True)
            continue
        environment = environment_of(experiment.flags["encoder"])
        place = meeting.begin(str(experiment.folder), task, environment) if meeting else {}
        folder = experiment.make_task_folder(task)
        state = begin(folder, experiment.flags["max_epochs"], versions())
        status = run_process(task_command(experiment.folder, task), environment, lock, place)
        try:
            end(folder, state, 0 if experiment.done(task) else status)
        except OSError:
            if status == 0:  # else the task has told already that the disk is full
                raise
        if status != 0:
            with suppress(OSError, UsageError):
                write_report(experiment.folder)  # it says how far the experiment is
            cure = f"the same command with --experiment_dir {experiment.name} goes on from it"
            print(f"task {task} stopped with exit status {status}; {cure}", file=sys.stderr)
            return status
    results = write(experiment.folder)  # again: the last task may have been cut off before it did
    draw_plots(results, experiment.folder, missing_only=True)
    page = write_report(experiment.folder)
    show(results)
    more = "plots/" if results["heads"] else "task*/final.ckpt"
    print(f"results in {experiment.folder}/results.json, results.csv and {more}; open {page}")
    return 0


def task_command(folder: Path | str, task: int) -> list[str]:
    """The process of one task."""
    return [sys.executable, "-m", "kaizen.task", str(folder), str(task)]


def run_process(
    command: list[str], environment: dict[str, str], lock: Lock | None = None, place: dict[str, str] | None = None
) -> int:
    """Run a command without a shell, pass on what asks for an end, and return its exit status (128 + n for signal n).

    Args:
        command: program and arguments.
        environment: what is added to this process's own, unless it is set there.
        lock: the process holds it too, so that it stays held if this one is killed and that one lives on.
        place: what replaces parts of the environment, if anything does.
    """
    received: list[int] = []
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: object) -> None:
        received.append(number)
        for child in children:  # a terminal has told it of SIGINT already, which it takes for one
            child.send_signal(number)

    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    surroundings = {**environment, **os.environ, "PYTHONPATH": path, **(place or {})}
    with (
        handling(pass_on),
        subprocess.Popen(command, env=surroundings, pass_fds=(lock.descriptor,) if lock else ()) as process,
    ):
        children.append(process)
        if received:  # before there was a process to tell
            process.send_signal(received[-1])
        if lock:
            with suppress(OSError):  # the lock holds without a name in it
                lock.note(process.pid)
        status = process.wait()
    if status == 0 and received:  # too late for the task, but not for those after it
        return 128 + received[-1]
    return exit_status(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
