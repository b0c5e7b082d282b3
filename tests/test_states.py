from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from kaizen.files import read_json
from kaizen.states import TaskState, begin, end, read_state, settle


@pytest.mark.parametrize(
    ("status", "state", "signal"),
    [
        *((0, "done", None), (1, "failed", None), (2, "failed", None), (128, "failed", None), (255, "failed", None)),
        *((130, "interrupted", "SIGINT"), (143, "interrupted", "SIGTERM"), (137, "interrupted", "SIGKILL")),
        *((139, "interrupted", "SIGSEGV"), (129, "interrupted", "SIGHUP")),
    ],
)
def test_how_a_task_ended(tmp_path: Path, status: int, state: str, signal: str | None) -> None:
    end(tmp_path, begin(tmp_path, 3, {"torch": "2"}), status)
    content = read_json(tmp_path / "state.json")
    moments = [datetime.fromisoformat(content[name]) for name in ("start", "end")]
    assert all(moment.utcoffset() is not None for moment in moments)
    assert content["seconds"] == (moments[1] - moments[0]).total_seconds() >= 0
    assert {name: content[name] for name in ("state", "exit_status", "signal", "starts", "max_epochs", "versions")} == {
        **{"state": state, "exit_status": status, "signal": signal},
        **{"starts": 1, "max_epochs": 3, "versions": {"torch": "2"}},
    }


def test_starts_are_counted_and_a_new_one_forgets_the_end_before(tmp_path: Path) -> None:
    end(tmp_path, begin(tmp_path, 3, {}), 1)
    begin(tmp_path, 3, {})
    state = begin(tmp_path, 3, {})
    assert (state.state, state.starts, state.end, state.exit_status) == ("running", 3, None, None)
    assert read_state(tmp_path) == state


DAMAGED = [
    *(b"", b"{", b"[]", b"3", b"{}", b"\xff\xfe", b'{"state": "done"}', b"[" * 100_000),
    b'{"state": "odd", "max_epochs": 1, "exit_status": null, "signal": null, "start": null, "end": null, '
    b'"seconds": null, "starts": 1, "versions": {}}',
    b'{"state": "done", "max_epochs": 1, "exit_status": null, "signal": null, "start": "noon", "end": null, '
    b'"seconds": null, "starts": 1, "versions": {}}',
    b'{"state": [], "max_epochs": "1", "exit_status": null, "signal": null, "start": 3, "end": null, '
    b'"seconds": null, "starts": 1, "versions": {}}',
    b'{"state": "done", "max_epochs": 1, "exit_status": null, "signal": null, "start": null, "end": null, '
    b'"seconds": "x", "starts": 1, "versions": {}}',
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_state_is_told_from_a_missing_one(tmp_path: Path, content: bytes) -> None:
    assert read_state(tmp_path) is None
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(ValueError):
        read_state(tmp_path)
    assert begin(tmp_path, 1, {}).starts == 1  # and is no hindrance


def test_a_task_that_is_through_says_so_whoever_was_killed(tmp_path: Path) -> None:
    state = begin(tmp_path, 3, {})
    settle(tmp_path, 5)
    assert read_state(tmp_path) == TaskState("done", 3, start=state.start, starts=1, versions={})
    before = (tmp_path / "state.json").stat().st_mtime_ns
    settle(tmp_path, 5)
    assert (tmp_path / "state.json").stat().st_mtime_ns == before
