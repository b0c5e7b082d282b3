"""How well the model does: the figures to see first, accuracy over tasks, the accuracy matrices, all metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from kaizen.metrics import HEADLINE, METRICS, seen_accuracy
from kaizen.page.chart import MANY, Axes, Curve, chart
from kaizen.page.html import Content, Html, Section, big_number, grid, joined, pairs, scrolling, table, tag
from kaizen.page.words import head_words, importance, metric_words, spaced
from kaizen.plots import names_are_short
from kaizen.report import UNJUDGED, Results

DENSE = 10  # tasks; a larger matrix has smaller cells
FRACTIONS = "All accuracies are fractions: 0 is never right, 1 is always right."


def scores(results: Results) -> list[Section]:
    """The sections about accuracies; one that says why where nothing was judged."""
    heads = importance(list(results["heads"]))
    if not heads:
        return [Section("Accuracy", None, [tag("p", f"Not judged: {UNJUDGED}.")])]
    return [
        _first_figures(results, heads[0]),
        _over_tasks(results, heads),
        _matrices(results, heads),
        _all_metrics(results, heads),
    ]


def number(value: float | None) -> str:
    """A metric as it stands in a table."""
    return "\u2013" if value is None else f"{value:.3f}".replace("-", "\u2212")


def heat_table(
    caption: str, columns: Sequence[Content], rows: Sequence[tuple[Content, Sequence[float]]], top: float | None = None
) -> Html:
    """Accuracies as a table whose cells have the stronger colour the higher they are; row i belongs to column i.

    Cells right of a row's own one are of tasks not trained yet: hatched, and left out of the colouring.

    Args:
        caption: what it shows.
        columns: headings, the rows' own first.
        rows: heading and accuracies in 0-1.
        top: the accuracy of the strongest colour; None: the highest here.
    """
    dense = len(rows) > DENSE or len(columns) > DENSE + 1
    if top is None:
        top = max(0.1, *(value for i, (_, row) in enumerate(rows) for value in row[: i + 1]))
    lines = []
    for i, (name, row) in enumerate(rows):
        cells = []
        for j, value in enumerate(row):
            shown = f"{value:.2f}".removeprefix("0") if dense else f"{value:.3f}"
            style = None if j > i else f"--v:{value / top:.2f}"
            cells.append(tag("td", shown, class_="own" if i == j else "later" if j > i else None, style=style))
        lines.append(tag("tr", tag("th", name, scope="row"), *cells))
    head = tag("thead", tag("tr", *(tag("th", column, scope="col") for column in columns)))
    kind = "heat dense" if dense else "heat"
    inner = tag("table", tag("caption", caption), head, tag("tbody", *lines), class_=kind, style=f"--n:{len(columns)}")
    return scrolling(inner, caption)


def _first_figures(results: Results, head: str) -> Section:
    found, done, count = results["heads"][head], results["tasks_done"], results["num_tasks"]
    numbers = []
    for name in HEADLINE:
        words = metric_words(name)
        numbers.append(big_number(number(found[name]), spaced(name), words.meaning, words.direction))
    so_far = f"all {count} tasks" if done == count else f"{done} of {count} tasks; the rest is not trained yet"
    lead = f"Of the {spaced(head)}, after {so_far}. {FRACTIONS}"
    classes = len({str(label) for task in results["tasks"] for label in task})
    chance = f"Guessing among all {classes} classes would be right in {1 / classes:.3f} of cases." if classes else ""
    untrained = found["baseline"]
    if untrained is not None:
        chance += f" The untrained network reached {fmean(untrained):.3f}."
    return Section("In short", lead, [grid(numbers, "numbers"), tag("p", chance, class_="hint")], "In short")


def _all_metrics(results: Results, heads: Sequence[str]) -> Section:
    columns = ["head", *map(column_of, METRICS)]
    rows = [[spaced(head), *(number(results["heads"][head][name]) for name in METRICS)] for head in heads]
    waiting = [
        (spaced(head), f"evaluated for task {', '.join(map(str, tasks))}; its metrics wait for all finished tasks")
        for head, tasks in results["waiting"].items()
    ]
    body = [
        table("Metrics of every head", columns, rows, "metrics", wide=True),
        *metric_meanings(),
        tag("h3", "What each head is", class_="subhead"),
        pairs([*((spaced(head), head_words(head)) for head in heads), *waiting], "meanings"),
    ]
    lead = (
        "Several heads judge the same features; each is tested on all test images, and is never told which task an "
        "image belongs to. \u2191: higher is better, \u2193: lower is better, \u2013: not defined."
    )
    return Section("All metrics", lead, body, "Metrics")


def column_of(metric: str) -> str:
    """The heading of a metric's column, with the better direction."""
    return f"{spaced(metric)} {metric_words(metric).arrow}".strip()


def metric_meanings() -> list[Html]:
    """What each metric means and how it is computed."""
    title = tag("h3", "How each is computed", class_="subhead")
    return [title, pairs(((_named(name), _formula(name)) for name in METRICS), "meanings")]


def _named(name: str) -> Html:
    direction = metric_words(name).direction
    return joined([spaced(name), tag("span", f" {direction}", class_="hint") if direction else None])


def _formula(name: str) -> str:
    words = metric_words(name)
    return f"{words.meaning} Formula: {words.formula}." if words.formula else words.meaning


def _over_tasks(results: Results, heads: Sequence[str]) -> Section:
    done = results["tasks_done"]
    ticks = [(float(task), str(task)) for task in range(done)]
    axes = Axes("after training task", "accuracy", (0.0, 1.0), ticks=ticks)
    means = [Curve(spaced(head), _mean_of_seen(results["heads"][head]), head == heads[0], True) for head in heads]
    meaning = "Mean over the tasks seen so far. A line that stays up: what was learned is kept."
    charts = [chart("All heads", meaning, means, axes, "now")]
    for head in heads:
        matrix = results["heads"][head]["accuracy_matrix"]
        curves = [
            Curve(
                str(task) if done > MANY else f"task {task}",
                [(float(i), matrix[i][task]) for i in range(task, done)],
                False,
                done <= MANY,
            )
            for task in range(done)
        ]
        meaning = "Each task from its own training on; a falling line is forgetting."
        charts.append(chart(f"{spaced(head)}: each task", meaning, curves, axes, "now"))
    lead = "Test accuracy after each task, all test images together with one set of weights."
    return Section("Accuracy over tasks", lead, [grid(charts)], "Over tasks")


def _mean_of_seen(head: Mapping[str, Any]) -> list[tuple[float, float]]:
    return [(float(i), seen_accuracy(row, i)) for i, row in enumerate(head["accuracy_matrix"])]


def _matrices(results: Results, heads: Sequence[str]) -> Section:
    names = results["task_names"]
    short = names_are_short(names) and len(names) <= DENSE
    columns: list[Content] = ["after training"]
    columns += [joined([f"task {j}", tag("small", name)]) if short else str(j) for j, name in enumerate(names)]
    body = []
    for head in heads:
        matrix = results["heads"][head]["accuracy_matrix"]
        rows = [(f"task {i}", row) for i, row in enumerate(matrix)]
        body.append(heat_table(f"{spaced(head)}: accuracy on each task", columns, rows))
    lead = (
        "A row for each trained task, a column for each tested one: the stronger the colour, the more is right. "
        "Framed: the task just trained. Hatched: not trained yet. Reading down a column shows how a task is kept."
    )
    parts = body if len(names) > DENSE else [grid(body, "two")]
    return Section("Accuracy matrix", lead, parts, "Matrix")
