"""The quick part of the search for inputs that end in anything but one clear line; `run.py` looks longer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checks import Folder, check_command_line, check_script
from generators import command_lines, damaged_bytes, damaged_json, scripts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

quick = settings(
    max_examples=150, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


@quick
@given(command_lines())
def test_command_lines(argv: list[str]) -> None:
    check_command_line(argv)


@quick
@given(scripts())
def test_scripts(text: str) -> None:
    check_script(text)


@pytest.mark.usefixtures("tiny")
def test_files(tmp_path: Path) -> None:
    folder = Folder(tmp_path)

    @quick
    @given(st.data())
    def search(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(folder.whole)))
        folder.check_json(path, data.draw(damaged_json(json.loads(folder.whole[path]))))

    search()


@pytest.mark.usefixtures("tiny")
def test_checkpoints(tmp_path: Path) -> None:
    folder = Folder(tmp_path)

    @quick
    @given(damaged_bytes(folder.checkpoint))
    def search(content: bytes) -> None:
        folder.check_checkpoint(content)

    search()
