"""Writes what the study has found into docs/study.md and README.md, and draws its pictures.

    python docs/study_results.py

Everything comes from the rows in bash_files/study_cifar10_cpu/. A test holds the tables against these rows.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kaizen.compare import read_study  # noqa: E402
from kaizen.files import atomic_write_text  # noqa: E402
from kaizen.metrics import HEADLINE  # noqa: E402
from kaizen.report import save_figure  # noqa: E402
from kaizen.study import Group, Stat, Study  # noqa: E402
from kaizen.study_bars import accuracy_bars  # noqa: E402
from kaizen.study_plots import accuracy_over_tasks  # noqa: E402

ROWS = ROOT / "bash_files" / "study_cifar10_cpu"
NAMES = {"mocov2plus": "MoCo v2+", "simclr": "SimCLR", "byol": "BYOL", "vicreg": "VICReg"}
FIGURES = (accuracy_bars, accuracy_over_tasks)


def main() -> int:
    """Write the tables and draw the pictures."""
    for page, marker in PLACES:
        text = (ROOT / page).read_text(encoding="utf-8")
        atomic_write_text(ROOT / page, with_table(text, marker))
    study = read_study([ROWS / "runs.csv"])
    study = replace(study, groups=[replace(group, method=NAMES[group.method]) for group in study.groups])
    for draw in FIGURES:
        save_figure(draw(study, "classifier"), ROOT / "imgs" / f"study_{draw.__name__}.png")
    return 0


def with_table(text: str, marker: str) -> str:
    """The page with one table as it should be; as it is where it has no such table or there are no rows for it."""
    rows, table_of = TABLES[marker]
    path = ROWS / rows
    if not path.exists():
        return text
    table = "\n".join(table_of(read_study([path])))
    return re.sub(rf"(<!-- {marker} -->\n).*?(<!-- end -->)", lambda found: f"{found[1]}\n{table}\n\n{found[2]}", text,
                  flags=re.DOTALL)  # fmt: skip


def arms(study: Study) -> list[str]:
    """Lines of Markdown: the classifier by its three metrics, and what k nearest neighbours make of the features."""
    lines = [
        "| method | arm | seeds | final | continual | forgetting | features: kNN final |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in _by_method(study):
        classifier = group.heads["classifier"].metrics
        cells = [_text(classifier[name]) for name in HEADLINE]
        features = _text(group.heads["knn"].metrics["final_accuracy"])
        name = f"**{group.arm}**" if group.arm == "Kaizen" else group.arm
        lines.append(f"| {' | '.join([NAMES[group.method], name, str(len(group.runs)), *cells, features])} |")
    return lines


def distances(study: Study) -> list[str]:
    """Lines of Markdown: how far Kaizen's classifier is from each arm, also in pooled standard deviations."""
    lines = ["| method | Kaizen minus | final | in pooled sd | continual | in pooled sd |", "|---|---|---|---|---|---|"]
    ours = {group.method: group for group in study.groups if group.arm == "Kaizen"}
    for group in _by_method(study):
        if group.arm in ("Kaizen", "joint") or group.method not in ours:
            continue
        cells = [NAMES[group.method], group.arm]
        for metric in HEADLINE[:2]:
            one, other = (each.heads["classifier"].metrics[metric] for each in (ours[group.method], group))
            assert one is not None and other is not None
            gap = one.mean - other.mean
            known = one.sd is not None and other.sd is not None
            cells += [_decimal(gap), f"{gap / math.hypot(one.sd, other.sd) * math.sqrt(2):.1f}" if known else "-"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _by_method(study: Study) -> list[Group]:
    order = {name: place for place, name in enumerate(NAMES)}
    return sorted(study.groups, key=lambda one: order[one.method])


def _text(stat: Stat | None) -> str:
    if stat is None:
        return "-"
    numbers = [stat.mean] if stat.sd is None else [stat.mean, stat.sd]
    return " ± ".join(map(_decimal, numbers))


def _decimal(number: float) -> str:
    return f"{number:.3f}".replace("0.", ".", 1)


# What stands between a marker with this name and the next end: the file of rows, and what makes a table of them.
TABLES = {"runs": ("runs.csv", arms), "distances": ("runs.csv", distances), "scale": ("scale.csv", arms)}
PLACES = (("docs/study.md", "runs"), ("docs/study.md", "distances"), ("docs/study.md", "scale"), ("README.md", "runs"))

if __name__ == "__main__":
    sys.exit(main())
