"""Finished runs as CSV, a row for each run and head, so that a study outlives its folders and can grow from pieces."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kaizen.args import UsageError, printable, shorten
from kaizen.files import parse_json
from kaizen.metrics import METRICS, check_row
from kaizen.runs import IMAGES, SEEDS, Head, Run, checked_seeds, identifying, in_utc

# What a row is read back from; the group's label and the metrics, which follow from the rest, are there for people.
OF_A_RUN = ("experiment", "name", *SEEDS, "started", "flags", "task_names")
OF_A_HEAD = ("head", "accuracy_matrix", "baseline")
LARGEST_CELL = 2**24  # characters, enough for the matrix of 800 tasks


def rows_text(runs: Iterable[tuple[str, Run]]) -> str:
    """Return (group's label, run) for each run as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("group", "experiment", "name", *SEEDS, "head", *METRICS, "started", "task_names",
                     "accuracy_matrix", "baseline", "flags", "images"))  # fmt: skip
    for label, run in runs:
        for name, head in run.heads.items():
            flags = {flag: value for flag, value in run.flags.items() if flag != IMAGES}
            lists = (run.task_names, head.matrix, head.baseline, flags)
            writer.writerow((label, run.experiment, run.name, *run.seeds, name, *head.metrics.values(), run.started,
                             *(json.dumps(one, ensure_ascii=False) for one in lists), run.images))  # fmt: skip
    return text.getvalue()


def read_rows(path: Path) -> list[Run]:
    """Read what `rows_text` made.

    Raises:
        UsageError: naming the file and the row, where it cannot be read or says what cannot be.
    """
    usual = csv.field_size_limit(LARGEST_CELL)  # which every reader in this process goes by
    runs: dict[tuple[str, ...], Run] = {}
    row_number = 1
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True)
        if missing := [name for name in (*OF_A_RUN, *OF_A_HEAD) if name not in (reader.fieldnames or ())]:
            raise ValueError(f"lacks the columns {', '.join(missing)}")
        row_number = 2
        for row in reader:
            _add(runs, row)
            row_number += 1
    except (ValueError, csv.Error) as error:
        raise UsageError(
            f"{printable(str(path))} row {row_number}: {printable(shorten(str(error), 200))}; "
            "restore the file, or name the folders instead"
        ) from None
    finally:
        csv.field_size_limit(usual)
    if not runs:
        raise UsageError(f"{printable(str(path))}: has no rows; leave it out")
    return list(runs.values())


def _add(runs: dict[tuple[str, ...], Run], row: dict[str, Any]) -> None:
    """Add a row's head to its run, which the first of its rows makes. Raises ValueError where the row is damaged."""
    if None in row or None in row.values():
        raise ValueError("has another number of cells than the first row")
    key = (*(row[name] for name in OF_A_RUN), row.get("images", ""))  # which files from before they were kept lack
    if key not in runs:
        runs[key] = _run_of(row)
    run = runs[key]
    head = printable(row["head"])
    if not head or head in run.heads:
        raise ValueError(f"head {head!a} is there twice, or has no name")
    run.heads[head] = _head_of(row, len(run.task_names))


def _run_of(row: dict[str, str]) -> Run:
    seeds = checked_seeds({name: _parsed(row, name) for name in SEEDS})
    flags, task_names = _parsed(row, "flags"), _parsed(row, "task_names")
    if not isinstance(flags, dict):
        raise ValueError("flags name no values")
    if not isinstance(task_names, list) or not task_names or not all(isinstance(name, str) for name in task_names):
        raise ValueError("task_names is no list of names")
    names = [printable(name) for name in task_names]
    started = in_utc(row["started"])
    experiment, name = printable(row["experiment"]), printable(row["name"])
    return Run(experiment, name, identifying(flags), seeds, started, names, {}, printable(row.get("images", "")))


def _head_of(row: dict[str, str], num_tasks: int) -> Head:
    matrix, baseline = _parsed(row, "accuracy_matrix"), _parsed(row, "baseline")
    if not isinstance(matrix, list) or len(matrix) != num_tasks:
        raise ValueError(f"accuracy_matrix has not one row for each of {num_tasks} tasks")
    for name, line in (*((f"accuracy_matrix[{i}]", line) for i, line in enumerate(matrix)), ("baseline", baseline)):
        if name == "baseline" and line is None:
            continue
        if not isinstance(line, list):
            raise ValueError(f"{name} is no list of accuracies")
        check_row(line, num_tasks, name)
    return Head(matrix, baseline)


def _parsed(row: dict[str, str], name: str) -> Any:
    try:
        return parse_json(row[name])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
