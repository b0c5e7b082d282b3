"""What README.md says holds: its examples run as they are written, the files that it names are there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def examples(language: str) -> list[str]:
    section = README.partition("## Adding things")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def install(block: str, project: Path) -> str:
    """Put a block where its first line says; returns the file's name."""
    place = block.partition("\n")[0]
    (name,) = re.findall(r"kaizen/[\w/]+\.py", place)
    path = project / name
    if place.startswith("# at the end of"):
        path.write_text(path.read_text(encoding="utf-8") + "\n\n" + block, encoding="utf-8")
    else:
        assert not path.exists()
        path.write_text(block, encoding="utf-8")
    return name


def write_arrays(path: Path) -> None:
    """Bright and dark images of four classes."""
    noise = np.random.default_rng(0)
    content = {}
    for part, count in (("train", 20), ("test", 4)):
        labels = np.repeat(np.arange(4), count)
        levels = noise.integers(0, 60, (len(labels), 16, 16, 3)) + 60 * labels[:, None, None, None]
        content |= {f"{part}_images": levels.astype(np.uint8), f"{part}_labels": labels}
    np.savez(path, **content)


@pytest.mark.slow
def test_the_worked_examples(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for name in ("kaizen", "main_continual.py"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, project)
    files = [install(block, project) for block in examples("python")]
    assert len(files) == 5 and sum(name.startswith("kaizen/methods/") for name in files) == 2

    write_arrays(project / "x.npz")
    (command,) = examples("bash")
    python, *words = shlex.split(command.replace("\\\n", " "))
    assert python == "python"
    run = subprocess.run(
        [sys.executable, *words, "--experiment_dir", "run"], cwd=project, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    results = json.loads((project / "experiments" / "run" / "results.json").read_text())
    assert results["flags"]["uniform_weight"] == 0.5 and results["flags"]["feature_extractor_distill_lamb"] == 2
    matrix = results["heads"]["classifier"]["accuracy_matrix"]
    assert results["heads"]["classifier"]["learning_accuracy"] == pytest.approx((matrix[0][0] + matrix[1][1]) / 2)
    logged = (project / "experiments" / "run" / "task1" / "metrics.csv").read_text().partition("\n")[0]
    assert "train/distill_features" in logged
    assert "learning" in run.stdout


def test_the_files_that_it_names_are_there() -> None:
    for name in re.findall(r"`((?:kaizen|tests|imgs|bash_files)/[\w./-]*)`", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\((imgs/[^)]+)\)", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`(\w+\.sh)`", README):
        assert (ROOT / name).exists() or (ROOT / "bash_files" / name).exists() or name in ("X.sh",), name
