"""The page of a comparison: its figures, what it marks, and what it says of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_up import HOSTILE, Reader
from studies import make_run, make_study

from kaizen.compare import read_study
from kaizen.metrics import METRICS
from kaizen.page.comparison import comparison_page
from kaizen.study import Study
from kaizen.study_tables import stat_text


def shown(study: Study, head: str = "classifier") -> Reader:
    return Reader(comparison_page(study, head))


def test_all_figures_of_all_groups_and_runs_are_in_it(tmp_path: Path) -> None:
    study = read_study([make_study(tmp_path, named=True)])
    page = shown(study)
    for group in study.groups:
        for head, summary in group.heads.items():
            assert head in page.texts
            for stat in summary.metrics.values():
                assert stat_text(stat).replace("-", "\u2212") in page.texts or stat is None
        assert all(f"{stat.mean:.3f}" in page.texts for row in group.heads["classifier"].matrix for stat in row)
        for run in group.runs:
            assert run.experiment in page.texts
            assert f"{run.heads['classifier'].metrics['final_accuracy']:.3f}" in page.texts
    assert all(name.replace("_", " ") in " ".join(page.texts) for name in METRICS)
    assert {"--method", "--dataset"} <= {*page.texts}


def test_it_stands_alone_and_is_well_formed(tmp_path: Path) -> None:
    page = shown(read_study([make_study(tmp_path, seeds=(5, 6), name=HOSTILE)]))
    assert [name for name, _ in page.tags if name in ("script", "link", "iframe", "object", "form", "base")] == []
    ids = [found["id"] for _, found in page.tags if "id" in found]
    assert len(ids) == len(set(ids)) >= 6
    assert {found["href"] for found in page.all("a")} <= {f"#{name}" for name in ids}
    assert len(page.all("caption")) == len(page.all("table"))
    pictures = [found for found in page.all("svg") if found.get("aria-hidden") != "true"]
    assert pictures and all(found["role"] == "img" and found["aria-label"] for found in pictures)


def test_the_best_of_each_method_is_marked_and_the_ceiling_is_not(tmp_path: Path) -> None:
    for name, level in (("good", 0.5), ("bad", 0.1)):  # lr tells them apart
        for seed in (5, 6):
            make_run(tmp_path / f"{name}{seed}", seed=seed, level=level, name=name, lr=level)
    make_run(tmp_path / "joint", num_tasks=1, level=0.7, name="joint")
    study = read_study([tmp_path])
    rows = comparison_page(study, "classifier").split("<tbody>")[1].split("</tbody>")[0].split("<tr>")[1:]
    marked = {
        next(name for name in ("good", "bad", "joint") if f">{name}<" in row): row.count('"best"') for row in rows
    }
    assert marked["joint"] == 0 and marked["good"] >= 2 and marked["good"] + marked["bad"] == 3
    best = min(study.groups[:2], key=lambda group: group.heads["classifier"].metrics["forgetting"].mean)  # type: ignore[union-attr]
    assert marked[best.arm] > 0


@pytest.mark.parametrize("num_tasks", [1, 2, 11])
def test_few_and_many_tasks_and_a_head_that_one_group_has(tmp_path: Path, num_tasks: int) -> None:
    make_run(tmp_path / "a", num_tasks=num_tasks, name="a")
    make_run(tmp_path / "b", num_tasks=num_tasks, heads=("online",), name="b")
    study = read_study([tmp_path])
    for head in study.heads:
        page = shown(study, head)
        assert page.all("h1") and ("Accuracy matrices" in page.texts) == (num_tasks > 1)


def test_a_head_that_is_never_right(tmp_path: Path) -> None:
    for name in "ab":
        make_run(tmp_path / name, name=name, level=-9)
    assert shown(read_study([tmp_path])).all("h1")


def test_an_arm_has_one_colour_with_all_methods(tmp_path: Path) -> None:
    for method, arms in (("simclr", "AB"), ("byol", "BC")):
        for arm in arms:
            make_run(tmp_path / method / arm, method, name=arm, lr=ord(arm) / 100)
    page = comparison_page(read_study([tmp_path]), "classifier")
    legends = re.findall(r'stroke:var\(--s(\d)\)"[^>]*></path></svg>(\w) now', page)
    assert len(legends) == 4 and len(set(legends)) == 3 and {number for number, _ in legends} == {*"012"}


def test_notes_and_forgetting_below_zero(tmp_path: Path) -> None:
    make_run(tmp_path / "a", name="a", level=-0.5)
    make_run(tmp_path / "b", name="b", seed=6)
    make_run(tmp_path / "c", done=1, name="c")
    page = shown(read_study([tmp_path]))
    assert "To know" in page.texts and any("left out" in text for text in page.texts)
