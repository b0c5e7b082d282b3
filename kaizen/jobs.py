"""Runs as jobs of SLURM: the batch script of each, or of an array of all, and its submission."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kaizen.args import UsageError, shown
from kaizen.files import atomic_path
from kaizen.recipe import OUTPUT, ROOT, Run, comparison_folder, safe_name
from kaizen.slurm import SlurmFlags

JOB = "job.sbatch"  # in an experiment's folder, or in that of an array

# SIGUSR1 comes before the limit. SIGTERM would have srun end its step by force, so the step is told past it, and once,
# as a second time means "at once". An element of an array is named by its place in it, since the plain number of one of
# them means all. A job that somebody cancels is not RUNNING any more, and is not put back.
BODY = """\
job=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
job=${{job:-$SLURM_JOB_ID}}

asked=
stop() {{
    if [ -z "$asked" ]; then
        asked=yes
        scancel --signal=TERM "$job"
    fi
}}
trap stop USR1 TERM

cd -- {place} || exit
{command}
srun {srun}"${{command[@]}}" &
step=$!
while kill -0 "$step" 2> /dev/null; do wait "$step"; done # a signal ends a wait, not the step
wait "$step"
status=$?
"""
AGAIN = """
if [ "$status" != 0 ] && { [ -n "$asked" ] || [ "$status" = 143 ]; }; then
    if scontrol show job "$job" | grep -q JobState=RUNNING; then scontrol requeue "$job"; fi
fi
"""


def submit(asked: SlurmFlags, runs: Sequence[Run], common: str, dry_run: bool) -> int:
    """Write and submit the jobs of all runs, or one array of them, and say their numbers; the exit status.

    Args:
        asked: of SLURM.
        runs: what the jobs do.
        common: what the names of the runs' folders begin with, if there are several scripts or arms.
        dry_run: only print the scripts.

    Raises:
        UsageError: there is no SLURM here, it refuses a job, or a job could not do its run.
    """
    if not dry_run and shutil.which("sbatch") is None:
        raise UsageError("--mode slurm: there is no sbatch here; use a machine of the cluster, or look with --dry_run")
    left = [run for run in runs if len(runs) == 1 or dry_run or not run.done]
    for run in runs:
        check_place(run)
        if run not in left:
            print(f"{run.folder} is done")
    for job in [left] if asked.array and left else [[run] for run in left]:
        if dry_run:
            print(batch_script(asked, job, common), end="")
        else:
            submit_one(asked, job, common)
    if len(runs) > 1 and not dry_run:
        out = comparison_folder(runs[0].recipe, common)
        compare = shlex.join(["python", "-m", "kaizen.compare", *(str(run.folder) for run in runs), "--out", str(out)])
        print(f"when all are done: {compare}")
    return 0


def submit_one(asked: SlurmFlags, runs: Sequence[Run], common: str) -> None:
    """Make the folders of a job, write its script and submit it. Raises UsageError where SLURM refuses it."""
    for run in runs:
        run.make()
    folder = job_folder(asked, runs, common)
    new = not folder.exists()
    folder.mkdir(exist_ok=True)
    if asked.array:
        write(folder / "runs.txt", "".join(f"{place}\t{run.folder}\n" for place, run in enumerate(runs)))
    write(folder / JOB, batch_script(asked, runs, common))
    command = ["sbatch", "--parsable", str((folder / JOB).absolute())]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode != 0:
        if new:
            shutil.rmtree(folder)
        for run in runs:
            run.take_back(JOB)
        why = "; ".join(line.strip() for line in done.stderr.splitlines() if line.strip())
        raise UsageError(f"--mode slurm: {why or f'sbatch ended with exit status {done.returncode}'}")
    sys.stderr.write(done.stderr)  # warnings
    number = done.stdout.partition(";")[0].strip()
    print(
        f"job {number}: squeue --job {number} says how far it is, {folder / output_of(asked)} what it prints",
        flush=True,
    )


def job_folder(asked: SlurmFlags, runs: Sequence[Run], common: str) -> Path:
    """Where the script of a job lies, and what it prints."""
    first = runs[0]
    return Path(first.recipe.base, f"{common or first.recipe.name}-array") if asked.array else first.folder


def output_of(asked: SlurmFlags) -> str:
    """Name of the file that a job prints to, in which SLURM puts an element's place for %a."""
    return "output-%a.txt" if asked.array else OUTPUT


def check_place(run: Run) -> None:
    """Raises UsageError where a job cannot do its run: it reads the script's copy, and prints, in the run's folder."""
    source, copy = run.recipe.source, run.folder / run.recipe.source.name
    place = os.path.abspath(run.folder)
    if "\\" in place or not place.isprintable():
        raise UsageError(
            f"--experiment_dir {shown(place)}: SLURM cannot print to a path with such characters; rename it"
        )
    if source.name in (JOB, OUTPUT):
        raise UsageError(f"--script {source}: a job has a file of this name; rename it")
    if not run.recipe.fresh and copy.exists() and copy.read_bytes() != source.read_bytes():
        raise UsageError(
            f"--script {source}: is not the same as {copy}, with which the experiment began; name that one and change "
            "flags with --set, or use another --experiment_dir"
        )


def batch_script(asked: SlurmFlags, runs: Sequence[Run], common: str) -> str:
    """The script of a job: its header, the command of each run, and what happens when it is asked to end.

    Args:
        asked: of SLURM.
        runs: one, or those of an array.
        common: what the names of the runs' folders begin with, if there are several scripts or arms.
    """
    folder = job_folder(asked, runs, common)
    output = str(folder.absolute()).replace("%", "%%") + f"/{output_of(asked)}"
    commands = [f"command=({shlex.join(command(run))})" for run in runs]
    if asked.array:
        cases = [f"    {place}) {line} ;;" for place, line in enumerate(commands)]
        commands = ['case "$SLURM_ARRAY_TASK_ID" in', *cases, "esac"]
    cpus = f"--cpus-per-task={asked.cpus} " if asked.cpus else ""  # which srun does not take over from the job
    body = BODY.format(place=shlex.quote(os.getcwd()), command="\n".join(commands), srun=cpus)
    header = asked.header(safe_name(folder.name), output, len(runs))
    return "\n".join(["#!/usr/bin/env bash", *header, "", body]) + AGAIN * asked.requeue + 'exit "$status"\n'


def command(run: Run) -> list[str]:
    """What does a run, or goes on with it: the launcher, with the copy of the script and all flags that are changed."""
    recipe, folder = run.recipe, run.folder
    changed = [*(f"{name}={value}" for name, value in recipe.changed), *(word.removeprefix("--") for word in run.flags)]
    place = [f"--experiment_dir={folder.name}", f"--base_experiment_dir={recipe.base}"]
    script = f"--script={folder / recipe.source.name}"
    return [sys.executable, str(ROOT / "job_launcher.py"), script, "--set", *changed, *place]


def write(path: Path, text: str) -> None:
    """Write a file whole; names keep bytes that are no UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(os.fsencode(text))
