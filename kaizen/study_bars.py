"""Bars of a study: methods side by side, a colour for each arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kaizen.plots import INK
from kaizen.study import Group, Study
from kaizen.study_look import LETTER, bar_look, legend, new_figure, shown, tidy, unique

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NUMBERS = 24  # bars that have room for theirs


def accuracy_bars(study: Study, head: str) -> Figure:
    """Draw final and continual accuracy, a panel each: methods side by side, a colour for each arm."""
    return _bars(study, head, ["final_accuracy", "continual_accuracy"])


def forgetting_bars(study: Study, head: str) -> Figure:
    """Draw forgetting: methods side by side, a colour for each arm."""
    return _bars(study, head, ["forgetting"])


def _bars(study: Study, head: str, metrics: Sequence[str]) -> Figure:
    """Draw a panel for each metric; with a single method its arms stand side by side, without a legend."""
    from matplotlib.patches import Patch

    groups = study.having(head)
    methods, arms = unique(group.method for group in groups), unique(group.arm for group in groups)
    alone = len(methods) == 1
    clusters = [[group] for group in groups] if alone else [[g for g in groups if g.method == m] for m in methods]
    names = arms if alone else methods
    beside = max(map(len, clusters))
    inches = max(6.4, 0.34 * len(clusters) * beside + 0.35 * len(clusters) + 1.2)
    title = f"{head}: {' and '.join(metric.replace('_', ' ') for metric in metrics)}"
    figure, panels = new_figure(inches, 2.8 * len(metrics) + 0.6, len(metrics), 1, title)
    for axes, metric in zip(panels, metrics, strict=True):
        for place, cluster in enumerate(clusters):
            for i, group in enumerate(cluster):
                x = place + (i - (len(cluster) - 1) / 2) * 0.8 / beside
                _draw_bar(axes, group, head, metric, x, 0.8 / beside, arms.index(group.arm))
                if len(groups) <= MOST_NUMBERS:
                    _write_mean(axes, group, head, metric, x)
        tidy(axes)
        axes.axhline(0, color=INK, lw=0.8)
        axes.margins(y=0.12)
        spare = max(0, 4 - len(groups)) / 4  # a few bars need not fill the width
        axes.set_xlim(-0.6 - spare, len(clusters) - 0.4 + spare)
        axes.set_ylabel(metric.replace("_", " "), color=INK)
        axes.set_xticks(range(len(names)), [shown(name) for name in names], **_slant(names, inches - 1))
    if not alone and len(arms) > 1:
        legend(figure, {arm: Patch(**bar_look(style)) for style, arm in enumerate(arms)})
    return figure


def _slant(names: Sequence[str], room: float) -> dict[str, Any]:
    """Text properties that slant names if they would collide in ``room`` inches."""
    widest = max(len(line) for name in names for line in shown(name).split("\n"))
    if widest * LETTER <= room / len(names):
        return {}
    return {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}


def _draw_bar(axes: Axes, group: Group, head: str, metric: str, x: float, width: float, style: int) -> None:
    """Draw a group's mean with one sd, and a dot for each run."""
    stat = group.heads[head].metrics[metric]
    if stat is None:
        return
    axes.bar(x, stat.mean, 0.92 * width, **bar_look(style))
    if stat.sd is not None:
        values = group.values(head, metric)
        axes.errorbar(x, stat.mean, stat.sd, color=INK, lw=1.2, capsize=min(4, 18 * width), zorder=3)
        axes.plot([x] * len(values), values, ".", color="white", mec=INK, mew=0.6, ms=5, zorder=4)


def _write_mean(axes: Axes, group: Group, head: str, metric: str, x: float) -> None:
    """Write a group's mean above everything that is drawn of it."""
    stat = group.heads[head].metrics[metric]
    if stat is None:
        return
    top = max(0, stat.high, *group.values(head, metric))
    text = f"{stat.mean:.3f}".replace("0.", ".", 1)
    axes.annotate(text, (x, top), (0, 3), textcoords="offset points", ha="center", size=8, color=INK)
