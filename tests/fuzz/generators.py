"""What users and disks may hand us, near to what is right: command lines, scripts, JSON, bytes."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

from kaizen.args import Flag, core_flags
from kaizen.cli import everything_known

Draw = Any  # of hypothesis
FLAGS: list[Flag] = [*core_flags(), *(item for _, item in everything_known())]
BASE = ["--dataset", "digits", "--method", "simclr"]
ODD = ["", " ", "-1", "0", "1", "2", "1e400", "nan", "inf", "-inf", "9" * 30, "9" * 5000, "1e-320", "0x10", "1_0", "٣",
       "½", "True", "no", "None", "--", "-", "=", "\0", "a\nb", "\x1b[31m", "\u2028", "\udc80", "../..", "/" * 300,
       "x" * 5000, "{}", "[bold]", "%s", "%(prog)s", "$HOME", "cifar10", "class", "resnet9", "none"]  # fmt: skip


def words() -> st.SearchStrategy[str]:
    """Any value of a flag."""
    return st.one_of(
        st.sampled_from(ODD),
        st.integers().map(str),
        st.integers(0, 12).map(str),
        st.floats().map(str),
        st.text(max_size=20),
    )


@st.composite
def values(draw: Draw, item: Flag) -> list[str]:
    """Values that fit a flag more often than not."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.lists(words(), max_size=3))
    if item.kind is bool:
        return draw(st.sampled_from([[], ["True"], ["False"], ["yes"], ["0"]]))
    if item.choices:
        return [draw(st.sampled_from(item.choices))]
    number = st.integers(0, 20) if item.kind is int else st.floats(0, 1)
    one = st.sampled_from(["a", "b", "0", "cifar10", "contrastive"]) if item.kind is str else number.map(str)
    return draw(st.lists(one, min_size=1, max_size=3 if item.many else 1))


@st.composite
def command_lines(draw: Draw) -> list[str]:
    """Arguments of main_continual.py; --help ends the program and is left out."""
    argv = list(BASE) if draw(st.integers(0, 4)) else []
    for _ in range(draw(st.integers(0, 6))):
        item = draw(st.sampled_from(FLAGS))
        name = draw(st.sampled_from([item.name, item.name, item.name, *item.aliases]))
        if draw(st.integers(0, 9)) == 0:
            name = draw(
                st.sampled_from([name[:-1], name + "s", name.upper(), name.replace("_", "-"), f"-{name}", "\n"])
            )
        given = draw(values(item))
        joined = len(given) == 1 and draw(st.booleans())
        argv += [f"--{name}={given[0]}"] if joined else [f"--{name}", *given]
    if draw(st.integers(0, 4)) == 0:
        argv.insert(draw(st.integers(0, len(argv))), draw(words()))
    return [word for word in argv if not word.startswith(("-h", "--help"))]


SHELL = [
    "python3", "main_continual.py", "python3 main_continual.py --dataset digits", " ", "  ", "\n", "\\\n", "\\", "'",
    '"', "#", "$A", "${A}", "${B:-x}", "${B:-$A}", "${", "}", "$(ls)", "`ls`", "$((1))", "|", "&", "&&", ";", ">", "<",
    "A=1", "export A=$A", "export A", "set -e", "~", "~/x", "*", "\t", "\r", "é", "\0", "\udc80", "--lr", "0.1",
    "'a b'",
    '"a $A b"', "$'x'", "$1", "$@", "\\$A", "cd x", "if true", "#!/bin/bash\n",
]  # fmt: skip


def scripts() -> st.SearchStrategy[str]:
    """Texts that are near to shell scripts."""
    part = st.one_of(st.sampled_from(SHELL), st.sampled_from(SHELL), st.text(max_size=4))
    return st.lists(part, max_size=25).map("".join)


def json_values() -> st.SearchStrategy[Any]:
    """Any value of a JSON file, and those that only Python writes."""
    leaf = st.one_of(
        st.none(), st.booleans(), st.integers(-3, 12), st.integers(), st.floats(), st.text(max_size=8),
        st.sampled_from([10**400, -1, 0.5, "", "a\nb", "\udc80", [], {}, [[]], [0.5, 0.5]]),
    )  # fmt: skip
    return st.one_of(leaf, st.lists(leaf, max_size=4), st.dictionaries(st.text(max_size=5), leaf, max_size=3))


@st.composite
def damaged_json(draw: Draw, right: Any) -> bytes:
    """A JSON file, changed in its structure or in its bytes."""
    if draw(st.integers(0, 4)) == 0:
        return draw(damaged_bytes(json.dumps(right).encode()))
    content = [copy.deepcopy(right)]
    for _ in range(draw(st.integers(1, 3))):
        _change(draw, content)
    return json.dumps(content[0]).encode()


def _change(draw: Draw, root: list[Any]) -> None:
    """Replace, remove or add one value at any depth."""
    parent: Any = root
    key: Any = 0
    while isinstance(parent[key], dict | list) and parent[key] and draw(st.integers(0, 3)):
        parent = parent[key]
        key = draw(st.sampled_from(sorted(parent) if isinstance(parent, dict) else range(len(parent))))
    how = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
    if how == "remove" and parent is not root:
        del parent[key]
    elif how == "add" and isinstance(parent[key], dict):
        parent[key][draw(st.text(max_size=8))] = draw(json_values())
    elif how == "add" and isinstance(parent[key], list):
        parent[key].append(draw(json_values()))
    else:
        parent[key] = draw(json_values())


@st.composite
def damaged_bytes(draw: Draw, whole: bytes) -> bytes:
    """Bytes cut, flipped, or with a piece of them somewhere else."""
    place = st.integers(0, len(whole) - 1)
    start = draw(place)
    how = draw(st.sampled_from(["cut", "flip", "flips", "splice", "insert", "zeros"]))
    if how == "cut":
        return whole[:start]
    damaged = bytearray(whole)
    if how in ("flip", "flips"):
        for _ in range(1 if how == "flip" else 5):
            damaged[draw(place)] ^= 1 << draw(st.integers(0, 7))
        return bytes(damaged)
    length = draw(st.integers(1, 200))
    other = draw(place)
    piece = bytes(length) if how == "zeros" else whole[other : other + length]
    damaged[start : start if how == "insert" else start + length] = piece
    return bytes(damaged)
