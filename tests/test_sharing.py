"""Training in several processes: as one alone does it, through stops and deaths, however they are started."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import args_of
from torture import processes_of

import kaizen.task
import main_continual
from kaizen.cli import flags_of, read_args
from kaizen.devices import device_count, gpu_indices
from kaizen.experiment import Experiment
from kaizen.files import read_json
from kaizen.meeting import Meeting, free_port
from kaizen.plan import open_data
from kaizen.processes import Seat, seat
from main_continual import ROOT

DIGITS = [
    *("--dataset", "digits", "--size", "8", "--encoder", "resnet9", "--encoder_width", "0.25"),
    *("--method", "mocov2plus", "--proj_hidden_dim", "16", "--output_dim", "8", "--queue_size", "64"),
    *("--distiller", "contrastive", "--feature_extractor_distill_proj_hidden_dim", "16"),
    *("--distiller_classifier", "soft_label", "--classifier_distill_proj_hidden_dim", "16"),
    *("--replay", "--replay_proportion", "0.05", "--classifier_lr", "0.05"),
    *("--online_evaluation", "--online_eval_batchnorm", "frozen", "--log_every_n_steps", "1"),
]
TWO_TASKS = [*DIGITS, "--num_tasks", "2"]
# From step to step a difference in the last bit grows: in float32, at a rate of .001, one test image in 175 gets
# another label. In float64 it stays small enough at the rates of real runs.
SHORT = [*TWO_TASKS, "--max_epochs", "1", "--lr", "0.0001"]
REAL = [*TWO_TASKS, "--max_epochs", "3", "--lr", "0.4", "--precision", "64"]
LONG = [
    *DIGITS,
    "--num_tasks",
    "1",
    "--max_epochs",
    "3",
    "--lr",
    "0.3",
    "--batch_size",
    "32",
    "--replay_batch_size",
    "4",
]
QUIET = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
Started = subprocess.Popen[str]
Start = Callable[..., Started]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start programs in the folder of a test."""
    with starting(tmp_path) as begin:
        yield begin


@contextmanager
def starting(place: Path) -> Iterator[Start]:
    """Start programs in a folder; what still runs at the end is ended."""
    running: list[Started] = []

    def begin(*command: str, **environment: str) -> Started:
        surroundings = os.environ | QUIET | environment
        pipe = subprocess.PIPE
        running.append(subprocess.Popen(command, cwd=place, env=surroundings, stdout=pipe, stderr=pipe, text=True))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def train(start: Start, *flags: str, before: tuple[str, ...] = (sys.executable,), **environment: str) -> Started:
    return start(*before, str(ROOT / "main_continual.py"), *flags, **environment)


def ended(process: Started) -> tuple[int, str, str]:
    """Exit status, output, errors."""
    out, error = process.communicate(timeout=200)
    return process.returncode, out, error


def logged(folder: Path) -> list[dict[str, float]]:
    """The rows of all tasks."""
    rows = []
    for path in sorted(folder.glob("task*/metrics.csv")):
        with path.open() as file:
            rows += [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return rows


def matrices(folder: Path) -> dict[str, Any]:
    return {name: head["accuracy_matrix"] for name, head in read_json(folder / "results.json")["heads"].items()}


def wait_for(found: Callable[[], Any], process: Started) -> Any:
    """What is found sooner or later, while the process runs."""
    until = time.monotonic() + 100
    while not (value := found()):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    return value


def forked(folder: Path, flags: Sequence[str], world: int) -> None:
    """Train an experiment in forked processes, which have their libraries from the start."""
    args = read_args([*flags])
    data = open_data(args)
    Experiment.start(folder, flags_of(args), data.split.classes, data.task_names)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["kaizen.task"])
    for task in range(args.num_tasks):  # the next one needs what the leading process writes last
        port = free_port()
        ranks = [processes.Process(target=take_part, args=(folder, task, rank, world, port)) for rank in range(world)]
        for process in ranks:
            process.start()
        try:
            for process in ranks:
                process.join(timeout=200)
                assert process.exitcode == 0
        finally:
            for process in ranks:
                process.kill()


def take_part(folder: Path, task: int, rank: int, world: int, port: int) -> None:
    """One process of a task, as torchrun has it."""
    torch.set_num_threads(1)
    if world > 1:
        os.environ |= Seat(rank, world, rank, world, 0, "127.0.0.1", port).environment(port)
    sys.exit(kaizen.task.main([str(folder), str(task)]))


HALF = ("--batch_size", "96", "--replay_batch_size", "12", "--sync_batchnorm")
SAME_BATCHES = {
    1: ("--batch_size", "192", "--replay_batch_size", "24"),
    2: (*HALF, "--gpus", "0,1"),
    3: ("--batch_size", "64", "--replay_batch_size", "8", "--sync_batchnorm", "--gpus", "0,1,2"),
}


@pytest.mark.slow
@pytest.mark.long
def test_several_processes_and_nodes_end_where_one_process_does(tmp_path: Path, start: Start) -> None:
    place = ("--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", str(free_port()))
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", *place, "--node_rank")
    both = [train(start, *SHORT, *HALF, "--experiment_dir", "nodes", before=(*torchrun, rank)) for rank in "01"]
    (status, out, _), (other, said, _) = map(ended, both)
    assert (status, other, said) == (0, 0, "")
    assert out.count("task 0 epoch 1/1") == out.count("task 1 epoch 1/1") == 1  # one process speaks

    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    by_hand = (*SHORT, *HALF, "--num_nodes", "2", "--experiment_dir", "by_hand")
    both = [train(start, *by_hand, **meeting, NODE_RANK=rank) for rank in "01"]
    (status, out, error), (other, said, _) = map(ended, both)
    assert (status, error, other, said) == (0, "", 0, "")
    assert "2 devices share each step of 2 x 96 images" in out

    folders = {world: tmp_path / f"of{world}" for world in SAME_BATCHES}
    for world, folder in folders.items():
        forked(folder, [*SHORT, *SAME_BATCHES[world]], world)
    started, alone = [tmp_path / "experiments" / name for name in ("nodes", "by_hand")], logged(folders[1])
    for nodes in started:
        assert logged(nodes) == logged(folders[2])  # however processes are started, to the bit
    for folder in (folders[2], folders[3], *started):
        assert matrices(folder) == matrices(folders[1])
        rows = logged(folder)
        assert [row.keys() for row in rows] == [row.keys() for row in alone]
        assert rows[0] == pytest.approx(alone[0], rel=1e-5, abs=1e-6)
        for row, expected in zip(rows, alone, strict=True):  # rounding adds up from step to step
            terms = [name for name in row if "_acc" not in name]
            assert [row[name] for name in terms] == pytest.approx([expected[name] for name in terms], rel=1e-3)


@pytest.mark.slow
@pytest.mark.long
def test_at_the_rate_of_a_real_run_processes_end_where_one_does(tmp_path: Path) -> None:
    folders = {world: tmp_path / f"of{world}" for world in SAME_BATCHES}
    for world, folder in folders.items():
        forked(folder, [*REAL, *SAME_BATCHES[world]], world)
    alone = logged(folders[1])
    for world in (2, 3):
        assert matrices(folders[world]) == matrices(folders[1])
        for row, expected in zip(logged(folders[world]), alone, strict=True):
            assert row == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
@pytest.mark.long
def test_a_stop_leaves_the_same_result(tmp_path: Path, start: Start) -> None:
    flags = (*LONG, "--gpus", "0,1", "--checkpoint_every_n_steps", "3")
    whole, run = tmp_path / "whole", tmp_path / "experiments" / "run"
    stopped = train(start, *flags, "--experiment_dir", "run")
    forked(whole, flags, 2)
    wait_for(lambda: [*(run / "task0" / "progress").glob("step*.ckpt")], stopped)
    stopped.terminate()
    assert ended(stopped)[0] == 143
    assert processes_of(run) == []
    (logged_until,) = {len(logged(run))} - {len(logged(whole))}
    assert logged_until > 0

    status, out, error = ended(train(start, *flags, "--experiment_dir", "run"))
    assert (status, error) == (0, "")
    assert "2 devices share each step of 2 x 32 images" in out
    assert matrices(run) == matrices(whole)
    assert logged(run) == logged(whole)
    again = train(start, *LONG, "--dry_run", "--experiment_dir", "run")
    assert "1 devices share the batches of 2 x 32 images that the experiment began with" in ended(again)[1]


def test_machines_meet_and_hear_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}.items():
        monkeypatch.setenv(name, value)
    meetings = []
    for rank in "01":
        monkeypatch.setenv("NODE_RANK", rank)
        meetings.append(Meeting.of_nodes(2))
    first, second = meetings
    place = first.begin("experiments/run", 3, {"A": "b"})
    said = second.hear()
    assert (said["folder"], said["task"], said["environment"]) == ("experiments/run", 3, {"A": "b"})
    assert second.environment(said["port"]) == place | {"NODE_RANK": "1"}
    with ThreadPoolExecutor() as threads:
        end = threads.submit(first.end, 5)
        assert second.hear() == {"status": 5}
        assert not end.done()  # it stays until all have heard
        second.leave()
        end.result(timeout=5)


@pytest.mark.parametrize("rank", ["2", "", "x"])
def test_a_machine_without_a_place(
    rank: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "NODE_RANK": rank}.items():
        monkeypatch.setenv(name, value)
    assert main_continual.main([*SHORT, "--num_nodes", "2"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "NODE_RANK to a number from 0 to 1" in error


def test_the_place_among_processes() -> None:
    assert seat({}) is None
    torchrun = {
        **{"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
        **{"GROUP_RANK": "1", "MASTER_ADDR": "first", "MASTER_PORT": "29500", "TORCHELASTIC_USE_AGENT_STORE": "True"},
    }
    assert seat(torchrun) == Seat(3, 4, 1, 2, 1, "first", 29500, served=True, start="0")
    assert seat(torchrun | {"WORLD_SIZE": "1", "RANK": "0"}) is None
    srun = {
        **{"SLURM_STEP_ID": "0", "SLURM_PROCID": "4", "SLURM_STEP_NUM_TASKS": "5", "SLURM_LOCALID": "0"},
        **{"SLURM_NODEID": "2", "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "gpu[03-04,9],other"},
        **{"SLURM_STEP_TASKS_PER_NODE": "2(x2),1"},
    }
    assert seat(srun) == Seat(4, 5, 0, 1, 2, "gpu03", 15007)
    again = seat(Seat(1, 2, 0, 1, 1, "first", 1).environment(5))
    assert again == Seat(1, 2, 0, 1, 1, "first", 5)


def test_devices_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("--encoder", "resnet9")
    assert device_count(args_of(*flags, "--gpus", "0,3")) == 2
    assert device_count(args_of(*flags, "--gpus", "0,3", "--num_nodes", "4")) == 8
    place = Seat(1, 6, 1, 3, 0, "first", 1).environment(5)
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    assert (device_count(args_of(*flags)), gpu_indices(args_of(*flags))) == (6, [0, 1, 2])
    with pytest.raises(Exception, match="has 3 processes of the run"):
        args_of(*flags, "--gpus", "0,1")


def test_what_is_written_of_devices_can_be_read_again(tmp_path: Path, start: Start) -> None:
    status, out, _ = ended(train(start, *SHORT, "--gpus", "0,1", "--batch_size", "64", "--dry_run"))
    assert status == 0
    assert "2 devices share each step of 2 x 64 images" in out
    too_many = ended(train(start, *SHORT, "--gpus", "0,1", "--batch_size", "512"))
    assert too_many[0] == 2
    assert "--batch_size 512 x 2 devices: task 1 has only 715 training images; use at most 357" in too_many[2]
    assert json.dumps([*tmp_path.iterdir()]) == "[]"
