"""Memory that does not suffice is told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import args_of

from kaizen import task
from kaizen.args import UsageError
from kaizen.cli import flags_of
from kaizen.devices import memory_told
from kaizen.experiment import Experiment
from kaizen.plan import open_data

pytestmark = pytest.mark.usefixtures("tiny")

CPU = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes. Error code 12"
CUDA = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 10 GiB of which 1 GiB is free."
FAULTS = [
    (RuntimeError(CPU), " (8 bytes more)"),
    (torch.OutOfMemoryError(CUDA), " (20.00 MiB more)"),
    (MemoryError(), ""),
]


@pytest.mark.parametrize(("fault", "more"), FAULTS)
@pytest.mark.parametrize(("recompute", "cure"), [("True", ""), ("False", "--recompute True, ")])
def test_a_lack_of_memory_is_one_line(fault: Exception, more: str, recompute: str, cure: str) -> None:
    with pytest.raises(UsageError) as told, memory_told(args_of("--batch_size", "32", "--recompute", recompute)):
        raise fault
    message = str(told.value)
    assert message.startswith(f"--batch_size 32: there is not enough memory for it and the networks{more}; give a")
    assert f"a smaller one, {cure}or less" in message and "\n" not in message


@pytest.mark.parametrize("fault", [RuntimeError("shapes do not match"), UsageError("--x: no"), ValueError("x")])
def test_other_errors_go_their_way(fault: Exception) -> None:
    with pytest.raises(type(fault)) as found, memory_told(args_of()):
        raise fault
    assert found.value is fault


def test_a_task_that_finds_no_memory_ends_as_bad_input_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = args_of("--queue_size", "1000000000000", "--num_tasks", "2", method="mocov2plus")
    data = open_data(args)
    experiment = Experiment.start(tmp_path / "run", flags_of(args), data.split.classes, data.task_names)
    assert task.main([str(experiment.folder), "0"]) == 2
    assert capsys.readouterr().err.startswith(f"error: --batch_size {args.batch_size}: there is not enough memory")
