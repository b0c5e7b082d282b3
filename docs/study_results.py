"""Writes what the study has found into docs/study.md and README.md, and draws its pictures.

    python docs/study_results.py

Everything comes from the rows in bash_files/study_cifar10_cpu/. A test holds the tables against these rows.
"""

from __future__ import annotations

import csv
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kaizen.compare import read_study  # noqa: E402
from kaizen.files import atomic_write_text  # noqa: E402
from kaizen.metrics import HEADLINE  # noqa: E402
from kaizen.plots import INK, save_figure  # noqa: E402
from kaizen.runs import Run  # noqa: E402
from kaizen.runs_csv import read_rows  # noqa: E402
from kaizen.study import Stat  # noqa: E402
from kaizen.study_bars import accuracy_bars  # noqa: E402
from kaizen.study_look import legend, line_look, new_figure, tidy  # noqa: E402
from kaizen.study_plots import accuracy_over_tasks  # noqa: E402

ROWS = ROOT / "bash_files" / "study_cifar10_cpu"
NAMES = {"mocov2plus": "MoCo v2+", "simclr": "SimCLR", "byol": "BYOL", "vicreg": "VICReg"}
ARMS = ("Kaizen", "CaSSLe + replay", "no distillation + replay", "CaSSLe", "no distillation", "joint")
SCALES = ("1,000 images a class", "3 epochs", "the study", "30 epochs", "30 epochs, weight 2")  # smaller ones first
EPOCHS = {"3 epochs": 3, "the study": 10, "30 epochs": 30, "30 epochs, weight 2": 30}
COLUMNS = ["seeds", "final", "continual", "forgetting", "features: kNN final"]
FIGURES = (accuracy_bars, accuracy_over_tasks)
Table = list[list[str]]  # rows of cells, the first says what the columns are
Arms = dict[tuple[str, str], list[Run]]  # method and --name, in the order of NAMES and ARMS


def main() -> int:
    """Write the tables and draw the pictures."""
    for page, marker in PLACES:
        text = (ROOT / page).read_text(encoding="utf-8")
        atomic_write_text(ROOT / page, with_table(text, marker))
    study = read_study([ROWS / "runs.csv"])
    groups = sorted(study.groups, key=lambda group: _order(group.method, group.arm))
    study = replace(study, groups=[replace(group, method=NAMES[group.method]) for group in groups])
    for draw in FIGURES:
        save_figure(draw(study, "classifier"), picture_of(draw))
    save_figure(accuracy_over_epochs(), picture_of(accuracy_over_epochs))
    return 0


def picture_of(draw: Callable[..., Figure]) -> Path:
    """Where a figure is kept."""
    return ROOT / "imgs" / f"study_{draw.__name__}.png"


def with_table(text: str, marker: str) -> str:
    """The page with one of its tables as it should be."""
    head, *rows = TABLES[marker]()
    lines = "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
    pattern = rf"(<!-- {marker} -->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda found: f"{found[1]}\n{lines}\n\n{found[2]}", text, flags=re.DOTALL)


def results() -> Table:
    """Every arm of each method."""
    rows = [[NAMES[method], _shown(arm), *_numbers(runs)] for (method, arm), runs in _arms("runs").items()]
    return [["method", "arm", *COLUMNS], *rows]


def distances() -> Table:
    """How far Kaizen's classifier is from each arm, also in pooled standard deviations."""
    rows, arms = [], _arms("runs")
    for (method, arm), runs in arms.items():
        if arm not in ("Kaizen", "joint"):
            cells = [_distance(arms[method, "Kaizen"], runs, metric) for metric in HEADLINE[:2]]
            rows.append([NAMES[method], arm, *(cell for pair in cells for cell in pair)])
    return [["method", "Kaizen minus", "final", "in pooled sd", "continual", "in pooled sd"], *rows]


def scales() -> Table:
    """The arms at other scales, and in the study with the same seeds."""
    rows = [[NAMES[method], scale, _shown(arm), *_numbers(runs)] for method, scale, arm, runs in _by_scale()]
    return [["method", "scale", "arm", *COLUMNS], *rows]


def probes() -> Table:
    """What the published way to train the probe makes of its numbers."""
    rows = []
    for (method, name), runs in _others().items():
        if name == "Kaizen" or "probe" in name:
            how = "update" if "probe" in name else "frozen"
            found = [_over(runs, metric, "online") for metric in HEADLINE]
            rest = [_over(runs, "final_accuracy", head) for head in ("classifier", "knn")]
            rows.append([NAMES[method], f"`{how}`", str(len(runs)), *map(_text, found + rest)])
    probe = [f"probe: {name}" for name in ("final", "continual", "forgetting")]
    return [["method", "`--online_eval_batchnorm`", "seeds", *probe, "classifier: final", "kNN: final"], *rows]


def accuracy_over_epochs() -> Figure:
    """Draw what the arms end with, their classifier and k nearest neighbours, over the epochs of a task."""
    lines: dict[str, list[tuple[int, list[Run]]]] = {}
    for method, scale, arm, runs in _by_scale():
        about = f"{NAMES[method]}, seed {runs[0].seeds[0]}"
        if scale in EPOCHS:
            weight = scale.partition(", ")[2]
            lines.setdefault(f"{arm}, {weight}" if weight else arm, []).append((EPOCHS[scale], runs))
    figure, grid = new_figure(7.2, 3.8, 1, 2, f"{about}: accuracy after the last task")
    handles = {}
    titles = {"classifier": "classifier", "knn": "features: k nearest neighbours"}
    for axes, (head, title) in zip(grid, titles.items(), strict=True):
        for style, (arm, points) in enumerate(lines.items()):
            stats = [_over(runs, "final_accuracy", head) for _, runs in points]
            heights = [stat.mean for stat in stats if stat is not None]
            handles[arm] = axes.plot([place for place, _ in points], heights, **line_look(style))[0]
        tidy(axes)
        axes.set_xscale("log")
        epochs = sorted(set(EPOCHS.values()))
        axes.set_xticks(epochs, map(str, epochs))
        axes.set_xticks([], minor=True)
        axes.set_xlim(2.5, 36)
        axes.set_title(title, color=INK, size=10)
        axes.set_xlabel("epochs a task", color=INK)
    grid[0].set_ylim(bottom=0)
    legend(figure, handles)
    return figure


def tuning() -> Table:
    """Final accuracy on held-back training images for each rate of the classifier and weight of the soft labels."""
    with (ROWS / "tuning.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    rates = sorted({row["rate"] for row in found}, key=float)
    classifiers = list(dict.fromkeys((row["epochs"], row["arm"], row["weight"]) for row in found))
    final = {(*map(row.get, ("epochs", "arm", "weight", "rate")),): _decimal(float(row["final"])) for row in found}
    rows = [
        [epochs, arm, f"{float(weight):g}", *(final.get((epochs, arm, weight, rate), "-") for rate in rates)]
        for epochs, arm, weight in classifiers
    ]
    return [["epochs", "arm", "weight", *(f"rate {rate}" for rate in rates)], *rows]


# What stands on which page between a marker of this name and the next end.
TABLES = {"runs": results, "distances": distances, "scales": scales, "probes": probes, "tuning": tuning}
PLACES = (*(("docs/study.md", marker) for marker in TABLES), ("README.md", "runs"))


def _arms(rows: str) -> Arms:
    found: Arms = {}
    for run in sorted(read_rows(ROWS / f"{rows}.csv"), key=lambda run: _order(run.method, run.name)):
        found.setdefault((run.method, run.name), []).append(run)
    return found


def _by_scale() -> list[tuple[str, str, str, list[Run]]]:
    """(method, scale, arm, runs) of what was run at other scales too, smaller ones first."""
    named = [(method, *name.partition(", ")[::2], runs) for (method, name), runs in _others().items()]
    found = [(method, scale or "the study", arm, runs) for method, arm, scale, runs in named]
    return sorted((row for row in found if row[1] in SCALES), key=lambda row: SCALES.index(row[1]))


def _order(method: str, name: str) -> tuple[int, int]:
    return [*NAMES].index(method), ARMS.index(name.partition(", ")[0])


def _others() -> Arms:
    """What was run otherwise, after the study's own runs of the same methods, arms and seeds."""
    others = _arms("scale")
    seeds = {run.seeds for runs in others.values() for run in runs}
    arms = {(method, name.partition(", ")[0]) for method, name in others}
    own = {key: [run for run in runs if run.seeds in seeds] for key, runs in _arms("runs").items() if key in arms}
    return {**own, **others}


def _numbers(runs: Sequence[Run]) -> list[str]:
    """Under COLUMNS."""
    stats = [*(_over(runs, metric, "classifier") for metric in HEADLINE), _over(runs, "final_accuracy", "knn")]
    return [str(len(runs)), *map(_text, stats)]


def _distance(ours: Sequence[Run], others: Sequence[Run], metric: str) -> tuple[str, str]:
    one, other = _over(ours, metric, "classifier"), _over(others, metric, "classifier")
    assert one is not None and other is not None
    gap = one.mean - other.mean
    if one.sd is None or other.sd is None:
        return _decimal(gap), "-"
    return _decimal(gap), f"{gap / math.sqrt((one.sd**2 + other.sd**2) / 2):.1f}"


def _over(runs: Iterable[Run], metric: str, head: str) -> Stat | None:
    values = [run.heads[head].metrics[metric] for run in runs]
    known = [value for value in values if value is not None]
    return Stat.of(known) if known else None


def _shown(arm: str) -> str:
    return f"**{arm}**" if arm == "Kaizen" else arm


def _text(stat: Stat | None) -> str:
    if stat is None:
        return "-"
    return " ± ".join(map(_decimal, [stat.mean] if stat.sd is None else [stat.mean, stat.sd]))


def _decimal(number: float) -> str:
    return f"{number:.3f}".replace("0.", ".", 1)


if __name__ == "__main__":
    sys.exit(main())
