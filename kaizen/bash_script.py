"""What a bash script with one `python3 main_continual.py ...` command hands to it, read without a shell.

A variable's value arrives as one argument, whatever it contains, or, if it is empty and not in quotes, as none. What
only a shell could do is refused.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kaizen.args import UsageError, printable

MAIN = "main_continual.py"

NAME = r"[A-Za-z_][A-Za-z0-9_]*"
ASSIGNMENT = re.compile(rf"{NAME}=")
EXPORTABLE = re.compile(rf"{NAME}(=|\Z)")
PYTHON = re.compile(r"(.*/)?python(3(\.\d+)?)?")

# Not shlex: it forgets what was quoted, so '$A' and $A would be the same; and it cuts words at any "#".
TOKEN = re.compile(
    r"""(?P<newline>\n) | (?P<blank>[ \t]+) | (?P<join>\\(?:\n|\Z)) | (?P<comment>(?<![^ \t\n])\#[^\n]*)
    | '(?P<single>[^']*)' | \\(?P<escaped>.)
    | (?P<shell>[|&;<>()`] | \$['"(])
    | "(?P<double>(?:[^"\\]|\\[\s\S])*)"
    | (?P<home>(?<![^ \t\n=])~(?=[/ \t\n]|\Z))
    | (?P<bare>(?:\$\{[^}\n]*\} | \$(?!['"(]) | [^ \t\n'"\\|&;<>()`$~])+ | ~)
    | (?P<unclosed>.)""",
    re.VERBOSE,
)
EXPANSION = re.compile(
    rf"""\\(?P<escaped>[$`"\\\n])
    | \$(?P<name>{NAME})
    | \$\{{(?P<braced>{NAME})(?::-(?P<default>(?!~)(?:[^}}'"`\\$] | \${NAME})*))?\}}
    | (?P<shell>` | \$[{{(\[0-9@*#?$!-])""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Segment:
    """A part of a word, without its quotes if it was `quoted`; a `literal` one has no variables to expand."""

    text: str
    line: int
    literal: bool
    quoted: bool


Word = list[Segment]


@dataclass(frozen=True)
class Script:
    """The text of a bash script, and its path as the user gave it."""

    path: str
    text: str

    def lines(self) -> list[list[Word]]:
        """Split into lines of words as bash does; comments and empty lines are left out."""
        lines: list[list[Word]] = [[]]
        new_word = True
        for match in TOKEN.finditer(self.text):
            kind, line = str(match.lastgroup), self.text.count("\n", 0, match.start()) + 1
            if kind == "newline":
                lines.append([])
            elif kind == "shell":
                raise self.refusal(line)
            elif kind == "unclosed":
                raise UsageError(f"{self.path} line {line}: this {match[0]} is never closed; close it")
            elif kind not in ("blank", "join", "comment"):
                if new_word:
                    lines[-1].append([])
                text = "$HOME" if kind == "home" else match[kind]
                literal = kind in ("single", "escaped")
                lines[-1][-1].append(Segment(text, line, literal, quoted=literal or kind == "double"))
            new_word = kind in ("newline", "blank", "comment") or (kind == "join" and new_word)
        return [words for words in lines if words]

    def expand(self, word: Word, variables: Mapping[str, str]) -> str:
        """Put the variables' values into a word; a value is never split or read again."""
        return "".join(p.text if p.literal else self._put(p.text, p.line, variables) for p in word)

    def arguments(self, words: Sequence[Word], variables: Mapping[str, str]) -> list[str]:
        """Expand the words of a command; as in bash, one without quotes that comes to nothing is none."""
        expanded = [(self.expand(word, variables), word) for word in words]
        return [text for text, word in expanded if text or any(part.quoted for part in word)]

    def _put(self, text: str, start: int, variables: Mapping[str, str]) -> str:
        def value(match: re.Match[str]) -> str:
            line = start + text.count("\n", 0, match.start())
            if match["escaped"]:
                return match["escaped"].strip("\n")
            if match["shell"]:
                raise self.refusal(line)
            name = match["name"] or match["braced"]
            if match["default"] is not None:
                return variables.get(name) or self._put(match["default"], line, variables)
            if name not in variables:
                cure = f"{name}=... python job_launcher.py --script {shlex.quote(self.path)}"
                raise UsageError(f"{self.path} line {line}: ${name} is not set; set it: {cure}")
            return variables[name]

        return EXPANSION.sub(value, text)

    def refusal(self, line: int) -> UsageError:
        """Return the error for a line that is not part of one plain command."""
        text = printable(self.text.split("\n")[line - 1].strip()[:80])
        hint = " (does the line above end in a \\ with nothing after it?)" * text.startswith("-")
        rule = f"the script must hold one {MAIN} command, variables as $NAME, ${{NAME}} or ${{NAME:-default}}"
        cure = f"run `bash {shlex.quote(self.path)}` for anything else"
        return UsageError(f"{self.path} line {line}: {text}{hint}: {rule}; {cure}")


def parse_script(script: Script, environment: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the arguments of the script's one main_continual.py command, and the environment that it sees.

    Variables come from the environment and from `NAME=value` lines above the command. As in bash, exported
    ones and assignments in front of the command reach its environment. Patterns such as `*` stay as written.

    Raises:
        UsageError: the script holds anything else, several commands or none, or a variable is not set.
    """
    variables, exported, command = dict(environment), set(environment), None

    def assign(words: Sequence[Word]) -> dict[str, str]:
        return dict(script.expand(word, variables).split("=", 1) for word in words)

    for words in script.lines():
        heads = [word[0].text for word in words]
        start = next((i for i, head in enumerate(heads) if not ASSIGNMENT.match(head)), len(heads))
        if _is_main(words[start:]):
            if command:
                raise script.refusal(words[0][0].line)
            given = {name: variables[name] for name in exported & variables.keys()}
            command = script.arguments(words[start + 2 :], variables), given
            for word in words[:start]:  # in A=1 B=$A the second sees the first, and the arguments see neither
                given |= (new := assign([word]))
                variables |= new
        elif start == len(words):
            for word in words:  # one by one: in A=1 B=$A the second sees the first
                variables |= assign([word])
        elif heads[0] == "export" and all(map(EXPORTABLE.match, heads[1:])):
            exported |= {head.partition("=")[0] for head in heads[1:]}
            variables |= assign([word for word in words if "=" in word[0].text])
        elif heads[0] != "set" or not _changes_nothing(heads[1:]):
            raise script.refusal(words[0][0].line)
    if command is None:
        raise UsageError(f"{script.path}: no {MAIN} command in it; add one: python3 {MAIN} --flag value")
    return command


def _changes_nothing(options: Sequence[str]) -> bool:
    """Options of `set` that make no difference here; -a would export what is assigned after it."""
    exports = any(word == "allexport" or (word.startswith("-") and "a" in word) for word in options)
    return bool(options) and options[0].startswith(("-", "+")) and not exports


def _is_main(words: Sequence[Word]) -> bool:
    program, path = ("".join(part.text for part in word) for word in [*words, [], []][:2])
    return PYTHON.fullmatch(program) is not None and Path(path).name == MAIN
