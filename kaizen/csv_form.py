"""Results as CSV in long form."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from kaizen.metrics import METRICS


def long_form(results: dict[str, Any]) -> str:
    """Return the results in long form, one value a line; an undefined metric has an empty value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("head", "kind", "trained_task", "tested_task", "value"))
    for name, head in results["heads"].items():
        writer.writerows((name, *row) for row in _rows(head))
    return text.getvalue()


def _rows(head: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    for trained, row in enumerate(head["accuracy_matrix"]):
        for tested, accuracy in enumerate(row):
            yield "accuracy", trained, tested, accuracy
    for tested, accuracy in enumerate(head["baseline"] or ()):
        yield "baseline", "", tested, accuracy
    for metric in METRICS:
        yield metric, "", "", head[metric]
