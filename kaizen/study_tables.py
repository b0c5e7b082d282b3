"""A study as text: Markdown, LaTeX, CSV and JSON, and a table for the terminal."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kaizen.metrics import HEADLINE, METRICS
from kaizen.report import empty_table
from kaizen.runs import Run
from kaizen.study import Group, Stat, Study, seeds_text

if TYPE_CHECKING:
    from rich.console import Console

PLUS_MINUS = r"\pm"
LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
EXPLAINED = (
    "Mean ± sample standard deviation (with n - 1) over runs with different seeds; a mean without one is of a single "
    "run. Accuracies are fractions in 0-1."
)


def stat_text(stat: Stat | None) -> str:
    """Write mean and deviation with three decimals."""
    if stat is None:
        return "-"
    return f"{stat.mean:.3f}" if stat.sd is None else f"{stat.mean:.3f} ± {stat.sd:.3f}"


def show(study: Study, head: str, console: Console) -> None:
    """Print one head's metrics by group, and the notes, within 80 columns where the labels allow it."""
    from rich.markup import escape

    table = empty_table(f"{head}: mean ± sd over runs", "group", "n", *(name.replace("_", "\n") for name in HEADLINE))
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
    for group in study.having(head):
        metrics = group.heads[head].metrics
        stats = (stat_text(metrics[name]) for name in HEADLINE)
        table.add_row(escape(group.label), str(_runs_with(group, head)), *stats)
    console.print(table)
    for note in study.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def _runs_with(group: Group, head: str) -> int:
    return group.heads[head].over_tasks[0].n


def csv_text(study: Study) -> str:
    """Return every statistic in long form, one a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("group", "method", "arm", "head", "metric", "mean", "sd", "n"))
    for group in study.groups:
        for head, summary in group.heads.items():
            for metric, stat in summary.metrics.items():
                numbers = ("", "", 0) if stat is None else (stat.mean, stat.sd, stat.n)
                writer.writerow((group.label, group.method, group.arm, head, metric, *numbers))
    return text.getvalue()


def as_json(study: Study) -> dict[str, Any]:
    """Return everything as plain values; a statistic is ``{"mean", "sd", "n"}``."""
    groups = [
        {
            "label": group.label,
            "method": group.method,
            "arm": group.arm,
            "flags": group.flags,
            "runs": [_run_as_json(run) for run in group.runs],
            "heads": {head: asdict(summary) for head, summary in group.heads.items()},
        }
        for group in study.groups
    ]
    return {
        "groups": groups,
        "heads": study.heads,
        "metrics": [*METRICS],
        "task_names": study.task_names,
        "common_flags": study.common,
        "notes": study.notes,
    }


def _run_as_json(run: Run) -> dict[str, Any]:
    heads = {
        name: {"accuracy_matrix": head.matrix, "baseline": head.baseline, **head.metrics}
        for name, head in run.heads.items()
    }
    seed, split_seed = run.seeds
    about = {"experiment": run.experiment, "name": run.name, "seed": seed, "split_seed": split_seed}
    return {**about, "started": run.started, "task_names": run.task_names, "heads": heads}


# Markdown.


def markdown(study: Study, plots: Sequence[str]) -> str:
    """Return the whole study as a page of Markdown.

    Args:
        study: to write about.
        plots: paths of pictures, from where the page will lie.
    """
    lines = ["# Comparison", "", EXPLAINED, ""]
    for head in study.heads:
        lines += [f"## {_escape_markdown(head)}", "", *_head_table(study, head), ""]
    for path in plots:
        lines += [f"![{path}]({path})", ""]
    lines += ["## Groups", "", *_groups_table(study), ""]
    if study.notes:
        lines += ["## Notes", "", *(f"- {_escape_markdown(note)}" for note in study.notes), ""]
    return "\n".join(lines)


def _head_table(study: Study, head: str) -> Iterator[str]:
    yield from _table_head(["group", "n", *(name.replace("_", " ") for name in METRICS)])
    for group in study.having(head):
        cells = [stat_text(stat) for stat in group.heads[head].metrics.values()]
        yield _line([_code(group.label), str(_runs_with(group, head)), *cells])


def _groups_table(study: Study) -> Iterator[str]:
    differing = list(study.groups[0].flags)
    yield from _table_head(["group", "seeds", *(_code(f"--{name}") for name in differing)])
    for group in study.groups:
        seeds = seeds_text(run.seeds for run in group.runs)
        yield _line([_code(group.label), seeds, *(_escape_markdown(value) for value in group.flags.values())])


def _table_head(names: Sequence[str]) -> Iterator[str]:
    yield _line(names)
    yield _line(["---"] * len(names))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape_markdown(text: str) -> str:
    """The text as it is, where Markdown would read marks into it."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#&~" else c for c in text)


def _code(text: str) -> str:
    """The text as code, in a table."""
    inside = text.replace("`", "'").replace("|", "\\|")
    return f"`{inside}`"


# LaTeX.


def latex(study: Study) -> str:
    r"""Return a table for each head; the document needs ``\usepackage{booktabs}``."""
    return "\n".join([f"% {EXPLAINED}", *(_tabular(study, head) for head in study.heads)])


def _tabular(study: Study, head: str) -> str:
    names = [escape_latex(name.replace("_", " ")) for name in METRICS]
    lines = [f"% {head}", rf"\begin{{tabular}}{{l{'c' * len(names)}}}", r"\toprule"]
    lines += [" & ".join([escape_latex(head), *names]) + r" \\", r"\midrule"]
    for group in study.having(head):
        cells = [_in_latex(stat) for stat in group.heads[head].metrics.values()]
        lines.append(" & ".join([escape_latex(group.label), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _in_latex(stat: Stat | None) -> str:
    return "--" if stat is None else f"${stat_text(stat).replace('±', PLUS_MINUS)}$"


def escape_latex(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    escaped = "".join(LATEX.get(character, character) for character in text)
    return re.sub("-(?=-)", "-{}", escaped)  # two in a row would become a dash
