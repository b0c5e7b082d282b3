"""What an offline run of WandB has written down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32768  # bytes; a record that does not fit into the rest of a block goes on in the next
HEADER = 7  # of the file, and of each piece: checksum (4), length (2), kind (1)


@dataclass
class OfflineRun:
    """One folder `offline-run-*`."""

    about: Any  # wandb.proto.wandb_internal_pb2.RunRecord
    config: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    axes: dict[str, str] = field(default_factory=dict)  # section -> step metric
    hidden: set[str] = field(default_factory=set)
    artifacts: list[str] = field(default_factory=list)  # types
    summary: dict[str, Any] = field(default_factory=dict)

    def values(self, name: str) -> list[Any]:
        """Of all rows that have one."""
        return [row[name] for row in self.history if name in row]

    def names(self) -> set[str]:
        """Of everything logged, without WandB's own."""
        return {name for row in self.history for name in row if not name.startswith("_")}


def offline_runs(folder: Path) -> list[OfflineRun]:
    """All below `folder`/wandb, from the oldest; they must be finished."""
    import wandb

    wandb.teardown()  # the end of WandB's own process, which writes the files
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    return [read_run(path) for path in files]


def read_run(path: Path) -> OfflineRun:
    """One file `run-*.wandb`."""
    from wandb.proto.wandb_internal_pb2 import Record

    records = []
    for data in _records(path.read_bytes()):
        records.append(Record())
        records[-1].ParseFromString(data)
    about = next(record.run for record in records if record.HasField("run"))
    run = OfflineRun(about, {item.key: json.loads(item.value_json) for item in about.config.update})
    for record in records:
        if record.HasField("history"):
            row: dict[str, Any] = {}
            for item in record.history.item:
                name, *inner = item.nested_key or [item.key]
                if inner:  # of a picture or a table
                    row.setdefault(name, {})["/".join(inner)] = json.loads(item.value_json)
                else:
                    row[name] = json.loads(item.value_json)
            run.history.append(row)
        elif record.HasField("summary"):
            run.summary |= {
                "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.summary.update
            }
        elif record.HasField("metric"):
            name = record.metric.glob_name or record.metric.name
            if record.metric.step_metric:
                run.axes[name] = record.metric.step_metric
            if record.metric.options.hidden:
                run.hidden.add(name)
        elif record.HasField("artifact"):
            run.artifacts.append(record.artifact.type)
    return run


def _records(data: bytes) -> Iterator[bytes]:
    """LevelDB's log format: records in pieces (1 whole, 2 first, 3 middle, 4 last) that fill blocks."""
    place, record = HEADER, b""
    while place + HEADER <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):
            yield record
            record = b""
