"""Jobs of SLURM: the batch script, with stand-ins of SLURM's programs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from helpers import wait_for
from launching import STAND_IN, Place

from kaizen import slurm

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = {
    "sbatch": """
        if [ -n "$REFUSE" ]; then echo "sbatch: error: $REFUSE" >&2; exit 1; fi
        echo "$@" >> sbatch.log; echo "7;one"
    """,
    "srun": 'echo $$ > step.pid; echo "$@" >> srun.log; exec "$@"',
    "scancel": 'echo "$@" >> scancel.log; kill -TERM "$(cat step.pid)"',
    "scontrol": 'if [ "$1" = show ]; then echo "  JobState=$STATE Reason=None"; else echo "$@" >> requeued.log; fi',
}
WAITS = """
import os, signal, sys, time
def stop(number, frame):
    print("saved", flush=True)
    sys.exit(int(os.environ["ENDS_WITH"]))
signal.signal(signal.SIGTERM, stop)
print("ready", *sys.argv[1:], flush=True)
if "AT_ONCE" in os.environ:
    stop(15, None)
time.sleep(60)
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A launcher, and SLURM's programs in front of all others."""
    place = Place(tmp_path)
    (tmp_path / "bin").mkdir()
    for name, code in PROGRAMS.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/usr/bin/env bash\n{code}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("REFUSE", "")
    return place


def text(place: Place, name: str) -> str:
    path = place.folder / name
    return path.read_text() if path.exists() else ""


def header(script: str) -> list[str]:
    lines = script.splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    return [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")]


def test_a_run_becomes_a_job(cluster: Place) -> None:
    flags = ("--partition", "gpu", "--account", "A-1", "--qos", "high", "--gpus", "4", "--nodes", "2", "--cpus", "6")
    done = cluster.start("--mode", "slurm", *flags, "--hours", "1.51", "--requeue", "--experiment_dir", "mine")
    assert done.returncode == 0, done.stderr
    folder = cluster.folder / "experiments" / "mine"
    script = (folder / "job.sbatch").read_text()
    assert header(script) == [
        *("job-name=mine", "partition=gpu", "account=A-1", "qos=high", "nodes=2", "ntasks-per-node=4"),
        *("cpus-per-task=6", "gres=gpu:4", "time=1:31:00", "signal=B:USR1@120", f"output={folder}/output.txt"),
        *("open-mode=append", "requeue"),
    ]
    assert "\nsrun --cpus-per-task=6 " in script
    assert text(cluster, "sbatch.log") == f"--parsable {folder}/job.sbatch\n"
    assert done.stdout.splitlines()[1].startswith("job 7: ")
    assert (folder / "X.sh").exists() and not (folder / "launched.json").exists()
    subprocess.run(["bash", "-n", str(folder / "job.sbatch")], check=True)


def test_the_job_does_what_the_launcher_would(cluster: Place) -> None:
    name = """a b'"$(touch no);#%"""
    script = 'python3 main_continual.py --lars --data_dir "$DATA_DIR" --gpus 0,1\n'
    cluster.script(script)
    done = cluster.start("--mode", "slurm", "--set", "name=it's $HOME", "--experiment_dir", name, DATA_DIR="/d e")
    assert done.returncode == 0, done.stderr
    job = cluster.folder / "experiments" / name / "job.sbatch"
    quoted = str(job.parent).replace('"', '\\"').replace("%", "%%")
    assert f'output="{quoted}/output.txt"' in header(job.read_text())
    cluster.script("python3 main_continual.py --changed\n")  # the job has a copy
    env = os.environ | {"DATA_DIR": "/d e", "SLURM_JOB_ID": "7"}
    ran = subprocess.run(["bash", str(job)], cwd="/", env=env, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout.splitlines()[-1])
    assert seen["argv"] == [
        *("--lars", "--data_dir", "/d e", "--gpus", "0,1", "--gpus=0", "--num_nodes=1", "--accelerator=cpu"),
        *("--name=it's $HOME", "--experiment_dir", name, "--base_experiment_dir", "experiments"),
    ]
    assert seen["cwd"] == str(cluster.folder) and not (cluster.folder / "no").exists()


def test_a_dry_run_prints_the_script_and_needs_no_slurm(cluster: Place) -> None:
    shutil.rmtree(cluster.folder / "bin")
    done = cluster.start("--mode", "slurm", "--tasks", "2", "--hours", "0.01", "--dry_run")
    assert done.returncode == 0 and done.stderr == ""
    assert {"ntasks-per-node=2", "time=0:01:00", "signal=B:USR1@30", "no-requeue"} <= {*header(done.stdout)}
    assert "--set gpus=0,1 num_nodes=1 accelerator=cpu " in done.stdout
    assert cluster.experiments == []


def test_a_study_without_array_is_several_jobs(cluster: Place) -> None:
    done = cluster.start("--mode", "slurm", "--seeds", "5", "6", "--experiment_dir", "s")
    assert done.returncode == 0 and cluster.experiments == ["s-seed5", "s-seed6"]
    assert len(text(cluster, "sbatch.log").splitlines()) == 2
    compare = "python -m kaizen.compare experiments/s-seed5 experiments/s-seed6 --out experiments/s-comparison"
    assert done.stdout.splitlines()[-1] == f"when all are done: {compare}"


STUDY = (
    "--mode",
    "slurm",
    "--array",
    "--seeds",
    "5",
    "6",
    "--arm",
    "A",
    "--arm",
    "B b",
    "lr=1",
    "--experiment_dir",
    "s",
)


def test_a_study_is_one_array(cluster: Place) -> None:
    done = cluster.start(*STUDY, "--slots", "3", "--requeue")
    assert done.returncode == 0, done.stderr
    folders = [f"s-{arm}-seed{seed}" for seed in (5, 6) for arm in ("A", "B-b")]
    assert cluster.experiments == sorted([*folders, "s-array"])
    array = cluster.folder / "experiments" / "s-array"
    assert (array / "runs.txt").read_text() == "".join(f"{n}\texperiments/{f}\n" for n, f in enumerate(folders))
    assert {"array=0-3%3", f"output={array}/output-%a.txt"} <= {*header((array / "job.sbatch").read_text())}
    env = os.environ | {"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    ran = subprocess.run(["bash", str(array / "job.sbatch")], env=env, capture_output=True, text=True, timeout=60)
    argv = json.loads(ran.stdout.splitlines()[-1])["argv"]
    assert argv[4:] == [
        *("--name=B b", "--lr=1", "--seed=6", "--split_seed=6"),
        *("--experiment_dir", "s-B-b-seed6", "--base_experiment_dir", "experiments"),
    ]


def test_what_is_done_is_not_submitted_again(cluster: Place) -> None:
    cluster.stand_in(
        "import json, sys; w = sys.argv; f = f'experiments/{w[w.index(\"--experiment_dir\") + 1]}/results.json'\n"
        "json.dump({'tasks_done': 1, 'num_tasks': 1}, open(f, 'w'))\n"
    )
    assert cluster.start(*STUDY).returncode == 0
    array = cluster.folder / "experiments" / "s-array"
    for place in range(3):
        env = os.environ | {"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(place)}
        subprocess.run(["bash", str(array / "job.sbatch")], env=env, check=True, timeout=60)
    done = cluster.start(*STUDY)
    assert sum(line.endswith("is done") for line in done.stdout.splitlines()) == 3
    assert (array / "runs.txt").read_text() == "0\texperiments/s-B-b-seed6\n"


@pytest.mark.parametrize(
    ("told", "ends_with", "state", "flags", "status", "requeued"),
    [
        (signal.SIGUSR1, 143, "RUNNING", ["--requeue"], 143, True),  # before the limit
        (signal.SIGTERM, 143, "RUNNING", ["--requeue"], 143, True),
        (None, 143, "RUNNING", ["--requeue"], 143, True),  # the step alone has been told
        (signal.SIGUSR1, 143, "RUNNING", [], 143, False),
        (signal.SIGTERM, 143, "CANCELLED", ["--requeue"], 143, False),  # by the user
        (signal.SIGUSR1, 0, "RUNNING", ["--requeue"], 0, False),  # it was just done
        (None, 2, "RUNNING", ["--requeue"], 2, False),  # bad input stays bad
    ],
)
def test_a_job_that_is_asked_to_end(
    cluster: Place, told: int | None, ends_with: int, state: str, flags: list[str], status: int, requeued: bool
) -> None:
    cluster.stand_in(WAITS)
    assert cluster.start("--mode", "slurm", "--experiment_dir", "mine", *flags).returncode == 0
    output = cluster.folder / "output"
    env = os.environ | {"SLURM_JOB_ID": "7", "STATE": state, "ENDS_WITH": str(ends_with)}
    env |= {"AT_ONCE": ""} if told is None else {}
    script = str(cluster.folder / "experiments" / "mine" / "job.sbatch")
    with output.open("w") as file, subprocess.Popen(["bash", script], env=env, stdout=file) as job:
        wait_for(lambda: "ready" in output.read_text())
        if told is not None:
            job.send_signal(told)
            job.send_signal(told)  # once alone is passed on
        assert job.wait(timeout=60) == status
    assert text(cluster, "scancel.log") == ("" if told is None else "--signal=TERM 7\n")
    assert text(cluster, "requeued.log") == ("requeue 7\n" if requeued else "")
    assert output.read_text().count("saved") == 1


def test_an_element_of_an_array_is_put_back_alone(cluster: Place) -> None:
    cluster.stand_in(WAITS)
    assert cluster.start(*STUDY, "--requeue").returncode == 0
    env = os.environ | {"STATE": "RUNNING", "ENDS_WITH": "143", "AT_ONCE": ""}
    env |= {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    subprocess.run(["bash", str(cluster.folder / "experiments" / "s-array" / "job.sbatch")], env=env, timeout=60)
    assert text(cluster, "requeued.log") == "requeue 7_1\n"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--partition", "gpu"], ["--partition", "add --mode slurm"]),
        (["--requeue"], ["--requeue", "add --mode slurm"]),
        (["--array"], ["--array", "add --mode slurm"]),
        (["--mode", "pbs"], ["--mode", "pbs"]),
        (["--mode", "slurm", "--partition", "a b"], ["--partition a b", "name"]),
        (["--mode", "slurm", "--qos", "x\n#SBATCH"], ["--qos x\\n#SBATCH"]),
        (["--mode", "slurm", "--gpus", "0,1"], ["--gpus 0,1", "--gpus 4"]),
        (["--mode", "slurm", "--nodes", "0"], ["--nodes 0", "from 1"]),
        (["--mode", "slurm", "--hours", "0"], ["--hours 0", "--hours 1.5"]),
        (["--mode", "slurm", "--hours", "nan"], ["--hours nan"]),
        (["--mode", "slurm", "--gpus", "2", "--tasks", "3"], ["--tasks 3", "--gpus 2"]),
        (["--mode", "slurm", "--slots", "2"], ["--slots 2", "--array"]),
        (["--mode", "slurm", "--set", "gpus=0,1"], ["--set gpus=0,1", "--gpus N"]),
        (["--mode", "slurm", "--arm", "A", "num_nodes=2"], ["num_nodes=2", "--nodes N"]),
        (["--mode", "slurm", "--experiment_dir", "a\\b"], ["--experiment_dir", "rename"]),
    ],
)
def test_a_mistake_is_one_line(cluster: Place, flags: list[str], words: list[str]) -> None:
    done = cluster.start(*flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words), done.stderr
    assert cluster.experiments == [] and text(cluster, "sbatch.log") == ""


@pytest.mark.parametrize("flags", [["--experiment_dir", "mine"], STUDY])
def test_a_refused_job_is_one_line_and_leaves_nothing(cluster: Place, flags: list[str]) -> None:
    done = cluster.start("--mode", "slurm", *flags, REFUSE="invalid partition specified: x")
    assert (done.returncode, done.stderr) == (2, "error: --mode slurm: sbatch: error: invalid partition specified: x\n")
    assert cluster.experiments == []


def test_where_slurm_is_not(cluster: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(cluster.folder))
    done = cluster.start("--mode", "slurm")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "there is no sbatch here" in done.stderr
    assert cluster.experiments == []


def test_another_script_than_the_experiment_began_with(cluster: Place) -> None:
    assert cluster.start("--mode", "slurm", "--experiment_dir", "mine").returncode == 0
    cluster.script("python3 main_continual.py --changed\n")
    done = cluster.start("--mode", "slurm", "--experiment_dir", "mine")
    assert done.returncode == 2 and "mine/X.sh, with which the experiment began" in done.stderr


def test_one_of_several_processes_speaks(cluster: Place) -> None:
    cluster.stand_in(STAND_IN)
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": "7", "SLURM_NODEID": "0"}
    step |= {"SLURM_STEP_NODELIST": "a", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_LOCALID": "0"}
    lines = [len(cluster.start("--experiment_dir", "x", **step, SLURM_PROCID=n).stdout.splitlines()) for n in "01"]
    assert lines == [2, 1]


@pytest.mark.parametrize(
    ("value", "read"), [("a-b.c/%a", "a-b.c/%a"), ("a b#", '"a b#"'), ("a'\"", '"a\'\\""'), ("é", "é")]
)
def test_values_of_the_header(value: str, read: str) -> None:
    assert slurm.quoted(value) == read
