"""Compare experiments: means over seeds, as tables and figures.

python -m kaizen.compare experiments/A-seed5 experiments/A-seed6 experiments/B-seed5 experiments/B-seed6
python -m kaizen.compare experiments --out comparison
python -m kaizen.compare from_one_machine/runs.csv from_another/runs.csv
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from kaizen import study_bars, study_plots, study_tables
from kaizen.args import UsageError, nearest, printable, shown
from kaizen.commands import status_of
from kaizen.disk import disk_told
from kaizen.files import atomic_write_text, write_json
from kaizen.page.comparison import comparison_page
from kaizen.plots import save_figure
from kaizen.runs import Run, find_experiments, read_run, without_duplicates
from kaizen.runs_csv import read_rows, rows_text
from kaizen.study import Study, study_of

FIGURES = (
    study_bars.accuracy_bars,
    study_bars.forgetting_bars,
    study_plots.accuracy_over_tasks,
    study_plots.accuracy_matrices,
)


def main(argv: list[str]) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    return status_of(run, argv)


def run(argv: list[str]) -> None:
    """Read the runs, summarise them, write everything and show a table."""
    from rich.console import Console

    options = parse_args(argv)
    out = Path(options.out)
    _check_out(out)
    study = read_study([Path(place) for place in options.places])
    head = chosen_head(study, options.head)
    with disk_told(f"--out {out}", out):
        write(study, head, out)
    study_tables.show(study, head, Console())
    files = "comparison.md, .csv, .tex, .json, runs.csv and plots/"
    print(f"comparison in {out}: {files}; open {out / 'report.html'}")


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Read the flags. Raises UsageError or argparse.ArgumentError."""
    parser = argparse.ArgumentParser(prog="python -m kaizen.compare", allow_abbrev=False, exit_on_error=False)
    parser.add_argument(
        "places", nargs="*", metavar="DIR", help="an experiment, a folder of experiments, or runs.csv of a comparison"
    )
    parser.add_argument("--out", default="comparison", help="folder for what is written (default: comparison)")
    parser.add_argument("--head", help="what the figures and the table show (default: classifier, or the first)")
    options, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        hint = nearest(unknown[0].partition("=")[0].lstrip("-"), ("out", "head"), "--")
        raise UsageError(f"unknown flag {shown(unknown[0])}{hint or '; --out and --head are all'}")
    if not options.places:
        raise UsageError("nothing to compare; name experiments, folders of experiments, or a runs.csv")
    return options


def _check_out(out: Path) -> None:
    """Refuse to write among the files of an experiment."""
    for folder in (out.absolute(), *out.absolute().parents):
        if (folder / "experiment.json").exists():
            raise UsageError(
                f"--out {printable(str(out))}: is in the experiment {folder.name}; name a folder of its own"
            )


def read_study(places: Sequence[Path]) -> Study:
    """Read all runs at some places and summarise them.

    Args:
        places: folders of experiments, folders of such folders, and files made by `kaizen.runs_csv`.

    Raises:
        UsageError: nothing is there, something is damaged, or what is there does not compare.
    """
    runs: list[Run] = []
    notes: list[str] = []
    for place in places:
        if place.suffix == ".csv":
            runs += read_rows(place)
            continue
        for folder in find_experiments(place):
            found, lines = read_run(folder)
            runs += [found] if found else []
            notes += lines
    runs, doubles = without_duplicates(runs)
    if not runs:
        raise UsageError(f"{notes[0]}; no finished run remains ({len(notes)} left out); finish one, or name others")
    return study_of(runs, [*dict.fromkeys(notes), *doubles])


def chosen_head(study: Study, given: str | None) -> str:
    """The head that figures show. Raises UsageError where no run has the one that is asked for."""
    if given is None:
        return "classifier" if "classifier" in study.heads else study.heads[0]
    if given not in study.heads:
        known = f"choose from {', '.join(study.heads)}{nearest(given, study.heads)}"
        raise UsageError(f"--head {shown(given)}: no run has it; {known}")
    return given


def write(study: Study, head: str, out: Path) -> None:
    """Write a study, each file whole.

    Args:
        study: to write.
        head: what the figures show.
        out: folder, made if need be.
    """
    plots = out / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    names = [f"{draw.__name__}_{re.sub(r'[^A-Za-z0-9._-]', '_', head)}.png" for draw in FIGURES]
    for draw, name in zip(FIGURES, names, strict=True):
        save_figure(draw(study, head), plots / name)
    atomic_write_text(out / "comparison.md", study_tables.markdown(study, [f"plots/{name}" for name in names]))
    atomic_write_text(out / "comparison.csv", study_tables.csv_text(study))
    atomic_write_text(out / "comparison.tex", study_tables.latex(study))
    write_json(out / "comparison.json", study_tables.as_json(study))
    atomic_write_text(out / "report.html", comparison_page(study, head))
    atomic_write_text(out / "runs.csv", rows_text((g.label, run) for g in study.groups for run in g.runs))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
