"""report.html: what stands in it, of whole, unfinished, damaged and hostile folders."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from made_up import HOSTILE, Reader, make_experiment, write_state, write_views

from kaizen.args import UsageError
from kaizen.files import read_json, write_json
from kaizen.metrics import METRICS
from kaizen.page.report import write_report
from kaizen.page.words import LOSSES, metric_words
from kaizen.report import collect
from kaizen.states import note

ROOT = Path(__file__).resolve().parents[2]


def read(folder: Path) -> Reader:
    return Reader(write_report(folder).read_text(encoding="utf-8"))


def test_the_page_stands_alone_and_is_well_formed(tmp_path: Path) -> None:
    page = read(make_experiment(tmp_path / "run"))
    assert page.all("html") == [{"lang": "en"}]
    assert [name for name, _ in page.tags if name in ("script", "link", "iframe", "object", "form", "base")] == []
    loaded = [value for _, found in page.tags for name, value in found.items() if name in ("src", "href", "action")]
    assert all(value.startswith(("data:image/", "#")) for value in loaded if value is not None)
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(ids) == len(set(ids)) > 8
    assert {found["href"] for found in page.all("a")} <= {f"#{name}" for name in ids}
    assert all(found["alt"] for found in page.all("img"))
    pictures = [found for found in page.all("svg") if found.get("aria-hidden") != "true"]
    assert pictures and all(found["role"] == "img" and found["aria-label"] for found in pictures)
    assert all(found.get("scope") in ("row", "col") for found in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    headings = [int(name[1]) for name, _ in page.tags if name in ("h1", "h2", "h3", "h4")]
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(below - above <= 1 for above, below in zip(headings, headings[1:], strict=False))


def test_all_figures_are_those_of_the_results(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "run")
    page, results = read(folder), collect(folder)
    for head in results["heads"].values():
        for value in (head[name] for name in METRICS):
            assert f"{value:.3f}".replace("-", "\u2212") in page.texts
        assert all(f"{value:.3f}" in page.texts for row in head["accuracy_matrix"] for value in row)
    big = [page.texts[i] for i, text in enumerate(page.texts[:60]) if text.startswith("0.")][:3]
    main = results["heads"]["classifier"]
    assert big == [f"{main[name]:.3f}" for name in ("final_accuracy", "continual_accuracy", "forgetting")]


def test_every_metric_head_and_term_is_explained(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "run")
    text = read(folder).text
    for name in METRICS:
        words = metric_words(name)
        assert words.formula in text and words.meaning in text and words.direction in text
        assert words.better in ("higher", "lower")
    assert LOSSES["ssl"] in text and "nearest neighbours" in text and "fractions" in text


def test_a_metric_that_is_new_says_what_its_function_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def newest(matrix: object, baseline: object = None) -> float:
        """Something that nobody has measured before.

        More about it.
        """
        return 0.5

    monkeypatch.setitem(METRICS, "newest", newest)
    text = read(make_experiment(tmp_path / "run")).text
    assert "Something that nobody has measured before." in text and "More about it" not in text


def test_flags_that_were_set_come_first_with_their_defaults(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "run")
    texts = read(folder).texts
    start, default = texts.index("Set for this run"), texts.index("As by default")
    assert start < texts.index("--lr") < default < texts.index("--seed")
    place = texts.index("--lr")
    assert texts[place + 1 : place + 3] == ["0.7", "default 0.3"]


@pytest.mark.parametrize(
    ("flags", "means"),
    [
        ({}, "feature distillation, classifier distillation, replay of some earlier images"),
        ({"classifier_distill_lamb": 0.0}, "feature distillation, replay of some earlier images"),
        ({"feature_extractor_distill_lamb": 0.0, "replay": False}, "classifier distillation"),
        ({"no_distill": True, "replay": False}, "nothing"),
    ],
)
def test_it_says_what_works_against_forgetting(tmp_path: Path, flags: dict[str, object], means: str) -> None:
    path = make_experiment(tmp_path / "run") / "experiment.json"
    about = read_json(path)
    about["flags"] |= {"distiller": "predictive", "distiller_classifier": "soft_label", **flags}
    write_json(path, about)
    assert f"Against forgetting: {means}." in write_report(path.parent).read_text()


def test_what_was_said_on_the_way_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_experiment(tmp_path / "run", num_tasks=2, done=2, notices=["at the start"])
    for _ in range(2):  # a start that meets the same again
        note(folder / "task1", "warning: a file is damaged")
    note(folder, "kept offline")
    assert capsys.readouterr().out.splitlines() == ["warning: a file is damaged"] * 2 + ["kept offline"]
    texts = Reader(write_report(folder).read_text()).texts
    for line in ("at the start", "Task 1: warning: a file is damaged", "kept offline"):
        assert texts.count(line) == 1
    (folder / "task1" / "notes.json").write_text("[")
    assert "at the start" in Reader(write_report(folder).read_text()).texts


def test_names_become_text_wherever_they_stand(tmp_path: Path) -> None:
    name = f"{HOSTILE}\"'&\u202e\x07"
    folder = make_experiment(tmp_path / "run", num_tasks=2, done=2, classes=[name] * 4, notices=[HOSTILE])
    about = read_json(folder / "experiment.json")
    about |= {"name": HOSTILE, "skipped_images": [HOSTILE], "versions": {HOSTILE: HOSTILE}, "seeds": {HOSTILE: 5}}
    about["flags"] |= {"dataset": HOSTILE, "method": HOSTILE, HOSTILE: HOSTILE}
    write_json(folder / "experiment.json", about)
    content = read_json(folder / "task0" / "accuracy.json")
    for task in range(2):
        heads = {HOSTILE: content["heads"]["knn"]}
        write_json(folder / f"task{task}" / "accuracy.json", {**content, "heads": heads, "baseline": None})
        with (folder / f"task{task}" / "metrics.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [["step", f"train/{HOSTILE}", f"lr/{HOSTILE}", f"val/{HOSTILE}/task0"], [1] * 4, [2] * 4]
            )
    raw = write_report(folder).read_text(encoding="utf-8")
    page = Reader(raw)
    assert "<script" not in raw and page.all("script") == []
    assert "\u202e" not in raw and "\x07" not in raw
    assert f"{HOSTILE}\"'&\ufffd\ufffd" in page.texts  # the name of an image's class
    assert HOSTILE in page.texts
    assert {name for _, found in page.tags for name in found} <= {
        *("lang", "charset", "name", "content", "http-equiv", "class", "id", "href", "aria-label", "aria-labelledby"),
        *("aria-hidden", "tabindex", "role", "scope", "style", "src", "alt", "width", "height", "viewbox", "d", "r"),
        *("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "text-anchor", "stroke-dasharray"),
    }


def test_a_name_that_no_file_can_say_does_not_stop_it(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "run", num_tasks=1, done=1)
    (folder / "task0" / "metrics.csv").write_bytes(b"step,train/\xff\n1,2\n")
    assert "\ufffd" in read(folder).text


def test_a_task_that_failed_is_the_first_thing_to_read(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "run", done=1)
    write_state(folder / "task1", "failed", 2)
    text = read(folder).text
    assert "failed in task 1 (exit status 2), 1 of 3 tasks done" in text
    assert "Task 1 was ended by an error (exit status 2)" in text and "--experiment_dir run" in text
    write_state(folder / "task1", "interrupted", 143, "SIGTERM")
    text = read(folder).text
    assert "interrupted, 1 of 3 tasks done" in text and "(SIGTERM)" in text


def test_before_the_first_task_is_done_there_is_a_page_too(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "run", done=0)
    page = read(folder)
    assert "not finished, 0 of 3 tasks done" in page.text and "Nothing was logged yet" in page.text
    assert "There are no results" not in page.text
    assert "As by default" in page.text


def test_without_heads_it_says_why(tmp_path: Path) -> None:
    assert "no labels: nothing to judge" in read(make_experiment(tmp_path / "run", heads=())).text


def test_damaged_files_are_told_of_and_the_rest_is_shown(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "run")
    (folder / "task1" / "accuracy.json").write_text("{")
    (folder / "task0" / "metrics.csv").write_text("step,train/ssl\n1,nan\nx,2\n2,0.5\n3\n-1,7\n")
    (folder / "task1" / "metrics.csv").unlink()
    (folder / "task2" / "metrics.csv").write_bytes(b"step,train/ssl\n1,0.25\n" + b"x" * 200_000 + b",\n")
    (folder / "task0" / "views.png").write_bytes(b"\x89PNG")
    (folder / "task1" / "views.json").write_text('{"columns": 3}')
    (folder / "task2" / "state.json").write_text("[]")
    page = read(folder)
    assert "the files of task 1 are damaged" in page.text and "There are no results" in page.text
    assert page.text.count("the sample views are damaged") == 2
    assert "metrics.csv of task 2 cannot be read to its end" in page.text


def test_folders_from_before_classes_were_kept(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "run")
    about = read_json(folder / "experiment.json")
    for name in ("classes", "notices", "skipped_images"):
        del about[name]
    write_json(folder / "experiment.json", about)
    assert "thing 2, thing 3" in read(folder).texts  # from the task's name


def test_sample_views_have_a_cell_for_each_view_and_the_class_beside(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "run", num_tasks=1, done=1)
    write_views(folder / "task0", "a cat", cell=90)
    page = read(folder)
    assert "a cat" in page.texts and "no label" in page.texts
    images = page.all("img")
    assert [found["alt"] for found in images[:3]] == ["original of a cat", "view 1 of a cat", "view 2 of a cat"]
    assert len(images) == 6 and all(str(found["src"]).startswith("data:image/jpeg") for found in images)


def test_too_many_pictures_are_left_to_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaizen.page.pictures.MOST_BYTES", 100)
    page = read(make_experiment(tmp_path / "run"))
    assert len(page.all("img")) == 6 and "Not shown here: task 1, 2" in page.text


def test_forty_tasks_fit(tmp_path: Path) -> None:
    page = read(make_experiment(tmp_path / "run", num_tasks=40, done=40, steps=400))
    assert "heat dense" in {found.get("class") for found in page.all("table")}
    assert (tmp_path / "run" / "report.html").stat().st_size < 4_000_000


def test_it_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_experiment(tmp_path / "run")
    before = write_report(folder).read_bytes()
    monkeypatch.setattr("kaizen.files.os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="report.html"):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == before
    assert not list(folder.glob(".report*"))


def test_a_folder_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        write_report(tmp_path)
    for argv in ([str(tmp_path)], [], ["--no"], [str(tmp_path / "no\n")]):
        done = subprocess.run([sys.executable, "-m", "kaizen.page", *argv], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_the_same_folder_gives_the_same_page(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "run")
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    assert b"as of 2026-01-02 03:05" in first


def test_by_hand(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "run")
    (folder / "experiment.json").write_text(json.dumps(read_json(folder / "experiment.json")))
    done = subprocess.run([sys.executable, "-m", "kaizen.page", str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"open {folder}/report.html\n" and (folder / "report.html").exists()
