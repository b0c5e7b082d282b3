"""The example of a sweep: what WandB's agent makes of it is a command that works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import main_continual
from kaizen.bash_script import Script, parse_script
from kaizen.cli import flags_of, read_args

RECIPES = Path(__file__).resolve().parent.parent / "bash_files"
SWEPT = {"lr", "classifier_lr", "classifier_distill_lamb"}


def trial(sweep: dict[str, Any]) -> list[str]:
    """The flags of a trial, spelled as the agent does: in alphabetical order, `--flag=value`."""
    values = {
        name: about["value"] if "value" in about else about["values"][0] if "values" in about else about["max"]
        for name, about in sweep["parameters"].items()
    }
    return [f"--{name}={value}" for name, value in sorted(values.items())]


def test_a_trial_of_the_sweep_is_the_quickstart_but_for_what_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = yaml.safe_load((RECIPES / "wandb_sweep_digits.yaml").read_text())
    assert sweep["command"] == ["${env}", "${interpreter}", "${program}", "${args}"]
    assert sweep["metric"] == {"name": "continual/classifier/final_accuracy", "goal": "maximize"}
    assert {name for name, about in sweep["parameters"].items() if "value" not in about} == SWEPT

    script = "quickstart_digits.sh"
    words, _ = parse_script(Script(script, (RECIPES / script).read_text()), {})
    swept, quickstart = flags_of(read_args(trial(sweep))), flags_of(read_args(words))
    differing = {name for name in swept if swept[name] != quickstart.get(name)}
    assert differing <= SWEPT | {"name", "wandb", "held_back", "online_evaluation", "online_eval_batchnorm"} | {
        "momentum_classifier"
    }

    monkeypatch.chdir(tmp_path)
    assert main_continual.main([*trial(sweep), "--dry_run"]) == 0
    assert "task 4" in capsys.readouterr().out
