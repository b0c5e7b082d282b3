"""What a group of runs is called: by what tells it from the other groups, and as short as that can be."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from kaizen.args import core_flags, printable
from kaizen.runs import Run

ABSENT = object()  # of a flag that another method, or another distiller, has


def split_flags(flags: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Flags that are the same in all groups, and those that are not: the method first, then in --help's order."""
    order = ["method", *(item.name for item in core_flags())]
    everything = dict.fromkeys(name for one in flags for name in one)
    names = sorted(everything, key=lambda name: order.index(name) if name in order else len(order))
    shared = [name for name in names if all(one.get(name, ABSENT) == flags[0].get(name, ABSENT) for one in flags)]
    return shared, [name for name in names if name not in shared]


def group_names(groups: Sequence[Sequence[Run]], differing: Sequence[str]) -> list[tuple[str, str, str]]:
    """Name groups after --name where that tells them apart, else after their flags.

    Args:
        groups: the runs of each.
        differing: flags that are not the same in all groups, the method first.

    Returns:
        (label, method, arm) of each group; the arm is the label without the method.
    """
    methods = [group[0].method for group in groups]
    given = [{run.name for run in group} for group in groups]
    if all(len(names) == 1 and names != {""} for names in given):
        names = [names.pop() for names in given]
        arms = [_without(name, method) for name, method in zip(names, methods, strict=True)]
        if not _distinct(zip(methods, arms, strict=True)):
            arms = names
        if _distinct(names):
            return list(zip(names, methods, arms, strict=True))
        if _distinct(zip(methods, names, strict=True)):
            return [(f"{method} {name}", method, name) for method, name in zip(methods, names, strict=True)]
    shown = _telling([group[0] for group in groups], differing)
    labelled = []
    for group, method in zip(groups, methods, strict=True):
        flags = group[0].flags
        words = {name: f"{name}={value_text(flags[name])}" for name in shown if name in flags}
        arm = " ".join(text for name, text in words.items() if name != "method")
        labelled.append((printable(" ".join(words.values())) or method or "all", method, printable(arm)))
    return labelled


def _telling(runs: Sequence[Run], differing: Sequence[str]) -> list[str]:
    """Of the flags that differ, those that do not follow from others.

    What each method has its own value of says no more than the method does; and the flags that only one distiller
    has, say, no more than what chooses the distiller.
    """
    own = {item.name for item in core_flags()}
    kept = [name for name in differing if name == "method" or not _follows(runs, name, ["method"])]
    for name in reversed([name for name in kept if name not in own]):
        rest = [other for other in kept if other != name]
        if _follows(runs, name, rest):
            kept = rest
    return kept


def _follows(runs: Sequence[Run], name: str, others: Sequence[str]) -> bool:
    """Do groups that agree in the other flags agree in this one."""
    seen: dict[Hashable, Hashable] = {}
    for run in runs:
        key = tuple(value_text(run.flags.get(other, ABSENT)) for other in others)
        value = value_text(run.flags.get(name, ABSENT))
        if seen.setdefault(key, value) != value:
            return False
    return True


def _without(name: str, method: str) -> str:
    """A name without the method in it, and what joined the two; the name itself if nothing else is left."""
    joint = r"(?:^|[-_. ]+)"
    rest = re.sub(rf"{joint}{re.escape(method)}(?=$|[-_. ])", "", name) if method else name
    return rest.strip("-_. ") or name


def _distinct(values: Iterable[Hashable]) -> bool:
    found = list(values)
    return len(set(found)) == len(found)


def value_text(value: Any) -> str:
    """A flag's value in one word; "-" for none."""
    if value is ABSENT:
        return "-"
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return printable(str(value))
