"""The figures of an experiment: two of each evaluated head of its results, and the features as points.

matplotlib is imported inside the functions, and without pyplot: no display, no global state.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kaizen.args import shorten
from kaizen.files import atomic_path
from kaizen.metrics import seen_accuracy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#22262b"
FAINT = "#8d9299"
UNSEEN = "#efefed"
LONGEST_TICK = 22  # letters of a task's name on an axis
MARKERS = "osD^vP*Xdh"  # shape tells the lines apart where colour does not


def accuracy_matrix(head: str, result: Mapping[str, Any], task_names: Sequence[str]) -> Figure:
    """Draw the accuracy matrix as an annotated heat map: row = after training, column = tested on.

    Tasks not yet trained stand apart, grey and beyond a stepped line.

    Args:
        head: the evaluated head's name, for the title.
        result: the head's results; ``accuracy_matrix`` is read, shape (n, T), fractions in 0-1.
        task_names: T names.
    """
    import numpy as np

    task_names = tick_names(task_names)
    matrix = np.asarray(result["accuracy_matrix"])
    rows, columns = matrix.shape
    cell = 0.85 if columns <= 6 else 0.62 if columns <= 12 else 0.46  # inches
    figure, axes = _new_figure(max(5.5, columns * cell + 2.4), rows * cell + 1.6, layout="compressed")

    seen = np.tri(rows, columns, dtype=bool)
    top = max(0.1, math.ceil(matrix[seen].max() * 10) / 10)
    axes.set_facecolor(UNSEEN)
    image = axes.imshow(np.ma.array(matrix, mask=~seen), cmap="YlGnBu", vmin=0, vmax=top)
    _write_values(axes, matrix, top)
    draw_grid(axes, rows, columns)
    _label_ticks(axes, task_names, rows, cell)
    xlabel = "tested on" if seen.all() else "tested on   (grey: not trained yet)"
    _name_axes(axes, f"{head}: accuracy after each task", xlabel, "after training")
    bar = figure.colorbar(image, ax=axes, label="accuracy", pad=0.03, aspect=max(6, 4 * rows * cell))
    bar.outline.set_visible(False)
    return figure


def accuracy_over_tasks(head: str, result: Mapping[str, Any], task_names: Sequence[str]) -> Figure:
    """Draw each task's test accuracy over the trained tasks, and thick the mean over the tasks seen so far.

    A task's line starts, ringed, where the task is trained; dots before it show what other tasks gave.

    Args:
        head: the evaluated head's name, for the title.
        result: the head's results; ``accuracy_matrix`` is read, shape (n, T), fractions in 0-1.
        task_names: T names.
    """
    task_names = tick_names(task_names)
    matrix = result["accuracy_matrix"]
    done = len(matrix)
    width = 8.6 if done <= 12 else 11.0
    figure, axes = _new_figure(width, max(4.6, 1.1 + 0.21 * done), layout="constrained")
    for j, name in enumerate(task_names[:done]):
        _draw_task(axes, j, [row[j] for row in matrix], name)
    mean = [seen_accuracy(row, i) for i, row in enumerate(matrix)]
    axes.plot(range(done), mean, color="white", lw=7, zorder=4)
    axes.plot(range(done), mean, color=INK, lw=4, marker="o", ms=7, label="mean of seen tasks", zorder=5)

    axes.set_xticks(range(done), task_names[:done], **_slant(task_names, width / (done + 2)))
    axes.set_xlim(-0.35, done - 0.65)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    axes.tick_params(colors=INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    xlabel = "after training   (ring: the tested task itself, dotted: before it)"
    _name_axes(axes, f"{head}: accuracy on each task over the run", xlabel, "test accuracy")
    axes.legend(title="tested on", loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8.5)
    return figure


def embedding(
    points: Any, targets: Sequence[int], class_names: Sequence[str], seen: Sequence[int], title: str
) -> Figure:
    """Draw images as points, coloured by class; those of classes not trained yet are hollow.

    Args:
        points: (N, 2) numbers.
        targets: N class indices.
        class_names: of all classes; beyond 20 the legend gives way to a note.
        seen: indices of the classes trained so far.
        title: of the figure.
    """
    import numpy as np
    from matplotlib import colormaps

    points, labels = np.asarray(points), np.asarray(targets)
    figure, axes = _new_figure(8.6, 6.4, layout="constrained")
    shades = colormaps["tab10" if len(class_names) <= 10 else "tab20" if len(class_names) <= 20 else "turbo"]
    size = max(4, min(28, 30000 / len(points)))
    for c, name in enumerate(escape_mathtext(shorten(name, LONGEST_TICK)) for name in class_names):
        x, y = points[labels == c].T
        colour = shades(c if len(class_names) <= 20 else c / (len(class_names) - 1))
        known = c in seen
        axes.scatter(x, y, size, label=name if known else f"{name} (not yet)", edgecolors=[colour], linewidths=0.7,
                     facecolors=[colour] if known else "none", alpha=0.85 if known else 0.45)  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#e6e6e6")
    note = "" if len(class_names) <= 20 else f"   ({len(class_names)} classes; hollow: not trained yet)"
    _name_axes(axes, title, f"axes without unit{note}", "")
    if len(class_names) <= 20:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8.5)
    return figure


@contextmanager
def boxes_for_glyphs() -> Iterator[None]:
    """No warning of a letter that the font lacks: the box in its place says the same."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, in one piece."""
    with boxes_for_glyphs(), atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight", pad_inches=0.15)


def tick_names(task_names: Sequence[str]) -> list[str]:
    """The names of the tasks, or their numbers where one is long, as the list of many classes."""
    if names_are_short(task_names):
        return [*map(escape_mathtext, task_names)]
    return [f"task {task}" for task in range(len(task_names))]


def names_are_short(task_names: Sequence[str]) -> bool:
    """May each stand at a tick, or above a column."""
    return max(map(len, task_names)) <= LONGEST_TICK


def escape_mathtext(name: str) -> str:
    """A name as it is: a $ in it begins no formula, and a _ before it does not keep it out of the legend."""
    return (f" {name}" if name.startswith("_") else name).replace("$", r"\$")


def _new_figure(width: float, height: float, layout: Literal["compressed", "constrained"]) -> tuple[Figure, Axes]:
    """Make a figure of ``width`` x ``height`` inches with one pair of axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _name_axes(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    axes.set_title(title, color=INK, weight="bold", loc="left", pad=12)
    axes.set_xlabel(xlabel, color=INK, labelpad=8)
    axes.set_ylabel(ylabel, color=INK, labelpad=8)


def _draw_task(axes: Axes, task: int, line: Sequence[float], name: str) -> None:
    """Draw the accuracy on one task after each of the ``len(line)`` trained tasks."""
    from matplotlib import colormaps

    done = len(line)
    # viridis is read alike with and without colour blindness; its last part is too pale on white
    colour = colormaps["viridis"](0.88 * task / max(1, done - 1))
    marker = MARKERS[task % len(MARKERS)]
    axes.plot(range(task), line[:task], color=colour, ls=":", lw=1, marker=".", ms=4, alpha=0.55)
    axes.plot(range(task, done), line[task:], color=colour, lw=1.7, marker=marker, ms=5, label=name)
    axes.plot(task, line[task], color=colour, marker="o", ms=11, mfc="none")


def _write_values(axes: Axes, matrix: Any, top: float) -> None:
    """Write each accuracy into its cell: three decimals where they fit, else two without the leading 0."""
    columns = matrix.shape[1]
    size = 11 if columns <= 6 else 9 if columns <= 12 else 8
    for i, row in enumerate(matrix.tolist()):
        for j, value in enumerate(row):
            text = f"{value:.3f}" if columns <= 12 else f"{value:.2f}".removeprefix("0")
            colour = FAINT if j > i else "white" if value > 0.62 * top else INK
            cell = axes.text(j, i, text, ha="center", va="center", color=colour, size=size)
            cell.set_in_layout(False)  # the layout need not measure every number, which is slow


def draw_grid(axes: Axes, rows: int, columns: int) -> None:
    """Draw white lines between the cells and the stairs between seen tasks (j <= i) and unseen ones."""
    axes.hlines([i - 0.5 for i in range(1, rows)], -0.5, columns - 0.5, color="white", lw=1)
    axes.vlines([j - 0.5 for j in range(1, columns)], -0.5, rows - 0.5, color="white", lw=1)
    steps = [(i + 0.5, i + side) for i in range(min(rows, columns - 1)) for side in (-0.5, 0.5)]
    if steps:
        x, y = zip(*steps, strict=True)
        axes.plot(x, y, color=INK, lw=1.6, solid_joinstyle="miter", scalex=False, scaley=False)


def _label_ticks(axes: Axes, task_names: Sequence[str], rows: int, cell: float) -> None:
    """Write the task names along the left and lower sides of a heat map."""
    axes.set_xticks(range(len(task_names)), task_names, **_slant(task_names, cell))
    axes.set_yticks(range(rows), task_names[:rows])
    axes.tick_params(length=0, colors=INK, labelsize=9)
    axes.spines[:].set_visible(False)


def _slant(names: Sequence[str], room: float) -> dict[str, Any]:
    """Return text properties that slant the names if they would collide at ``room`` inches a name."""
    fits = max(map(len, names)) * 0.08 <= room  # a letter of size 9 is about 0.08 inches wide
    return {} if fits else {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
