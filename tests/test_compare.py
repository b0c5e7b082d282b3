"""The command that compares: its files, its figures and its refusals; and from a recipe to a comparison."""

from __future__ import annotations

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from studies import make_run, make_study

from kaizen import compare, study_bars, study_plots, study_tables
from kaizen.compare import main, read_study
from kaizen.files import read_json

ROOT = Path(__file__).resolve().parent.parent
PNG = b"\x89PNG"
SCRIPT = """\
python3 main_continual.py --name tiny --dataset digits --method simclr --encoder resnet9 --encoder_width 0.25 \\
    --size 8 --split_strategy data --num_tasks 1 --max_epochs 9 --batch_size 512 --knn_k 3 --classifier_layers 8 8 \\
    --proj_hidden_dim 8 --output_dim 4
"""


def test_a_comparison_is_written_whole_and_the_same_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, out = make_study(tmp_path / "runs", seeds=(5, 6)), tmp_path / "out"
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert main([str(place), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "classifier: mean ± sd over runs" in shown and "comparison in" in shown
    files = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    kinds = ("accuracy_bars", "accuracy_matrices", "accuracy_over_tasks", "forgetting_bars")
    plots = {f"plots/{kind}_classifier.png" for kind in kinds}
    assert files.keys() == {
        *plots,
        *(f"comparison.{end}" for end in ("md", "csv", "tex", "json")),
        "report.html",
        "runs.csv",
    }
    assert all(files[name].startswith(PNG) for name in plots)
    assert all(f"]({name})" in files["comparison.md"].decode() for name in plots)
    assert len(read_json(out / "comparison.json")["groups"]) == 4
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    assert main([str(out / "runs.csv"), "--out", str(tmp_path / "again")]) == 0
    for name in (name for name in files if name not in plots):
        assert (tmp_path / "again" / name).read_bytes() == files[name], name


def test_another_head_for_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = make_run(tmp_path / "a", heads=("online", "knn"))
    study = read_study([place])
    assert (compare.chosen_head(study, None), compare.chosen_head(study, "knn")) == ("online", "knn")
    assert main([str(place), "--head", "kn"]) == 2
    assert "choose from online, knn (did you mean knn?)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["nothing to compare"]),
        (["none"], ["none", "No such file"]),
        (["none.csv"], ["none.csv", "No such file"]),
        (["a", "--ot", "x"], ["--ot", "did you mean --out?"]),
        (["a", "--out"], ["--out", "expected one argument"]),
        (["a", "--out", "a/plots"], ["--out a/plots", "in the experiment a"]),
        (["a", "--out", "file"], ["file", "check this path"]),
        (["a", "b"], ["4 tasks", "3"]),
        (["empty"], ["empty", "holds no experiment"]),
    ],
)
def test_a_mistake_is_one_line(
    argv: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", num_tasks=4)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ") and told.err.count("\n") == 1 and told.out == ""
    assert all(word in told.err for word in words), told.err


def test_what_is_left_out_is_told_in_the_terminal_and_in_the_report(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "half", seed=6, done=1)
    study = read_study([tmp_path])
    text = StringIO()
    study_tables.show(study, "classifier", Console(file=text, width=80))
    assert "half: unfinished, 1 of 3 tasks are done; left out" in text.getvalue()
    assert "half: unfinished" in study_tables.markdown(study, [])


def test_bars_stand_by_method_with_a_colour_for_each_arm(tmp_path: Path) -> None:
    study = read_study([make_study(tmp_path, named=True)])
    figure = study_bars.accuracy_bars(study, "classifier")
    final, continual = figure.axes
    stats = [group.heads["classifier"].metrics["final_accuracy"] for group in study.groups]
    assert [bar.get_height() for bar in final.patches] == [stat.mean for stat in stats if stat]
    assert [label.get_text() for label in final.get_xticklabels()] == ["byol", "simclr"]
    colours = [bar.get_facecolor() for bar in continual.patches]
    assert colours[:2] == colours[2:] and colours[0] != colours[1]
    assert [text.get_text().strip() for text in figure.legends[0].get_texts()] == ["finetune", "kaizen"]
    assert study_bars.forgetting_bars(study, "classifier").axes[0].get_ylabel() == "forgetting"


def test_lines_and_bands_over_tasks(tmp_path: Path) -> None:
    study = read_study([make_study(tmp_path, named=True)])
    figure = study_plots.accuracy_over_tasks(study, "classifier")
    assert [axes.get_title() for axes in figure.axes] == ["byol", "simclr"]
    summary = study.groups[0].heads["classifier"].over_tasks
    line, band = figure.axes[0].lines[0], figure.axes[0].collections[0]
    assert list(line.get_ydata()) == [stat.mean for stat in summary]
    edge = band.get_paths()[0].vertices[:, 1]
    assert edge.max() == pytest.approx(max(stat.mean + (stat.sd or 0) for stat in summary))
    top = max(stat.mean for group in study.groups for stat in group.heads["classifier"].over_tasks)
    assert figure.axes[0].get_ylim()[1] > top  # nothing is cut off


@pytest.mark.parametrize("count", [1, 9])
def test_figures_can_be_drawn_for_few_and_many(tmp_path: Path, count: int) -> None:
    for i in range(count):
        make_run(tmp_path / str(i), lr=0.1 * (i + 1), name=f"_a $name_{i}$", num_tasks=1 + (count == 1))
    study = read_study([tmp_path])
    assert len(study.groups) == count
    for draw in compare.FIGURES:
        draw(study, "classifier").canvas.draw()


def test_the_command_starts_without_torch() -> None:
    check = "import sys, kaizen.compare; sys.exit(bool({'torch', 'matplotlib', 'rich', 'numpy'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True)


@pytest.mark.slow
@pytest.mark.long
def test_from_a_recipe_with_two_seeds_to_a_comparison(tmp_path: Path) -> None:
    def start(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True,
                              timeout=280)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done

    (tmp_path / "tiny.sh").write_text(SCRIPT)
    launch = [str(ROOT / "job_launcher.py"), "--script", "tiny.sh", "--seeds", "5", "6", "--experiment_dir", "tiny"]
    launch += ["--set", "max_epochs=1", "name=short", "classifier_layers=16 8"]
    start(*launch)
    flags = read_json(tmp_path / "experiments" / "tiny-seed6" / "experiment.json")["flags"]
    found = {name: flags[name] for name in ("seed", "split_seed", "max_epochs", "name", "classifier_layers")}
    assert found == {"seed": 6, "split_seed": 6, "max_epochs": 1, "name": "short", "classifier_layers": [16, 8]}
    shown = start("-m", "kaizen.compare", "experiments").stdout
    assert "short" in shown and "comparison in comparison" in shown
    (group,) = read_json(tmp_path / "comparison" / "comparison.json")["groups"]
    assert group["label"] == "short" and [run["seed"] for run in group["runs"]] == [5, 6]
    assert group["heads"]["classifier"]["metrics"]["final_accuracy"]["n"] == 2
