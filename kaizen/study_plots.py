"""A study as figures that papers show: accuracy over tasks, and accuracy matrices side by side.

Every function returns a figure; nothing here touches pyplot or global state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kaizen.plots import INK, UNSEEN, boxes_for_glyphs, draw_grid
from kaizen.study import Group, HeadSummary, Study
from kaizen.study_look import LETTER, legend, line_look, new_figure, shown, tidy, unique

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEVEL = {"ls": (0, (4, 2)), "marker": ""}  # of a line that is the same after each task


def accuracy_over_tasks(study: Study, head: str) -> Figure:
    """Draw the mean accuracy over the tasks seen so far, after each task: a line for each group, a band of one sd.

    With several methods and several arms, each method has a panel of its own. A group that learns all classes at once
    is a level line without markers.
    """
    from matplotlib.lines import Line2D

    groups = study.having(head)
    panels = _panels(groups)
    columns = math.ceil(math.sqrt(len(panels)))
    rows = math.ceil(len(panels) / columns)
    height = 4.4 if rows == 1 else 2.6 * rows + 0.8
    title = f"{head}: accuracy over the tasks seen so far   (band: one standard deviation)"
    figure, grid = new_figure(max(7.2, 3.4 * columns), height, rows, columns, title)
    names = unique(_stands_for(group, groups) for group in groups)
    at_once = {_stands_for(group, groups) for group in groups if group.tasks < len(study.task_names)}
    styles = {name: line_look(i) | (LEVEL if name in at_once else {}) for i, name in enumerate(names)}
    ticks, what = _task_ticks(study.task_names, max(7.2, 3.4 * columns) / columns - 0.8)
    for axes, (name, members) in zip(grid, panels, strict=False):
        for group in members:
            _draw_line(axes, group.heads[head], styles[_stands_for(group, groups)], len(ticks))
        tidy(axes)
        axes.set_title(shown(name), color=INK, size=10)
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set_xlabel(f"after training {what}".rstrip(), color=INK)
    grid[0].set_ylim(bottom=0)  # of all panels, now that everything is drawn
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.supylabel("mean test accuracy", color=INK, size=10)
    legend(figure, {name: Line2D([], [], **look) for name, look in styles.items()})
    return figure


def _panels(groups: Sequence[Group]) -> list[tuple[str, list[Group]]]:
    """(title, groups) of each panel."""
    methods = unique(group.method for group in groups)
    if len(methods) == 1 or len({group.arm for group in groups}) == 1:
        return [("", list(groups))]
    return [(method, [group for group in groups if group.method == method]) for method in methods]


def _stands_for(group: Group, groups: Sequence[Group]) -> str:
    """What a group's colour stands for: its arm, or its method where all are of one arm."""
    return group.arm if len({other.arm for other in groups}) > 1 else group.method


def _task_ticks(task_names: Sequence[str], room: float) -> tuple[list[str], str]:
    """The tasks' names if they fit ``room`` inches, else their numbers; and what to call these."""
    if sum(len(name) + 2 for name in task_names) * LETTER <= room:
        return [shown(name, 99) for name in task_names], ""
    return [str(task) for task in range(len(task_names))], "task"


def _draw_line(axes: Axes, summary: HeadSummary, look: dict[str, Any], tasks: int) -> None:
    stats = summary.line(tasks)
    low, high = [stat.low for stat in stats], [stat.high for stat in stats]
    axes.fill_between(range(tasks), low, high, color=look["color"], alpha=0.16, lw=0)
    axes.plot(range(tasks), [stat.mean for stat in stats], **look)


def accuracy_matrices(study: Study, head: str) -> Figure:
    """Draw the mean accuracy matrix of each group, side by side: row = after training, column = tested on.

    Groups that learn all classes at once have none, and are left out where others have.
    """
    import numpy as np

    tasks = max(group.tasks for group in study.having(head))
    groups = [group for group in study.having(head) if group.tasks == tasks]
    columns = _columns(groups)
    rows = math.ceil(len(groups) / columns)
    side = max(2.0, min(0.36, 6 / tasks) * tasks)  # inches, of a matrix
    size = (max(6.4, columns * (side + 0.45) + 1.2), rows * (side + 0.65) + 0.9)
    figure, grid = new_figure(*size, rows, columns, f"{head}: mean accuracy on each task", one_x=True)
    seen = np.tri(tasks, dtype=bool)
    means = [np.array([[stat.mean for stat in row] for row in group.heads[head].matrix]) for group in groups]
    top = max(0.1, math.ceil(max(matrix[seen].max() for matrix in means) * 10) / 10)
    for axes, group, matrix in zip(grid, groups, means, strict=False):
        image = axes.imshow(np.ma.array(matrix, mask=~seen), cmap="YlGnBu", vmin=0, vmax=top)
        draw_grid(axes, tasks, tasks)
        if tasks <= 12:
            _write_means(axes, matrix, top)
        axes.set_title(shown(group.label), color=INK, size=9)
        axes.set_facecolor(UNSEEN)
        axes.set_xticks(range(tasks))
        axes.set_yticks(range(tasks))
        axes.tick_params(length=0, colors=INK, labelsize=7)
        axes.spines[:].set_visible(False)
    for axes in grid[len(groups) :]:
        axes.set_visible(False)
    figure.supxlabel("tested on task   (grey: not trained yet)", color=INK, size=10)
    figure.supylabel("after training task", color=INK, size=10)
    bar = figure.colorbar(image, ax=grid, label="accuracy", pad=0.02, aspect=25, shrink=min(1, 3 / size[1]))
    bar.outline.set_visible(False)
    with boxes_for_glyphs():
        figure.draw_without_rendering()  # the layout of many panels is slow; saving it need not find it again
    figure.set_layout_engine("none")
    return figure


def _columns(groups: Sequence[Group]) -> int:
    """How many stand side by side: those of one method where all methods have as many, else at most five."""
    counts = {sum(other.method == group.method for other in groups) for group in groups}
    return counts.pop() if counts in ({2}, {3}, {4}, {5}, {6}) else min(5, len(groups))


def _write_means(axes: Axes, matrix: Any, top: float) -> None:
    """Write the accuracies of seen tasks with two decimals, without the leading 0."""
    for i, row in enumerate(matrix.tolist()):
        for j, value in enumerate(row[: i + 1]):
            colour = "white" if value > 0.62 * top else INK
            text = f"{value:.2f}".removeprefix("0")
            axes.text(j, i, text, ha="center", va="center", color=colour, size=7.5).set_in_layout(False)
