"""Reading Markdown pages: their headings, links, tables, blocks and command lines."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md"))),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CALL = re.compile(r"(?:[A-Z_]+=\S+ )*python3? (main_continual\.py|job_launcher\.py|-m kaizen\.\w+)((?: .*)?)")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [body for kind, body in FENCE.findall(text) if kind == language]


def prose(text: str) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", text)


def spans(text: str) -> list[str]:
    """What stands between single backticks, outside blocks."""
    return re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", prose(text))


def anchors(text: str) -> set[str]:
    """What links can point to, as GitHub names headings."""
    titles = [
        re.sub(r"[`*]", "", title).strip().lower() for title in re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    ]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def links(text: str) -> list[tuple[bool, str, str]]:
    """(is it a picture, its words, its target) for every link."""
    found = re.findall(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(text)))
    return [(mark == "!", words, target) for mark, words, target in found]


def tables(text: str) -> list[list[list[str]]]:
    """Rows of cells, the headings first."""
    groups = re.findall(r"(?:^\|.*\|$\n?)+", prose(text), re.MULTILINE)
    rows = [[[cell.strip() for cell in line.strip("|").split("|")] for line in group.splitlines()] for group in groups]
    return [[table[0], *table[2:]] for table in rows]


def section(text: str, title: str) -> str:
    """From a heading to the next one of its level or above."""
    level = len(title) - len(title.lstrip("#"))
    after = text.partition(f"{title}\n")[2]
    return re.split(rf"^#{{1,{level}}} ", after, maxsplit=1, flags=re.MULTILINE)[0]


def command_lines(text: str) -> list[tuple[str, list[str]]]:
    """(program, words after it) of every command of this project's programs, in shell blocks and between backticks."""
    lines = [line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    lines += [line.replace("\n", " ") for line in spans(text)]
    calls = [CALL.fullmatch(part.strip()) for line in lines for part in re.split(r"&&|;", line)]
    return [(call[1], shlex.split(call[2], comments=True)) for call in calls if call is not None]


def flags_in(words: list[str]) -> list[str]:
    return [word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--")]


def added_arguments(*paths: Path) -> set[str]:
    """The flags that programs give their argument parsers, or keep as fields of a dataclass, read off their sources."""
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
                words = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
                found |= {str(word).removeprefix("--") for word in words if str(word).startswith("--")}
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.value, ast.Call)
                and isinstance(node.target, ast.Name)
            ):
                found |= {node.target.id} if getattr(node.value.func, "id", "") == "flag" else set()
    return found


def constructor_flags(source: str) -> set[str]:
    """Keyword-only parameters of constructors in a block of code: flags that a method or distiller would add."""
    made = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    ]
    return {argument.arg for node in made for argument in node.args.kwonlyargs}
