"""Logged values in a file that a stopped run goes on with."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger

from kaizen.files import atomic_path


class MetricsFile(Logger):
    """Logged values as rows of a CSV file, on the disk as soon as they are logged; empty where a row has no value.

    Args:
        path: of the file.
        keep: rows of an earlier process that stay, those that were logged before what training goes on from;
            None for all.
    """

    name, version = "", ""

    def __init__(self, path: Path, keep: int | None) -> None:
        super().__init__()
        self.path, self.rows = path, list[dict[str, Any]]()
        if keep != 0 and path.exists():
            with path.open(newline="") as file:
                self.rows = list(csv.DictReader(file))[:keep]
        self.columns = list(self.rows[0]) if self.rows else ["step"]
        self._write_all()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """One row."""
        row = {"step": step, **metrics}
        self.rows.append(row)
        if new := row.keys() - set(self.columns):
            self.columns = sorted([*self.columns, *new])
            self._write_all()
        else:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(row)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """They stand in experiment.json."""

    def _write_all(self) -> None:
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)


def last_step(path: Path) -> int:
    """The step of the last row, where the task ended; 0 without such a file."""
    if not path.exists():
        return 0
    with path.open(newline="") as file:
        return max((int(row["step"]) for row in csv.DictReader(file)), default=0)
