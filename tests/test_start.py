"""A process imports what it needs: libraries that take long to load stay out until they are used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NEVER_AT_START = {"wandb", "sklearn", "pandas", "umap"}
# Lightning's torchmetrics loads matplotlib, scipy and torchvision wherever they are installed, so only what does
# without Lightning does without them.
WITH_LIGHTNING = {"pytorch_lightning", "lightning_fabric", "torchmetrics", "torchvision", "matplotlib", "scipy"}
DRAWING = "matplotlib.backends.backend_agg"
DIGITS = [
    *("--dataset", "digits", "--size", "8", "--num_tasks", "2", "--max_epochs", "1", "--batch_size", "64"),
    *("--method", "simclr", "--proj_hidden_dim", "8", "--output_dim", "6"),
    *("--encoder", "resnet9", "--encoder_width", "0.25"),
]


def modules_after(code: str) -> set[str]:
    """Names of all modules that a new process has loaded after some code."""
    script = f"import sys\n{code}\nprint('loaded:', *sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert found.returncode == 0, found.stderr
    return set(found.stdout.rpartition("loaded:")[2].split())


@pytest.mark.parametrize("module", ["kaizen.task", "kaizen.evaluate"])
def test_a_process_begins_without_what_it_may_not_need(module: str) -> None:
    loaded = modules_after(f"import {module}")
    assert module in loaded
    assert loaded & NEVER_AT_START == set()


@pytest.mark.parametrize("module", ["kaizen", "kaizen.args", "kaizen.metrics"])
def test_the_package_itself_loads_nothing(module: str) -> None:
    loaded = modules_after(f"import {module}\nassert callable(sys.modules['kaizen'].load)")
    assert loaded & ({"torch", "numpy", "PIL"} | WITH_LIGHTNING | NEVER_AT_START) == set()


def test_a_model_is_used_without_lightning() -> None:
    loaded = modules_after("import kaizen.trained, kaizen.predict, kaizen.export")
    assert loaded & (WITH_LIGHTNING | NEVER_AT_START | {"onnx", "onnxruntime"}) == set()


@pytest.mark.parametrize(("argv", "status"), [(["--help"], 0), (["--bacth_size", "3"], 2)])
def test_flags_are_answered_without_lightning(argv: list[str], status: int) -> None:
    code = f"""
import main_continual
try:
    status = main_continual.main({argv})
except SystemExit as end:
    status = end.code
assert status == {status}, status
"""
    loaded = modules_after(code)
    assert "kaizen.methods" in loaded
    assert loaded & (WITH_LIGHTNING | NEVER_AT_START | {"lightly.loss"}) == set()


def test_a_run_is_checked_without_lightning() -> None:
    loaded = modules_after(f"import main_continual\nassert main_continual.main({[*DIGITS, '--dry_run']}) == 0")
    assert "sklearn" in loaded  # which brings the digits, and scipy with them
    assert loaded & (WITH_LIGHTNING | {"wandb", "lightly.loss"}) == {"scipy"}


@pytest.mark.slow
def test_a_run_loads_no_wandb_and_draws_only_at_its_end(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from kaizen.cli import flags_of, read_args
from kaizen.experiment import Experiment
from kaizen.plan import open_data
from kaizen.task import run_task

args = read_args({DIGITS})
data = open_data(args)
experiment = Experiment.start(Path({str(tmp_path)!r}) / "run", flags_of(args), data.split.classes, data.task_names)
run_task(experiment, 0)
assert {DRAWING!r} not in sys.modules
run_task(experiment, 1)
"""
    loaded = modules_after(code)
    assert DRAWING in loaded
    assert "wandb" not in loaded
