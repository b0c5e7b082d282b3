"""The results of an experiment: collected from its folder, written as JSON, CSV and plots, shown as tables.

An experiment's folder holds ``experiment.json`` (name, flags, tasks, task_names, seeds, versions) and, for
every finished task, ``task<k>/accuracy.json``: per evaluated head the accuracies on all T tasks (fractions in
0-1), in task 0 also those of the untrained network as the baseline, and the seconds that training took. Heads that
were evaluated later have ``task<k>/evaluation/<head>.json``: accuracies, baseline, and the settings they depend on.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from kaizen import plots
from kaizen.args import UsageError, shorten
from kaizen.csv_form import long_form
from kaizen.files import atomic_write_text, read_json, write_json
from kaizen.folders import task_folder
from kaizen.metrics import METRICS, check_row, summarize
from kaizen.states import read_state

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Results = dict[str, Any]
UNJUDGED = "no labels: nothing to judge; evaluate the checkpoints with python -m kaizen.evaluate"
WIDEST_MATRIX = 10  # tasks; a wider matrix does not fit a terminal of 80 columns


def collect(folder: Path) -> Results:
    """Read the finished tasks 0..n-1 of an experiment and compute its metrics; a run in progress is welcome.

    Returns:
        ``{"heads": {name: {"accuracy_matrix", "baseline", <one key per metric>}}, "flags", "seeds",
        "versions", "tasks", "task_names", "num_tasks", "tasks_done", "seconds_per_task", "max_epochs_per_task",
        "waiting", "skipped_images"}``, in this order. The last is a number; experiment.json names the images. A head
        that was evaluated later is among the heads once it has a row for every finished task, all made with the same
        settings; until then ``waiting`` says for which tasks it has rows.

    Raises:
        UsageError: naming the file that is missing, broken, or at odds with the others.
    """
    experiment = read_experiment(folder)
    num_tasks = len(experiment["tasks"])
    finished = [_read_task(_task_file(folder, 0), num_tasks)]
    while len(finished) < num_tasks and (path := _task_file(folder, len(finished))).exists():
        finished.append(_read_task(path, num_tasks))
        if finished[-1]["heads"].keys() != finished[0]["heads"].keys():
            raise UsageError(
                f"{path}: evaluates other heads than task 0; run both tasks with the same evaluation flags"
            )
    waiting = _add_evaluations(folder, finished, num_tasks)
    return {
        "heads": {name: _head(name, finished) for name in finished[0]["heads"]},
        "flags": experiment["flags"],
        "seeds": experiment["seeds"],
        "versions": experiment["versions"],
        "tasks": experiment["tasks"],
        "task_names": experiment["task_names"],
        "num_tasks": num_tasks,
        "tasks_done": len(finished),
        "seconds_per_task": [task["seconds"] for task in finished],
        "max_epochs_per_task": [_max_epochs(folder, task, experiment["flags"]) for task in range(len(finished))],
        "waiting": waiting,
        "skipped_images": len(experiment.get("skipped_images", ())),
    }


def read_experiment(folder: Path) -> dict[str, Any]:
    """What experiment.json holds. Raises UsageError where it is missing or broken."""
    path = folder / "experiment.json"
    experiment = _read(path, ("flags", "seeds", "versions", "tasks", "task_names"))
    _check_kinds(experiment, path)
    if len(experiment["task_names"]) != len(experiment["tasks"]):
        raise UsageError(f"{path}: task_names must name each of the {len(experiment['tasks'])} tasks")
    return experiment


def write(folder: Path) -> Results:
    """Collect the results and write ``results.json`` and ``results.csv``, each file whole.

    Raises:
        UsageError: as `collect`.
    """
    results = collect(folder)
    write_json(folder / "results.json", results)
    atomic_write_text(folder / "results.csv", long_form(results))
    return results


def draw_plots(results: Results, folder: Path, missing_only: bool = False) -> None:
    """Draw ``plots/``: for each head the accuracy matrix, and the accuracy over tasks; nothing without heads.

    Args:
        results: from `collect`.
        folder: of the experiment.
        missing_only: leave those that are there.
    """
    for name, head in results["heads"].items():
        for draw in (plots.accuracy_matrix, plots.accuracy_over_tasks):
            path = folder / "plots" / f"{draw.__name__}_{name}.png"
            if not (missing_only and path.exists()):
                path.parent.mkdir(exist_ok=True)
                plots.save_figure(draw(name, head, results["task_names"]), path)


def show(results: Results, console: Console | None = None) -> None:
    """Print the accuracy matrices and the metrics as tables that fit 80 columns.

    Without heads, one line says why. Beyond `WIDEST_MATRIX` tasks one table of the last rows replaces the matrices.
    """
    from rich.console import Console

    console = console or Console()
    if results["skipped_images"]:
        console.print(f"without {results['skipped_images']} images that cannot be read; experiment.json names them")
    if not results["heads"]:
        console.print(UNJUDGED, soft_wrap=True)
        return
    if results["num_tasks"] > WIDEST_MATRIX:
        console.print(_last_row_table(results))
    else:
        for name, head in results["heads"].items():
            console.print(_matrix_table(name, head["accuracy_matrix"], results["task_names"]))
    console.print(_metrics_table(results))
    for name, tasks in results["waiting"].items():
        complete = len(tasks) == results["tasks_done"]
        have = "not all with the same settings" if complete else f"for task {', '.join(map(str, tasks))} alone"
        console.print(f"{name}: has rows {have}; its matrix waits for all finished tasks", markup=False)


def show_one(head: str, row: list[float], over_images: float, task_names: list[str]) -> None:
    """Print what one model reaches: on each task, on average over the tasks, and over all test images."""
    from rich.console import Console
    from rich.markup import escape

    table = empty_table(f"{head}: accuracy", "on", "")
    for task, (name, value) in enumerate(zip(task_names, row, strict=True)):
        table.add_row(escape(f"task {task}: {shorten(name, 50)}"), _cell(value))
    table.add_row("mean over tasks", _cell(fmean(row)))
    table.add_row("over all test images", _cell(over_images))
    Console().print(table)


def _task_file(folder: Path, task: int) -> Path:
    return task_folder(folder, task) / "accuracy.json"


def _read(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """Read a JSON object that has at least ``keys``; turn what can go wrong into one line for people."""
    try:
        content: dict[str, Any] = read_json(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); results need a finished task") from error
    except ValueError as error:
        raise UsageError(f"{path}: is not valid JSON ({error}); restore the file or run its task again") from error
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise UsageError(f"{path}: lacks {', '.join(missing)}; restore the file or run its task again")
    return content


def _check_kinds(experiment: dict[str, Any], path: Path) -> None:
    """Raises UsageError where a part of experiment.json is of another kind than what a run writes."""
    wrong = [name for name in ("flags", "seeds", "versions") if not isinstance(experiment[name], dict)]
    tasks, names = experiment["tasks"], experiment["task_names"]
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, list) for task in tasks):
        wrong.append("tasks")
    skipped = experiment.get("skipped_images", [])
    if not isinstance(skipped, list) or not all(isinstance(name, str) for name in skipped):
        wrong.append("skipped_images")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        wrong.append("task_names")
    if wrong:
        raise UsageError(f"{path}: {', '.join(wrong)} cannot be read; restore the file or use a new folder")


def _read_task(path: Path, num_tasks: int) -> dict[str, Any]:
    task = _read(path, ("heads", "baseline", "seconds"))
    try:
        if not isinstance(task["heads"], dict) or not isinstance(task["baseline"] or {}, dict):
            raise ValueError("heads and baseline must name rows of accuracies")
        if not isinstance(task["seconds"], int | float):
            raise ValueError("seconds is no number")
        for kind in ("heads", "baseline"):
            for name, row in (task[kind] or {}).items():
                check_row(row, num_tasks, f"{kind}.{ascii(name)[1:-1]}")
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}: {error}; restore the file or run its task again") from error
    return task


def _max_epochs(folder: Path, task: int, flags: dict[str, Any]) -> int | None:
    """What a task was trained with, which may have changed between tasks; None if not here, or not known any more."""
    place = task_folder(folder, task)
    try:
        state = read_state(place)
    except ValueError:
        return None
    if state is None:
        return flags.get("max_epochs") if (place / "final.ckpt").exists() else None
    return state.max_epochs


def _add_evaluations(folder: Path, finished: list[dict[str, Any]], num_tasks: int) -> dict[str, list[int]]:
    """Put the heads that were evaluated for all finished tasks beside those of the training.

    Returns:
        The other evaluated heads, and the tasks they have a row for.
    """
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for task in range(len(finished)):
        for path in sorted((task_folder(folder, task) / "evaluation").glob("*.json")):
            if path.stem not in finished[0]["heads"]:  # the training judged it itself
                found.setdefault(path.stem, {})[task] = _read_evaluation(path, num_tasks)
    waiting = {}
    for name, rows in found.items():
        if len(rows) < len(finished) or any(row["settings"] != rows[0]["settings"] for row in rows.values()):
            waiting[name] = sorted(rows)
            continue
        for task, row in rows.items():
            finished[task]["heads"][name] = row["accuracy"]
        finished[0]["baseline"] = {**(finished[0]["baseline"] or {}), name: rows[0]["baseline"]}
    return waiting


def _read_evaluation(path: Path, num_tasks: int) -> dict[str, Any]:
    content = _read(path, ("accuracy", "baseline", "settings"))
    try:
        check_row(content["accuracy"], num_tasks, "accuracy")
        if content["baseline"] is not None:
            check_row(content["baseline"], num_tasks, "baseline")
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}: {error}; delete the file or evaluate again") from error
    return content


def _head(name: str, finished: list[dict[str, Any]]) -> dict[str, Any]:
    matrix = [task["heads"][name] for task in finished]
    baseline = (finished[0]["baseline"] or {}).get(name)
    return {"accuracy_matrix": matrix, "baseline": baseline, **summarize(matrix, baseline)}


def empty_table(title: str, first: str, *others: str) -> Table:
    """Return an empty table with one left column and the others to the right; names are shown as they are."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    padding = (0, 0) if len(others) > 8 else (0, 1, 0, 0)
    table = Table(title=Text(title, "bold"), title_justify="left", box=box.SIMPLE_HEAD, padding=padding)
    table.add_column(Text(first), vertical="bottom", no_wrap=True)
    for name in others:
        table.add_column(Text(name), justify="right", vertical="bottom")
    return table


def _matrix_table(head: str, matrix: list[list[float]], task_names: list[str]) -> Table:
    """One line per trained task, one column per tested task; tasks not trained yet are dim."""
    table = empty_table(f"{head}: accuracy on each task", "", *_short_names(task_names))
    for trained, row in enumerate(matrix):
        table.add_row(f"after task {trained}", *(_cell(v, dim=tested > trained) for tested, v in enumerate(row)))
    return table


def _short_names(task_names: list[str]) -> list[str]:
    """The names if they fit one line of the matrix table, else the tasks' numbers."""
    fit = sum(max(5, len(name)) + 2 for name in task_names) <= 64
    return task_names if fit else [str(task) for task in range(len(task_names))]


def _last_row_table(results: Results) -> Table:
    """One line per tested task, one column per head."""
    from rich.markup import escape

    table = empty_table(f"accuracy after task {results['tasks_done'] - 1}", "tested on", *results["heads"])
    last_rows = [head["accuracy_matrix"][-1] for head in results["heads"].values()]
    for tested, (name, *row) in enumerate(zip(results["task_names"], *last_rows, strict=True)):
        table.add_row(escape(name), *(_cell(value, dim=tested >= results["tasks_done"]) for value in row))
    return table


def _metrics_table(results: Results) -> Table:
    """One line per head, one column per metric."""
    title = f"metrics after {results['tasks_done']} of {results['num_tasks']} tasks"
    table = empty_table(title, "head", *(metric.replace("_", "\n") for metric in METRICS))
    for name, head in results["heads"].items():
        table.add_row(name, *(_cell(head[metric]) for metric in METRICS))
    return table


def _cell(value: float | None, dim: bool = False) -> str:
    text = "-" if value is None else f"{value:.3f}"
    return f"[dim]{text}[/]" if dim else text
