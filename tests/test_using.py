"""The examples of docs/using.md run as they are written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from helpers import command_line, run_experiment
from PIL import Image

from kaizen import predict, task

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "using.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("tiny")
def test_the_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(task, "draw_plots", lambda results, folder: None)
    monkeypatch.chdir(tmp_path)
    run_experiment(command_line(), tmp_path / "experiments" / "NAME")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (300, 200), "white").save("cat.jpg")
    Image.new("L", (20, 30), 0).save("photos/dog.png")
    capsys.readouterr()
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(example, "docs/using.md", "exec"), {})
    told = capsys.readouterr().out
    assert "torch.Size([1, 8])" in told and "'0', '1', '2'" in told

    (line,) = re.findall(r"python -m kaizen\.predict (.*)", PAGE)
    assert predict.main(shlex.split(line)) == 0
    assert (tmp_path / "predictions.csv").read_text().startswith("path,label,probability,label_2,")


def test_the_page_is_short() -> None:
    assert len(PAGE.splitlines()) <= 80
