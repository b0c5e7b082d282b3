from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from kaizen import plots, report
from kaizen.args import UsageError
from kaizen.files import atomic_path, read_json, write_json
from kaizen.metrics import summarize
from kaizen.plots import save_figure

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
METRIC_NAMES = ["final_accuracy", "continual_accuracy", "forgetting", "backward_transfer", "forward_transfer"]


def accuracy(trained: int, tested: int) -> float:
    """Made-up accuracies: a task is learned at 0.6 + its number / 100 and fades."""
    return 0.6 + tested / 100 - 0.02 * (trained - tested) if tested <= trained else 0.01 * tested / 3


def make_experiment(
    folder: Path, num_tasks: int = 3, done: int = 3, heads: tuple[str, ...] = ("classifier", "knn")
) -> Path:
    """Write an experiment's folder as the training processes do; only the classifier has a baseline."""
    experiment = {
        "name": "made-up",
        "flags": {"method": "byol", "lr": 0.3},
        "tasks": [[2 * task, 2 * task + 1] for task in range(num_tasks)],
        "task_names": [f"task {task}" for task in range(num_tasks)],
        "seeds": {"seed": 5, "split_seed": 5},
        "versions": {"torch": "2.6"},
    }
    folder.mkdir(exist_ok=True)
    write_json(folder / "experiment.json", experiment)
    for trained in range(done):
        rows = {head: [accuracy(trained, tested) for tested in range(num_tasks)] for head in heads}
        baseline = {"classifier": [0.1] * num_tasks} if trained == 0 else None
        (folder / f"task{trained}").mkdir()
        content = {"heads": rows, "baseline": baseline, "seconds": 1.5 + trained}
        write_json(folder / f"task{trained}" / "accuracy.json", content)
    return folder


def shown(results: report.Results) -> str:
    text = StringIO()
    report.show(results, Console(file=text, width=80))
    return text.getvalue()


def test_collect_gives_matrices_metrics_and_what_reproduces_them(tmp_path: Path) -> None:
    results = report.collect(make_experiment(tmp_path))
    matrix = [[accuracy(i, j) for j in range(3)] for i in range(3)]
    assert list(results) == [
        *("heads", "flags", "seeds", "versions", "tasks", "task_names"),
        *("num_tasks", "tasks_done", "seconds_per_task", "max_epochs_per_task", "waiting", "skipped_images"),
    ]
    assert list(results["heads"]) == ["classifier", "knn"]
    assert results["heads"]["classifier"] == {
        "accuracy_matrix": matrix,  # exactly: floats pass through untouched
        "baseline": [0.1, 0.1, 0.1],
        **summarize(matrix, [0.1, 0.1, 0.1]),
    }
    assert results["heads"]["knn"]["baseline"] is None
    assert results["heads"]["knn"]["forward_transfer"] is None
    assert results["flags"] == {"method": "byol", "lr": 0.3}
    assert results["tasks"] == [[0, 1], [2, 3], [4, 5]]
    assert (results["num_tasks"], results["tasks_done"]) == (3, 3)
    assert results["seconds_per_task"] == [1.5, 2.5, 3.5]


def test_images_that_are_left_out_are_counted_and_told_of(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path)
    results = report.collect(folder)  # of an experiment from before they were counted
    assert results["skipped_images"] == 0 and "cannot be read" not in shown(results)
    about = read_json(folder / "experiment.json")
    write_json(folder / "experiment.json", {**about, "skipped_images": ["train/a/1.jpg", "train/a/2.jpg"]})
    results = report.write(folder)
    assert read_json(folder / "results.json")["skipped_images"] == 2
    assert "without 2 images that cannot be read; experiment.json names them" in shown(results)


def test_collect_stops_at_the_first_unfinished_task(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path, num_tasks=4, done=4)
    (folder / "task2" / "accuracy.json").unlink()
    results = report.collect(folder)
    assert (results["num_tasks"], results["tasks_done"]) == (4, 2)
    assert len(results["heads"]["classifier"]["accuracy_matrix"]) == 2


def test_write_leaves_the_same_whole_files_each_time(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path, done=2, heads=("classifier",))
    results = report.write(folder)
    report.draw_plots(results, folder)
    written = {path.name for path in folder.rglob("*") if path.is_file()} - {
        "experiment.json",
        "accuracy.json",
    }
    assert written == {
        "results.json",
        "results.csv",
        "accuracy_matrix_classifier.png",
        "accuracy_over_tasks_classifier.png",
    }
    assert read_json(folder / "results.json") == results
    assert all(path.read_bytes().startswith(PNG_SIGNATURE) for path in (folder / "plots").iterdir())
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    report.draw_plots(report.write(folder), folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_csv_holds_every_number_once(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path, heads=("classifier",), done=1)
    results = report.write(folder)
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["accuracy"] * 3 + ["baseline"] * 3 + METRIC_NAMES
    assert rows[1] == {
        "head": "classifier",
        "kind": "accuracy",
        "trained_task": "0",
        "tested_task": "1",
        "value": repr(accuracy(0, 1)),
    }
    assert (rows[4]["trained_task"], rows[4]["tested_task"], rows[4]["value"]) == ("", "1", "0.1")
    assert float(rows[6]["value"]) == results["heads"]["classifier"]["final_accuracy"]
    assert rows[8]["value"] == ""  # forgetting after a single task is undefined


def test_show_prints_matrices_and_metrics_within_80_columns(tmp_path: Path) -> None:
    heads = ("classifier", "online", "momentum_online", "knn")
    text = shown(report.collect(make_experiment(tmp_path, num_tasks=10, done=10, heads=heads)))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text  # nothing is cut off
    last_row = next(line.split() for line in text.splitlines() if "after task 9" in line)
    assert last_row[3:] == [f"{accuracy(9, tested):.3f}" for tested in range(10)]
    matrix = [[accuracy(i, j) for j in range(10)] for i in range(10)]
    values = [f"{value:.3f}" for value in summarize(matrix, [0.1] * 10).values()]
    assert ["classifier", *values] in [line.split() for line in text.splitlines()]
    assert ["knn", *values[:-1], "-"] in [line.split() for line in text.splitlines()]


def test_show_of_many_tasks_keeps_to_the_last_row(tmp_path: Path) -> None:
    text = shown(report.collect(make_experiment(tmp_path, num_tasks=20, done=12)))
    lines = [line.split() for line in text.splitlines()]
    assert max(map(len, text.splitlines())) <= 80
    assert "after task 3" not in text
    assert ["task", "3", f"{accuracy(11, 3):.3f}", f"{accuracy(11, 3):.3f}"] in lines
    assert "metrics after 12 of 20 tasks" in text


def test_show_takes_brackets_in_task_names_literally(tmp_path: Path) -> None:
    results = report.collect(make_experiment(tmp_path, num_tasks=11, done=1))
    assert "[red]" in shown({**results, "task_names": ["[red]"] * 11})


def test_show_uses_task_names_only_where_they_fit(tmp_path: Path) -> None:
    results = report.collect(make_experiment(tmp_path))
    assert "[red]" in shown({**results, "task_names": ["[red]", "quickdraw", "sketch"]})
    numbered = shown({**results, "task_names": [f"a long name of a task {task}" for task in range(3)]})
    assert "long name" not in numbered
    assert ["0", "1", "2"] in [line.split() for line in numbered.splitlines()]


def test_show_works_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report.show(report.collect(make_experiment(tmp_path)))
    text = capsys.readouterr().out
    assert "metrics after 3 of 3 tasks" in text
    assert "\x1b" not in text


def test_reading_and_showing_need_no_drawing_library() -> None:
    heavy = "{'matplotlib', 'rich', 'torch'}"
    check = f"import sys, kaizen.report; sys.exit(bool({heavy} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", check], cwd=Path(report.__file__).parents[1], check=True)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("experiment.json", None, "cannot be read"),
        ("experiment.json", '{"flags": {}}', "lacks seeds, versions, tasks, task_names"),
        ("task0/accuracy.json", None, "cannot be read"),
        ("task1/accuracy.json", '{"heads": {"classi', "is not valid JSON"),
        ("task1/accuracy.json", "[]", "lacks heads, baseline, seconds"),
        (
            "task1/accuracy.json",
            {"classifier": [0.5, 0.5], "knn": [0.5, 0.5, 0.5]},
            "heads.classifier has 2 values",
        ),
        (
            "task1/accuracy.json",
            {"classifier": [0.5, 0.5, 50.0], "knn": [0, 0, 0]},
            r"heads.classifier\[2\] is 50.0",
        ),
        ("task1/accuracy.json", {"classifier": [0.5, 0.5, 0.5]}, "other heads than task 0"),
        ("task1/accuracy.json", '{"heads": {}, "baseline": null, "seconds": "x"}', "seconds is no number"),
    ],
)
def test_a_broken_folder_is_one_line_that_names_the_file(
    tmp_path: Path, file: str, content: str | dict[str, list[float]] | None, message: str
) -> None:
    path = make_experiment(tmp_path) / file
    if content is None:
        path.unlink()
    elif isinstance(content, str):
        path.write_text(content)
    else:
        path.write_text(json.dumps({"heads": content, "baseline": None, "seconds": 1.0}))
    with pytest.raises(UsageError, match=message) as caught:
        report.write(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results.json").exists()


def test_heat_map_shows_every_value_and_masks_unseen_tasks() -> None:
    head = {"accuracy_matrix": [[0.5, 0.25], [0.125, 0.75]]}
    axes = plots.accuracy_matrix("classifier", head, ["a", "b"]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.500", "0.250", "0.125", "0.750"]
    assert np.ma.asarray(axes.images[0].get_array()).mask.tolist() == [[False, True], [False, False]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
    assert axes.get_title("left") == "classifier: accuracy after each task"


def test_line_plot_has_a_line_per_task_and_the_mean_over_seen_tasks() -> None:
    head = {"accuracy_matrix": [[0.5, 0.25, 0.0], [0.125, 0.75, 0.0]]}
    axes = plots.accuracy_over_tasks("classifier", head, ["a", "b", "c"]).axes[0]
    lines = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in axes.lines}
    assert lines["a"] == [0.5, 0.125]
    assert lines["b"] == [0.75]  # drawn from its own training on
    assert lines["mean of seen tasks"] == [0.5, (0.125 + 0.75) / 2]
    assert "c" not in lines


@pytest.mark.parametrize("draw", [plots.accuracy_matrix, plots.accuracy_over_tasks])
def test_tasks_of_many_classes_are_numbered_in_figures(tmp_path: Path, draw: Callable[..., Figure]) -> None:
    names = [", ".join(f"class {c}" for c in range(first, first + 500)) for first in (0, 500)]
    figure = draw("classifier", {"accuracy_matrix": [[0.5, 0.1], [0.4, 0.6]]}, names)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["task 0", "task 1"]
    save_figure(figure, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        assert max(image.size) < 2000


def test_names_are_no_formulas_and_stand_in_the_legend() -> None:
    names, head = ["_dark", "5$_bill, $a_$"], {"accuracy_matrix": [[0.5, 0.25], [0.125, 0.75]]}
    for figure in (
        plots.accuracy_matrix("classifier", head, names),
        plots.accuracy_over_tasks("classifier", head, names),
        plots.embedding([[0, 1], [1, 0]], [0, 1], names, [0], "features"),
    ):
        figure.canvas.draw()
        if (legend := figure.axes[0].get_legend()) is not None:
            found = [text.get_text().strip().replace("\\", "") for text in legend.get_texts()]
            assert found[0] == names[0] and found[1].startswith(names[1])


@pytest.mark.parametrize(("num_tasks", "done"), [(1, 1), (20, 20)])
def test_figures_can_be_drawn_at_the_extremes(num_tasks: int, done: int) -> None:
    head = {"accuracy_matrix": [[accuracy(i, j) for j in range(num_tasks)] for i in range(done)]}
    names = [f"task {task}" for task in range(num_tasks)]
    for draw in (plots.accuracy_matrix, plots.accuracy_over_tasks):
        draw("classifier", head, names).canvas.draw()


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half of the ne")
        raise RuntimeError
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": float("nan")})
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_link_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "there" / "results.json")
    write_json(tmp_path / "link.json", [1])
    assert (tmp_path / "link.json").is_symlink() and read_json(tmp_path / "there" / "results.json") == [1]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "last.txt"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path
        assert temporary not in tmp_path.glob("*.txt")
    assert path.read_text() == "new"


def test_json_keeps_order_and_exact_floats(tmp_path: Path) -> None:
    content = {"b": 0.1 + 0.2, "a": [1, None, "ü"]}
    write_json(tmp_path / "x.json", content)
    assert list(read_json(tmp_path / "x.json").items()) == list(content.items())


def test_without_heads_there_is_nothing_to_show_or_draw(tmp_path: Path) -> None:
    results = report.write(make_experiment(tmp_path, num_tasks=11, done=11, heads=()))
    assert results["heads"] == {} and results["tasks_done"] == 11
    assert (tmp_path / "results.csv").read_text() == "head,kind,trained_task,tested_task,value\n"
    assert shown(results) == f"{report.UNJUDGED}\n"
    report.draw_plots(results, tmp_path)
    assert not (tmp_path / "plots").exists()
