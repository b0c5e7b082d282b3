"""Grouping, names and numbers of a study, and what they are read from."""

from __future__ import annotations

import csv
import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from studies import ARMS, make_run, make_study

from kaizen.args import UsageError
from kaizen.compare import read_study
from kaizen.files import read_json, write_json
from kaizen.group_names import group_names, split_flags
from kaizen.metrics import METRICS
from kaizen.report import collect
from kaizen.runs import Run, find_experiments, read_run, without_duplicates
from kaizen.runs_csv import read_rows, rows_text
from kaizen.study import Stat, Study, study_of
from kaizen.study_plots import accuracy_matrices, accuracy_over_tasks
from kaizen.study_tables import as_json, csv_text, escape_latex, latex, markdown


def labels(study: Study) -> list[tuple[str, str, str]]:
    return [(group.label, group.method, group.arm) for group in study.groups]


def runs_text(study: Study) -> str:
    return rows_text((group.label, run) for group in study.groups for run in group.runs)


def run_of(folder: Path, *args: Any, **flags: Any) -> Run:
    run, _ = read_run(make_run(folder, *args, **flags))
    assert run is not None
    return run


# ---- groups ------------------------------------------------------------------------------------------------


def test_runs_that_differ_in_seeds_and_places_alone_are_one_group(tmp_path: Path) -> None:
    make_run(tmp_path / "a", seed=5, data_dir="here", num_workers=1, name="a")
    make_run(tmp_path / "b", seed=6, data_dir="there", wandb=True, name="b")
    make_run(tmp_path / "c", seed=6, lr=0.1, name="c")
    study = read_study([tmp_path])
    assert [[run.experiment for run in group.runs] for group in study.groups] == [["a", "b"], ["c"]]
    assert labels(study) == [("lr=0.3", "simclr", "lr=0.3"), ("lr=0.1", "simclr", "lr=0.1")]
    assert study.common["dataset"] == "digits" and "lr" not in study.common and "data_dir" not in study.common
    assert study.notes == ["the groups have different seeds: lr=0.3: 5 6; lr=0.1: 6"]


def test_a_flag_that_is_newer_than_a_run_has_its_default(tmp_path: Path) -> None:
    rows = runs_text(read_study([make_run(tmp_path / "a", seed=5)]))
    older = re.sub(r', ""(devices|augment_on)"": [^,}]+', "", rows)
    assert older.count("devices") == older.count("augment_on") == 0 < rows.count("devices")
    (tmp_path / "runs.csv").write_text(older)
    study = read_study([tmp_path / "runs.csv", make_run(tmp_path / "b", seed=6)])
    assert [[run.experiment for run in group.runs] for group in study.groups] == [["a", "b"]]


def test_names_of_arms_are_labels(tmp_path: Path) -> None:
    study = read_study([make_study(tmp_path, named=True)])
    assert labels(study) == [(f"{m} {arm}", m, arm) for m in ("byol", "simclr") for arm in ("finetune", "kaizen")]
    assert study.notes == []


def test_a_name_that_holds_the_method_gives_the_arm(tmp_path: Path) -> None:
    for name, method, lr in (("simclr-fast", "simclr", 1.0), ("simclr-slow", "simclr", 0.1), ("byol", "byol", 1.0)):
        make_run(tmp_path / name, method, name=name, lr=lr)
    assert labels(read_study([tmp_path])) == [
        ("byol", "byol", "byol"), ("simclr-fast", "simclr", "fast"), ("simclr-slow", "simclr", "slow")
    ]  # fmt: skip


def test_without_names_the_flags_that_differ_are_labels_as_few_as_tell(tmp_path: Path) -> None:
    study = read_study([make_study(tmp_path, arms=tuple(ARMS), seeds=(5,))])
    assert [label for label, _, _ in labels(study)][:4] == [
        "method=byol replay=False no_distill=True",
        "method=byol replay=True no_distill=False",
        "method=byol replay=True no_distill=True",
        "method=byol replay=False no_distill=False",
    ]
    assert study.groups[0].arm == "replay=False no_distill=True"
    assert study.groups[0].flags == {
        "method": "byol", "replay": "False", "no_distill": "True", "temperature": "-", "pred_hidden_dim": "8",
        "feature_extractor_distill_lamb": "-",
    }  # fmt: skip


def test_a_flag_of_a_method_that_differs_by_itself_is_told(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / str(t), temperature=t, brightness=[t]) for t in (0.1, 0.2)]
    _, differing = split_flags([run.flags for run in runs])
    assert differing == ["brightness", "temperature"]
    runs = [run_of(tmp_path / f"t{t}", temperature=t) for t in (0.1, 0.2)]
    _, differing = split_flags([run.flags for run in runs])
    assert [name for name, _, _ in group_names([[run] for run in runs], differing)] == [
        "temperature=0.1", "temperature=0.2"
    ]  # fmt: skip


def test_epochs_that_changed_on_the_way_make_another_group(tmp_path: Path) -> None:
    make_run(tmp_path / "a", seed=5, max_epochs=20)
    place = make_run(tmp_path / "b", seed=6, max_epochs=20)
    state = read_json(place / "task0" / "state.json")
    write_json(place / "task0" / "state.json", {**state, "max_epochs": 10})
    assert [group.label for group in read_study([tmp_path]).groups] == ["max_epochs=20", "max_epochs=10,20,20"]


# ---- numbers -----------------------------------------------------------------------------------------------


def test_means_and_deviations_are_those_of_the_runs(tmp_path: Path) -> None:
    study = read_study([make_study(tmp_path, ("simclr",), ("kaizen",))])
    heads = [collect(folder)["heads"] for folder in sorted(tmp_path.iterdir())]
    (group,) = study.groups
    for head in ("classifier", "knn"):
        for metric in METRICS:
            values = [found[head][metric] for found in heads]
            if None in values:
                assert (head, metric) == ("knn", "forward_transfer")
                assert group.heads[head].metrics[metric] is None
            else:
                expected = Stat(statistics.fmean(values), statistics.stdev(values), 3)
                assert group.heads[head].metrics[metric] == expected
        matrices = [found[head]["accuracy_matrix"] for found in heads]
        assert group.heads[head].matrix[2][1] == Stat.of([matrix[2][1] for matrix in matrices])
        assert group.heads[head].over_tasks[1] == Stat.of([sum(matrix[1][:2]) / 2 for matrix in matrices])
    assert Stat.of([0.5]) == Stat(0.5, None, 1)
    assert Stat.of([0.2, 0.4]).sd == pytest.approx(0.1 * 2**0.5)  # n - 1


def test_a_head_that_only_some_runs_have(tmp_path: Path) -> None:
    make_run(tmp_path / "a", seed=5)
    make_run(tmp_path / "b", seed=6, heads=("classifier",))
    (group,) = read_study([tmp_path]).groups
    counts = {head: summary.over_tasks[0].n for head, summary in group.heads.items()}
    assert counts == {"classifier": 2, "knn": 1}


# ---- what is left out --------------------------------------------------------------------------------------


def test_unfinished_runs_are_named_and_left_out(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", seed=6, done=2)
    make_run(tmp_path / "c", seed=7, done=0)
    make_run(tmp_path / "d", seed=8, heads=())
    study = read_study([tmp_path])
    assert [run.experiment for run in study.groups[0].runs] == ["a"]
    assert study.notes == [
        f"{tmp_path}/b: unfinished, 2 of 3 tasks are done; left out",
        f"{tmp_path}/c: unfinished, no task is done; left out",
        f"{tmp_path}/d: nothing was judged in it; left out",
    ]
    with pytest.raises(UsageError, match="no finished run remains"):
        read_study([tmp_path / "b"])


def test_of_two_runs_with_the_same_flags_and_seeds_the_first_counts(tmp_path: Path) -> None:
    later = make_run(tmp_path / "a", start="2026-01-03T00:00:00+00:00", level=0.5)
    make_run(tmp_path / "b", start="2026-01-03T00:30:00+01:00")  # half an hour earlier
    study = read_study([tmp_path])
    assert [run.experiment for run in study.groups[0].runs] == ["b"]
    assert study.notes == ["a: same flags and seeds as b, started later, with other accuracies; left out"]
    assert later.exists()


def with_images(folder: Path, digest: str, **flags: Any) -> Path:
    """A run on images of its own, under the name that others have too."""
    path = make_run(folder, **flags) / "experiment.json"
    write_json(path, {**read_json(path), "images": {"training": digest, "test": digest}})
    return folder


def test_images_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for name, digest, seed in (("a", "one", 5), ("b", "one", 6), ("c", "two", 5), ("d", "two", 6)):
        with_images(tmp_path / name, digest, seed=seed, dataset="custom")
    make_run(tmp_path / "e", dataset="digits")
    study = read_study([tmp_path])
    assert [[run.experiment for run in group.runs] for group in study.groups] == [["a", "b"], ["c", "d"], ["e"]]
    assert study.notes[-1] == "--dataset custom stands for several sets of images; `images` tells them apart"
    assert len({group.label for group in study.groups}) == 3 and "images=" in study.groups[0].label
    (tmp_path / "runs.csv").write_text(runs_text(study))
    assert as_json(read_study([tmp_path / "runs.csv"])) == as_json(study)
    alone = read_study([tmp_path / "a", tmp_path / "b"])
    assert len(alone.groups) == 1 and "images" not in alone.common and not alone.notes


def test_images_that_a_seed_has_chosen_are_those_of_one_data_set(tmp_path: Path) -> None:
    with_images(tmp_path / "a", "one", held_back=0.1)
    with_images(tmp_path / "b", "two", held_back=0.1, seed=6)
    assert len(read_study([tmp_path]).groups) == 1


def test_the_same_run_twice_counts_once_with_the_heads_of_both(tmp_path: Path) -> None:
    first = run_of(tmp_path / "a", heads=("classifier",))
    again = run_of(tmp_path / "b", start="2026-01-03T00:00:00+00:00")
    kept, lines = without_duplicates([again, first])
    assert [(run.experiment, list(run.heads)) for run in kept] == [("a", ["classifier", "knn"])]
    assert lines == ["b: same flags and seeds as a, with the same accuracies; counted once"]
    assert read_study([tmp_path / "a", tmp_path / "a"]).notes == []


def test_all_classes_at_once_may_stand_beside_tasks(tmp_path: Path) -> None:
    make_run(tmp_path / "joint", num_tasks=1, name="joint")
    make_run(tmp_path / "tasks", num_tasks=3, name="tasks")
    study = read_study([tmp_path])
    assert study.task_names == ["0, 1", "2, 3", "4, 5"]
    assert {group.label: group.tasks for group in study.groups} == {"joint": 1, "tasks": 3}
    joint = next(group for group in study.groups if group.label == "joint").heads["classifier"]
    assert joint.metrics["forgetting"] is None
    lines = accuracy_over_tasks(study, "classifier").axes[0].lines
    level = next(line.get_ydata() for line in lines if line.get_marker() == "")
    assert list(level) == [joint.over_tasks[0].mean] * 3
    assert len(accuracy_matrices(study, "classifier").axes) == 2  # the matrix with tasks, and the colour bar


def test_other_numbers_of_tasks_do_not_compare(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", num_tasks=4)
    with pytest.raises(UsageError, match="b has 4 tasks, and a has 3"):
        read_study([tmp_path])


def test_experiments_are_found_at_any_depth_and_through_links(tmp_path: Path) -> None:
    make_run(tmp_path / "x" / "y" / "run10")
    make_run(tmp_path / "x" / "y" / "run9")
    (tmp_path / "x" / "circle").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "x" / "y")
    assert [path.name for path in find_experiments(tmp_path / "link")] == ["run9", "run10"]
    assert len(find_experiments(tmp_path)) == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no experiment"):
        find_experiments(tmp_path / "empty")


@pytest.mark.parametrize("damage", [{"seeds": {"seed": "x"}}, {"seeds": {"seed": 5}}, {"flags": {"lr": [[1]]}}])
def test_a_damaged_experiment_is_one_line(tmp_path: Path, damage: dict[str, Any]) -> None:
    path = make_run(tmp_path / "a") / "experiment.json"
    write_json(path, {**read_json(path), **damage})
    with pytest.raises(UsageError, match="experiment.json: .*; restore the file") as caught:
        read_study([tmp_path])
    assert len(str(caught.value).splitlines()) == 1


# ---- runs.csv ----------------------------------------------------------------------------------------------


def test_rows_give_the_same_study_as_the_folders(tmp_path: Path) -> None:
    study = read_study([make_study(tmp_path / "all", named=True)])
    path = tmp_path / "runs.csv"
    path.write_text(runs_text(study))
    again = read_study([path])
    assert as_json(again) == as_json(study)
    assert runs_text(again) == path.read_text()
    assert as_json(read_study([path, tmp_path / "all"])) == as_json(study)  # each counts once


def test_rows_of_two_machines_are_put_together(tmp_path: Path) -> None:
    whole = read_study([make_study(tmp_path / "all", ("simclr",), ("kaizen",), (5, 6, 7))])
    pieces = []
    for i, names in enumerate((["seed5", "seed6"], ["seed7"])):
        part = read_study([tmp_path / "all" / f"simclr-kaizen-{name}" for name in names])
        pieces.append(tmp_path / f"{i}.csv")
        pieces[-1].write_text("\ufeff" * i + runs_text(part))  # some programs begin a file so
    assert as_json(read_study(pieces)) == as_json(whole)


def test_rows_name_no_places(tmp_path: Path) -> None:
    text = runs_text(read_study([make_run(tmp_path / "a", data_dir="/home/me/data")]))
    assert "/home/me" not in text and str(tmp_path) not in text


def test_long_cells_are_for_these_files_alone(tmp_path: Path) -> None:
    """The limit of a cell is one for all readers in a process."""
    path, usual = tmp_path / "runs.csv", csv.field_size_limit()
    text = runs_text(read_study([make_run(tmp_path / "a", name="x" * 2 * usual)]))
    path.write_text(text)
    assert len(read_rows(path)[0].name) == 2 * usual
    path.write_text(text[:-9])
    with pytest.raises(UsageError):
        read_rows(path)
    assert csv.field_size_limit() == usual


DAMAGES: dict[str, tuple[str, str, str]] = {
    "accuracy above 1": ("accuracy_matrix", "[[2,0,0],[0,0,0],[0,0,0]]", "accuracy_matrix[0][0] is 2"),
    "NaN": ("accuracy_matrix", "[[NaN,0,0],[0,0,0],[0,0,0]]", "NaN is no number"),
    "matrix too short": ("accuracy_matrix", "[[0,0,0]]", "accuracy_matrix has not one row"),
    "matrix of another kind": ("accuracy_matrix", '{"a": 1}', "accuracy_matrix has not one row"),
    "row of another kind": ("accuracy_matrix", "[1,2,3]", "accuracy_matrix[0] is no list"),
    "baseline": ("baseline", '{"a": 1}', "baseline is no list"),
    "no JSON": ("flags", "{", "flags: "),
    "flags of another kind": ("flags", "[]", "flags name no values"),
    "a flag of another kind": ("flags", '{"lr": {"a": 1}}', "flag lr is {'a': 1}"),
    "an endless flag": ("flags", '{"lr": 1e999}', "flag lr is inf"),
    "half a character": ("flags", '{"lr": "\\ud800"}', "flags: "),
    "nested": ("flags", "[" * 100_000, "flags: nested too deep"),
    "no seed": ("seed", "", "seed: "),
    "a seed that is none": ("seed", "1.5", "seeds are"),
    "no moment": ("started", "yesterday", "yesterday"),
    "the end of time": ("started", "9999-12-31T23:59:59-23:59", "is no moment"),
    "names of another kind": ("task_names", "[1, 2, 3]", "task_names is no list of names"),
    "no head": ("head", "", "has no name"),
}


@pytest.mark.parametrize(("column", "value", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_row_is_one_line_that_names_it(tmp_path: Path, column: str, value: str, message: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(runs_text(read_study([make_run(tmp_path / "a")])))
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[1][column] = value
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(UsageError) as caught:
        read_rows(path)
    text = str(caught.value)
    assert text.startswith(f"{path} row 3: ") and message in text and text.isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "row 1: lacks the columns experiment"),
        (b"a,b\n1,2\n", "row 1: lacks the columns experiment"),
        (b"\xff\xfe", "utf-8"),
        (b'"', "row 1: "),
        (b"group\0", "row 1: "),
    ],
)
def test_a_file_of_something_else_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_rows(path)
    assert message in str(caught.value) and str(caught.value).isprintable()


def test_rows_that_are_cut_or_doubled(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    text = runs_text(read_study([make_run(tmp_path / "a")]))
    lines = text.splitlines(keepends=True)
    for damaged, message in (
        (lines[0], "has no rows"),
        ("".join(lines[:2]) + lines[2][:40] + "\n", "row 3: has another number of cells"),
        ("".join([*lines, lines[1]]), "row 4: head 'classifier' is there twice"),
        (text[:-3], "row 3: "),
    ):
        path.write_text(damaged)
        with pytest.raises(UsageError, match=message):
            read_rows(path)


# ---- tables ------------------------------------------------------------------------------------------------


def test_latex_prints_every_character_as_it_is() -> None:
    assert escape_latex(r"a_b & 5% #1 $x$ {y} ~ ^ \z <|> a--b-c") == (
        r"a\_b \& 5\% \#1 \$x\$ \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}z "
        r"\textless{}\textbar{}\textgreater{} a-{}-b-c"
    )


def test_the_tables_hold_means_and_deviations(tmp_path: Path) -> None:
    study = read_study(
        [make_study(tmp_path / "all", named=True, arms=("kaizen",)), make_run(tmp_path / "x", name="50% | `odd`")]
    )
    stat = study.groups[0].heads["classifier"].metrics["final_accuracy"]
    assert stat is not None
    label = study.groups[0].label
    assert f"| `{label}` | 3 | {stat.mean:.3f} ± {stat.sd:.3f} |" in markdown(study, ["plots/a.png"])
    assert "| `simclr 50% \\| 'odd'` | 1 | 0." in markdown(study, [])
    assert f"{label} & ${stat.mean:.3f} \\pm {stat.sd:.3f}$ & " in latex(study)
    assert r"50\% \textbar{} `odd` & $0." in latex(study)
    rows = list(csv.DictReader(csv_text(study).splitlines()))
    assert rows[0] == {
        "group": label, "method": "byol", "arm": "kaizen", "head": "classifier", "metric": "final_accuracy",
        "mean": repr(stat.mean), "sd": repr(stat.sd), "n": "3",
    }  # fmt: skip
    assert json.loads(json.dumps(as_json(study), allow_nan=False))["groups"][0]["runs"][0]["seed"] == 5


def test_hostile_names_stay_in_their_line(tmp_path: Path) -> None:
    study = study_of([run_of(tmp_path / "a", name="\x1b[2J\n| x", heads=("a\nb",))])
    texts = (study.groups[0].label, *study.heads)
    assert all(text.isprintable() for text in texts)
