"""The sample views of a task, cut from its picture: one cell for each image and view, with the class beside it."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaizen.files import read_json
from kaizen.folders import task_folder
from kaizen.page.html import Html, grid, image, paragraph, scrolling, tag

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_PNG = 3000  # bytes; larger cells, of photos, are stored as JPEG
MOST_BYTES = 3_000_000  # of all pictures of a page; later tasks go without


def sample_views(folder: Path, task_names: Sequence[str]) -> list[Html]:
    """A table for each task that has sample views, as far as there is room in a page."""
    tables, size, left_out = list[Html](), 0, list[str]()
    for task, name in enumerate(task_names):
        place = task_folder(folder, task)
        if not (place / "views.json").exists():
            continue
        if size > MOST_BYTES:
            left_out.append(str(task))
            continue
        made = _task_table(place, f"task {task}: {name}")
        size += len(made)
        tables.append(made)
    parts = [grid(tables, "small")] if tables else []
    if left_out:
        parts.append(paragraph(f"Not shown here: task {', '.join(left_out)}; see views.png in the task's folder."))
    return parts


def _task_table(place: Path, caption: str) -> Html:
    from PIL import Image

    try:
        about = dict(read_json(place / "views.json"))
        columns, rows = [str(name) for name in about["columns"]], [dict(row) for row in about["rows"]]
        cell, gap = int(about["cell"]), int(about["gap"])
        with Image.open(place / "views.png") as picture:
            picture.load()
            lines = [
                _line(picture, row, columns, (cell, gap), number, rows[number - 1] if number else None)
                for number, row in enumerate(rows)
            ]
    except (OSError, ValueError, KeyError, TypeError, SyntaxError, Image.DecompressionBombError):
        return paragraph(f"{caption}: the sample views are damaged.")
    head = tag("thead", tag("tr", tag("th", "class", scope="col"), *(tag("th", name, scope="col") for name in columns)))
    inner = tag("table", tag("caption", caption), head, tag("tbody", *lines), class_="views")
    return scrolling(inner, f"sample views, {caption}")


def _line(
    picture: Image,
    row: dict[str, Any],
    columns: Sequence[str],
    geometry: tuple[int, int],
    number: int,
    before: dict[str, Any] | None,
) -> Html:
    cell, gap = geometry
    name = "no label" if row["class"] is None else str(row["class"])
    replayed = row["from"] == "replay"
    cells = [
        tag("td", _cell(picture, (gap + x * (cell + gap), gap + number * (cell + gap)), cell, f"{column} of {name}"))
        for x, column in enumerate(columns)
    ]
    kinds = ["replay"] * replayed + ["begin"] * (replayed and before is not None and before["from"] != "replay")
    return tag("tr", tag("th", name, scope="row"), *cells, class_=" ".join(kinds) or None)


def _cell(picture: Image, corner: tuple[int, int], side: int, alt: str) -> Html:
    left, top = corner
    part = picture.crop((left, top, left + side, top + side))
    data, kind = _encoded(part, "png"), "png"
    if len(data) > LARGEST_PNG:
        data, kind = _encoded(part.convert("RGB"), "jpeg"), "jpeg"
    return image(data, kind, alt, side, side)


def _encoded(part: Image, kind: str) -> bytes:
    stream = BytesIO()
    part.save(stream, format=kind, quality=85, optimize=True)
    return stream.getvalue()
