"""Writes docs/flags.md: every flag of a training and of an evaluation, read from where it is defined.

    python docs/flags.py

A test holds the written page against this, so that the page cannot fall behind the code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent))  # so that the page can be written without installing anything

from kaizen.args import Flag, core_flags, flags_of_fields, words  # noqa: E402
from kaizen.cli import REGISTRIES  # noqa: E402
from kaizen.distillers import (  # noqa: E402
    CLASSIFIER,
    CLASSIFIER_DISTILLERS,
    FEATURE_DISTILLERS,
    FEATURES,
    distiller_flags,
)
from kaizen.methods import METHODS, method_flags  # noqa: E402
from kaizen.protocols import EvaluationFlags  # noqa: E402

INTRODUCTION = """\
# Flags

Written by `python docs/flags.py`; do not edit. `python main_continual.py --help` prints those of a training. An unknown
flag is an error that names the nearest known one. A flag of a method or distiller that was not chosen is a warning.
Several values stand one after the other: `--solarization_prob 0.0 0.2`. A yes-or-no flag that stands alone means True.
"""
TABLE = "| flag | values | default | meaning |\n|---|---|---|---|"


def flags_page() -> str:
    """The whole page."""
    themes: dict[str, list[Flag]] = {}
    for item in core_flags():
        themes.setdefault(item.theme, []).append(item)
    parts = [INTRODUCTION]
    parts += [f"## {theme.capitalize()}\n\n{table(items)}\n" for theme, items in themes.items()]
    parts.append("## Methods\n\nWhat they mean in the equations: [methods.md](methods.md).\n")
    parts += [f"### {name}\n\n{table(method_flags(name))}\n" for name in METHODS]
    parts.append(
        "## Distillers\n\nThese follow `--feature_extractor_distill_` for `--distiller` (`--distill_` is understood "
        "too) and\n`--classifier_distill_` for `--distiller_classifier`.\n"
    )
    parts += [f"### {name}\n\n{short_table(name)}\n" for name in FEATURE_DISTILLERS]
    parts.append(
        "## Evaluation of checkpoints\n\nOf `python -m kaizen.evaluate`, beside those for data, networks and "
        f"optimisation above. See [evaluation.md](evaluation.md).\n\n{table(flags_of_fields(EvaluationFlags))}\n"
    )
    return "\n".join(parts)


def table(items: Iterable[Flag]) -> str:
    """A row for each flag."""
    return "\n".join([TABLE, *map(row, items)])


def row(item: Flag) -> str:
    """One flag: its names, what it takes, its default and its help."""
    names = ", ".join(f"`--{name}`" for name in (item.name, *item.aliases))
    return f"| {names} | {values(item)} | {default(item)} | {item.help} |"


def values(item: Flag) -> str:
    """What a flag takes, in words."""
    if choices := item.choices or REGISTRIES.get(item.name):
        return ", ".join(f"`{choice}`" for choice in choices)
    kind = {bool: "yes or no", int: "whole number", float: "number", str: "text"}[item.kind]
    kind = f"{kind}s" if item.many and item.kind is not str else kind
    return f"{kind}, {item.bounds}" if item.bounds is not None else kind


def default(item: Flag) -> str:
    """The value without the flag; nothing where there is none."""
    shown = words(item.default) if isinstance(item.default, list) else item.default
    return "" if shown in (None, "") else f"`{shown}`"


def short_table(name: str) -> str:
    """The flags of a distiller, without what stands before them."""
    items = distiller_flags(FEATURE_DISTILLERS[name], ("",))
    both = name in CLASSIFIER_DISTILLERS
    prefixes = [FEATURES[0], *([CLASSIFIER[0]] if both else [])]
    after = " and ".join(f"`--{prefix}`" for prefix in prefixes)
    rows = [
        f"| {', '.join(f'`{known}`' for known in (item.name, *item.aliases))} | {values(item)} | "
        f"{default(item)} | {item.help} |"
        for item in items
    ]
    return "\n".join([f"After {after}:\n", TABLE, *rows])


if __name__ == "__main__":
    (FOLDER / "flags.md").write_text(flags_page(), encoding="utf-8")
