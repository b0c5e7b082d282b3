"""Writes what the study has found into docs/study.md and README.md, and draws its pictures.

    python docs/study_results.py

Everything comes from the rows in bash_files/study_cifar10_cpu/. A test holds the tables against these rows.
"""

from __future__ import annotations

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
from kaizen.study import Stat, Study  # noqa: E402
from kaizen.study_bars import accuracy_bars  # noqa: E402
from kaizen.study_plots import accuracy_over_tasks  # noqa: E402

ROWS = ROOT / "bash_files" / "study_cifar10_cpu"
NAMES = {"mocov2plus": "MoCo v2+", "simclr": "SimCLR", "byol": "BYOL", "vicreg": "VICReg"}
# Each table: the page, and the rows, which its marker names.
TABLES = (("docs/study.md", "runs"), ("docs/study.md", "scale"), ("README.md", "runs"))
FIGURES = (accuracy_bars, accuracy_over_tasks)


def main() -> int:
    """Write the tables and draw the pictures."""
    for page, rows in TABLES:
        text = (ROOT / page).read_text(encoding="utf-8")
        atomic_write_text(ROOT / page, with_table(text, rows))
    study = read_study([ROWS / "runs.csv"])
    study = replace(study, groups=[replace(group, method=NAMES[group.method]) for group in study.groups])
    for draw in FIGURES:
        save_figure(draw(study, "classifier"), ROOT / "imgs" / f"study_{draw.__name__}.png")
    return 0


def with_table(text: str, rows: str) -> str:
    """The page with the table of some rows as it should be; as it is where it has no such table or there are none."""
    path = ROWS / f"{rows}.csv"
    if not path.exists():
        return text
    table = "\n".join(table_of(read_study([path])))
    return re.sub(rf"(<!-- {rows} -->\n).*?(<!-- end -->)", lambda found: f"{found[1]}\n{table}\n\n{found[2]}", text,
                  flags=re.DOTALL)  # fmt: skip


def table_of(study: Study) -> list[str]:
    """Lines of Markdown: the classifier by its three metrics, and what k nearest neighbours make of the features."""
    lines = [
        "| method | arm | seeds | final | continual | forgetting | features: kNN final |",
        "|---|---|---|---|---|---|---|",
    ]
    order = {name: place for place, name in enumerate(NAMES)}
    for group in sorted(study.groups, key=lambda one: order[one.method]):
        classifier = group.heads["classifier"].metrics
        cells = [_text(classifier[name]) for name in HEADLINE]
        features = _text(group.heads["knn"].metrics["final_accuracy"])
        name = f"**{group.arm}**" if group.arm == "Kaizen" else group.arm
        lines.append(f"| {' | '.join([NAMES[group.method], name, str(len(group.runs)), *cells, features])} |")
    return lines


def _text(stat: Stat | None) -> str:
    if stat is None:
        return "-"
    numbers = [stat.mean] if stat.sd is None else [stat.mean, stat.sd]
    return " ± ".join(f"{number:.3f}".replace("0.", ".", 1) for number in numbers)


if __name__ == "__main__":
    sys.exit(main())
