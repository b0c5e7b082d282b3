"""The page of a comparison: which way is better, by how much, over which seeds, and everything behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kaizen.group_names import value_text
from kaizen.metrics import HEADLINE, METRICS
from kaizen.page.chart import MANY, Axes, Curve, Point, chart
from kaizen.page.html import Content, Html, Section, grid, page, pairs, paragraph, table, tag, text
from kaizen.page.scores import FRACTIONS, column_of, heat_table, metric_meanings, number
from kaizen.page.words import head_words, importance, metric_words, spaced
from kaizen.study import Group, Stat, Study, seeds_text
from kaizen.study_tables import EXPLAINED

BAR, THICK = 160, 14  # units of a bar's picture


def comparison_page(study: Study, head: str) -> str:
    """The page of a study.

    Args:
        study: to show.
        head: what stands in the first table, the curves and the matrices.
    """
    groups = study.having(head)
    heads = importance(study.heads)
    sections = [
        _in_short(groups, head),
        _notes(study) if study.notes else None,
        _over_tasks(study, groups, head),
        _matrices(study, groups, head),
        _all_metrics(study, heads),
        _runs(study, heads),
        _flags(study),
    ]
    whole = [section for section in sections if section is not None]
    footer = "Made by Kaizen; python -m kaizen.compare runs.csv makes it anew from the file beside it."
    return page("Kaizen: comparison", _title(study), [paragraph(_summary(study), kind="lead")], whole, footer)


def _title(study: Study) -> str:
    return f"{len(study.groups)} group{'s' * (len(study.groups) > 1)} of runs: {', '.join(study.methods)}"


def _summary(study: Study) -> str:
    runs = sum(len(group.runs) for group in study.groups)
    data = f" on {study.common['dataset']}" if "dataset" in study.common else ""
    names = study.task_names
    tasks = f"{len(names)} tasks, one after the other: {'; '.join(names)}" if len(names) > 1 else "one task"
    return f"{runs} runs{data}, {tasks}. Runs that differ in nothing but their seeds are one group."


def _in_short(groups: Sequence[Group], head: str) -> Section:
    columns: list[Content] = ["group", "n", *map(column_of, HEADLINE)]
    ranges = {metric: _range(groups, head, metric) for metric in HEADLINE}
    best = {
        (group.method, metric): _best(groups, group.method, head, metric) for group in groups for metric in HEADLINE
    }
    rows = []
    for group in groups:
        cells: list[Content] = [tag("td", group.heads[head].over_tasks[0].n, class_="count")]
        for metric in HEADLINE:
            kind = "best" if best[group.method, metric] is group else None
            cells.append(tag("td", *_bar_and_text(group, head, metric, ranges[metric]), class_=kind))
        rows.append([group.label, *cells])
    lead = (
        f"Of the {spaced(head)}. {FRACTIONS} Bar: mean; line: one standard deviation to each side; dots: single runs."
    )
    hint = (
        "In bold: the best mean of a method, among those that learn task by task. A difference that is small "
        "against the standard deviations may be chance."
    )
    body = [table(f"{spaced(head)}: mean \u00b1 standard deviation", columns, rows, "bars", wide=True)]
    return Section("In short", lead, [*body, tag("p", hint, class_="hint")], "In short")


def _range(groups: Iterable[Group], head: str, metric: str) -> tuple[float, float]:
    """From 0, or below it where there is anything, to the highest value or end of a line."""
    ends = [0.0]
    for group in groups:
        stat = group.heads[head].metrics[metric]
        if stat is not None:
            ends += [stat.low, stat.high, *group.values(head, metric)]
    low = min([0.0, *(value for group in groups for value in group.values(head, metric))])
    return low, max(ends) or 1.0


def _best(groups: Iterable[Group], method: str, head: str, metric: str) -> Group | None:
    """The group with the best mean, of several."""
    rivals = [
        (stat.mean, group)
        for group in groups
        if group.method == method and group.tasks > 1 and (stat := group.heads[head].metrics[metric]) is not None
    ]
    if len(rivals) < 2:
        return None
    choose = min if metric_words(metric).better == "lower" else max
    return choose(rivals, key=lambda rival: rival[0])[1]


def _bar_and_text(group: Group, head: str, metric: str, bounds: tuple[float, float]) -> list[Content]:
    stat = group.heads[head].metrics[metric]
    if stat is None:
        return [number(None)]
    low, high = bounds

    def x(value: float) -> float:
        return round(max(0.0, value - low) / (high - low) * BAR, 1)

    zero, end, middle = x(0), x(stat.mean), THICK / 2
    parts = [tag("rect", x=min(zero, end), y=2, width=abs(end - zero), height=THICK - 4, class_="bar")]
    parts.append(tag("line", x1=zero, x2=zero, y1=0, y2=THICK, class_="zero"))
    if stat.sd is not None:
        first, last = x(stat.low), x(stat.high)
        parts.append(tag("line", x1=first, x2=last, y1=middle, y2=middle, class_="sd"))
        parts += [tag("circle", cx=x(v), cy=middle, r=2, class_="run") for v in group.values(head, metric)]
    return [tag("svg", *parts, viewBox=f"0 0 {BAR} {THICK}", aria_hidden="true"), text(_stat(stat))]


def _stat(stat: Stat | None) -> str:
    if stat is None or stat.sd is None:
        return number(None if stat is None else stat.mean)
    return f"{number(stat.mean)} \u00b1 {stat.sd:.3f}"


def _notes(study: Study) -> Section:
    items = [tag("ul", *(tag("li", note) for note in study.notes), class_="notes")]
    return Section("To know", "What is left out, and what does not quite compare.", items, "To know")


def _over_tasks(study: Study, groups: Sequence[Group], head: str) -> Section | None:
    tasks = len(study.task_names)
    if tasks < 2:
        return None
    ticks = [(float(task), str(task)) for task in range(tasks)]
    top = max(0.1, *(stat.high for group in groups for stat in group.heads[head].over_tasks))
    axes = Axes("after training task", "accuracy", (0.0, min(1.0, top * 1.05)), ticks=ticks)
    charts = []
    for method in study.methods:
        if not (members := [group for group in groups if group.method == method]):
            continue
        curves = [_curve(group, head, tasks, len(members), study.arms.index(group.arm)) for group in members]
        charts.append(chart(method, "Mean over the tasks seen so far, and over runs.", curves, axes, "now"))
    lead = (
        f"Of the {spaced(head)}: test accuracy after each task, all test images together with one set of weights. "
        "Shaded: one standard deviation to each side. A level line without dots: all classes learned at once."
    )
    return Section("Accuracy over tasks", lead, [grid(charts, "two")], "Over tasks")


def _curve(group: Group, head: str, tasks: int, members: int, look: int) -> Curve:
    summary = group.heads[head]
    stats = summary.line(tasks)
    upper: list[Point] = [(float(i), stat.high) for i, stat in enumerate(stats)]
    lower: list[Point] = [(float(i), stat.low) for i, stat in enumerate(stats)]
    band = [*upper, *reversed(lower)] if stats[0].sd is not None and members <= MANY else []
    points: list[Point] = [(float(i), stat.mean) for i, stat in enumerate(stats)]
    return Curve(group.arm, points, False, not summary.at_once, band, look)


def _matrices(study: Study, groups: Sequence[Group], head: str) -> Section | None:
    tasks = len(study.task_names)
    columns: list[Content] = ["after", *map(str, range(tasks))]
    matrices = {
        group.label: [[stat.mean for stat in row] for row in group.heads[head].matrix]
        for group in groups
        if group.tasks == tasks > 1
    }
    if not matrices:
        return None
    top = max(0.1, *(value for matrix in matrices.values() for i, row in enumerate(matrix) for value in row[: i + 1]))
    body = [
        heat_table(label, columns, [(f"task {i}", row) for i, row in enumerate(matrix)], top)
        for label, matrix in matrices.items()
    ]
    lead = (
        f"Of the {spaced(head)}, mean over runs. A row for each trained task, a column for each tested one, one "
        "colouring for all matrices. Framed: the task just trained. Hatched: not trained yet. Reading down a column "
        "shows how a task is kept."
    )
    return Section("Accuracy matrices", lead, [grid(body, "two")], "Matrices")


def _all_metrics(study: Study, heads: Sequence[str]) -> Section:
    body = []
    for head in heads:
        rows = [
            [group.label, *(_stat(stat) for stat in group.heads[head].metrics.values())] for group in study.having(head)
        ]
        body.append(table(spaced(head), ["group", *map(column_of, METRICS)], rows, wide=True))
    body += metric_meanings()
    body.append(tag("h3", "What each head is", class_="subhead"))
    body.append(pairs([(spaced(head), head_words(head)) for head in heads], "meanings"))
    return Section("All metrics", EXPLAINED, body, "Metrics")


def _runs(study: Study, heads: Sequence[str]) -> Section:
    head = heads[0]
    rows = []
    for group in study.groups:
        for run in group.runs:
            found = run.heads[head].metrics if head in run.heads else dict.fromkeys(HEADLINE)
            cells: list[Content] = [number(found[metric]) for metric in HEADLINE]
            rows.append([run.experiment, group.label, seeds_text([run.seeds]), *cells])
    columns: list[Content] = ["experiment", "group", "seed", *map(column_of, HEADLINE)]
    lead = f"Of the {spaced(head)}. Where --split_seed is another than --seed, it stands behind the stroke."
    return Section("Every run", lead, [table("Every run", columns, rows, "tasks", wide=True)], "Runs")


def _flags(study: Study) -> Section:
    body: list[Html] = []
    if differing := list(study.groups[0].flags):
        columns: list[Content] = ["group", *(tag("code", f"--{name}") for name in differing)]
        rows = [[group.label, *group.flags.values()] for group in study.groups]
        body.append(table("What differs", columns, rows, "words", wide=True))
    body.append(tag("h3", "The same in all groups", class_="subhead"))
    shared = [(tag("code", f"--{name}"), value_text(value)) for name, value in study.common.items()]
    body.append(pairs(shared))
    lead = "Everything that says what was done; python main_continual.py --help explains each flag."
    return Section("Flags", lead, body, "Flags")
