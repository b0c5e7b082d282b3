"""Curves of everything that was logged on the way: losses, accuracies in training, learning rates, signs of health."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from kaizen.page.chart import MANY, Axes, Curve, Point, chart
from kaizen.page.facts import Logged
from kaizen.page.html import Html, Section, grid, paragraph, tag
from kaizen.page.words import LOSSES, SIGNS, importance, spaced

Series = Mapping[str, list[Point]]


def curves(logged: Logged) -> Section:
    """All logged values over the steps of all tasks."""
    body = [part for title, charts in _groups(logged) if charts for part in (_subhead(title), grid(charts))]
    if not logged.series:
        body = [paragraph("Nothing was logged yet.")]
    if logged.damaged:
        tasks = ", ".join(map(str, logged.damaged))
        body.append(paragraph(f"metrics.csv of task {tasks} cannot be read to its end.", kind="alert"))
    lead = (
        "Each point is the mean over the steps since the one before; all tasks stand on one axis, in bands. "
        "Where there are many points, the line is the mean of neighbours and the shade what they lie between."
    )
    return Section("Training curves", lead, body, "Curves")


def _subhead(title: str) -> Html:
    return tag("h3", title, class_="subhead")


def _groups(logged: Logged) -> list[tuple[str, list[Html]]]:
    train = {name.removeprefix("train/"): v for name, v in logged.series.items() if name.startswith("train/")}
    accuracies = {name: points for name, points in train.items() if re.search(r"_acc\d+$", name)}
    known = [name for name in LOSSES if name in train]
    signs = [name for name in SIGNS if name in train]
    others = sorted(train.keys() - accuracies.keys() - {*known} - {*signs})
    return [
        ("Loss terms, lower is better", [_one(logged, train, name, LOSSES[name]) for name in known]),
        ("Accuracy in training, higher is better", _accuracies(logged, accuracies)),
        ("Accuracy on the test images on the way", _tests(logged)),
        ("Signs of health", [_one(logged, train, name, SIGNS[name]) for name in signs] + _rates(logged)),
        ("Other logged values", [_one(logged, train, name, "") for name in others]),
    ]


def _one(logged: Logged, series: Series, name: str, meaning: str) -> Html:
    axes = Axes("step", "value", borders=logged.borders)
    return chart(name, meaning, [Curve("", series[name])], axes)


def _accuracies(logged: Logged, series: Series) -> list[Html]:
    """A chart for each head, of how often the first answer, and one of the first five, is right."""
    axes = Axes("step", "accuracy", (0.0, 1.0), logged.borders)
    heads = importance(list({name.rpartition("_acc")[0] for name in series}))
    charts = []
    for head in heads:
        ranks = sorted(int(name.rpartition("_acc")[2]) for name in series if name.rpartition("_acc")[0] == head)
        lines = [Curve(f"top {rank}", series[f"{head}_acc{rank}"], number == 0) for number, rank in enumerate(ranks)]
        meaning = "On training batches: how often the right class is the first answer, or among the first five."
        charts.append(chart(spaced(head), meaning, lines, axes))
    return charts


def _tests(logged: Logged) -> list[Html]:
    """A chart for each head, where the test images were looked at more often than once a task."""
    heads: dict[str, dict[int, list[Point]]] = {}
    for name, points in logged.series.items():
        if found := re.fullmatch(r"val/(.+)/task(\d+)", name):
            heads.setdefault(found[1], {})[int(found[2])] = points
    axes = Axes("step", "accuracy", (0.0, 1.0), logged.borders)
    charts = []
    for head in importance(list(heads)):
        tasks = heads[head]
        word = "" if len(tasks) > MANY else "task "
        lines = [Curve(f"{word}{task}", _since(points, task, logged.borders)) for task, points in sorted(tasks.items())]
        lines = [line for line in lines if line.points]
        if max(map(len, tasks.values())) >= len(logged.borders):
            charts.append(chart(f"{spaced(head)}: each task", "From its own training on.", lines, axes))
    return charts


def _since(points: Sequence[Point], task: int, borders: Sequence[float]) -> list[Point]:
    return [point for point in points if task < len(borders) - 1 and point[0] > borders[task]]


def _rates(logged: Logged) -> list[Html]:
    """One chart of the learning rates; groups that have the same, as long as they are trained, share a curve."""
    rates = {name.removeprefix("lr/"): points for name, points in logged.series.items() if name.startswith("lr/")}
    shared: list[tuple[list[Point], list[str]]] = []
    for name in sorted(rates, key=lambda name: -len(rates[name])):
        alike = (names for points, names in shared if set(rates[name]) <= set(points))
        if (names := next(alike, None)) is not None:
            names.append(spaced(name))
        else:
            shared.append((rates[name], [spaced(name)]))
    if not rates:
        return []
    lines = [Curve(", ".join(names), points) for points, names in shared]
    meaning = "Learning rate of each group of parameters: how far a step goes."
    return [chart("lr", meaning, lines, Axes("step", "learning rate", borders=logged.borders))]
