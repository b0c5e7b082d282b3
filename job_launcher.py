"""Run one bash script as one experiment: make its folder, keep a copy of the script in it, start it.

    DATA_DIR=/data CUDA_VISIBLE_DEVICES=0 python job_launcher.py --script bash_files/NAME.sh

The script holds one `python3 main_continual.py ...` command. It is read here and started without a shell: a
variable's value always arrives as one argument, whatever it contains. What only a shell could do is refused.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

MAIN = "main_continual.py"


class UsageError(Exception):
    """A mistake in the script or on the command line, told in one line with its cure."""


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
    """A part of a word, its quotes removed; a literal one has no variables to expand."""

    text: str
    line: int
    literal: bool


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
                lines[-1][-1].append(Segment(text, line, literal=kind in ("single", "escaped")))
            new_word = kind in ("newline", "blank", "comment") or (kind == "join" and new_word)
        return [words for words in lines if words]

    def expand(self, word: Word, variables: Mapping[str, str]) -> str:
        """Put the variables' values into a word; a value is never split or read again."""
        return "".join(p.text if p.literal else self._put(p.text, p.line, variables) for p in word)

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
        text = "".join(c if c.isprintable() else "\ufffd" for c in self.text.split("\n")[line - 1].strip()[:80])
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
            given = {name: variables[name] for name in exported & variables.keys()} | assign(words[:start])
            command = [script.expand(word, variables) for word in words[start + 2 :]], given
        elif start == len(words):
            for word in words:  # one by one: in A=1 B=$A the second sees the first
                variables |= assign([word])
        elif heads[0] == "export" and all(map(EXPORTABLE.match, heads[1:])):
            exported |= {head.partition("=")[0] for head in heads[1:]}
            variables |= assign([word for word in words if "=" in word[0].text])
        elif heads[0] != "set" or not "".join(heads[1:]).startswith(("-", "+")):
            raise script.refusal(words[0][0].line)
    if command is None:
        raise UsageError(f"{script.path}: no {MAIN} command in it; add one: python3 {MAIN} --flag value")
    return command


def _is_main(words: Sequence[Word]) -> bool:
    program, path = ("".join(part.text for part in word) for word in [*words, [], []][:2])
    return PYTHON.fullmatch(program) is not None and Path(path).name == MAIN


def take_flags(args: Sequence[str], *flags: str) -> tuple[dict[str, str | None], list[str]]:
    """Return the values of some flags (the last one given, or None) and the other arguments."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False, exit_on_error=False)
    for flag in flags:
        parser.add_argument(flag)
    values, others = parser.parse_known_args(args)
    return vars(values), others


def fresh_name(title: str, now: datetime) -> str:
    """Return `<date>_<time>-<title>`, the title reduced to characters that are safe in a path."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-.")[:100]
    return f"{now:%Y-%m-%d_%H-%M-%S}-{safe or 'experiment'}"


def name_inside(base: Path, given: str) -> str:
    """Return the name of the folder directly inside `base` that a name, or a path to it, means.

    Raises:
        UsageError: it is not directly inside `base`.
    """
    if not given.strip() or Path(given) == Path() or not given.isprintable():
        raise UsageError(f"--experiment_dir {given!a} names no folder; name one: --experiment_dir run1")
    for path in (base / given, Path(given)):
        target = Path(os.path.abspath(path))
        if target.name and target.parent.resolve() == target.resolve().parent == base.resolve():
            return target.name
    target = max(base / given, Path(given), key=os.path.exists).resolve()  # where a link leads is its own place
    cure = shlex.join(["--base_experiment_dir", str(target.parent), "--experiment_dir", target.name])
    raise UsageError(f"--experiment_dir {given} is not directly inside {base}; write {cure}")


def make_folder(folder: Path, fresh: bool) -> tuple[Path, bool]:
    """Make a folder and tell whether it is new; a fresh one that exists becomes `NAME-2`, `NAME-3`, ..."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = fresh or not folder.exists()
    candidate, number = folder, 1
    while True:
        try:
            candidate.mkdir(exist_ok=not fresh)
            return candidate, made
        except FileExistsError:
            if not fresh:
                raise
            number += 1
            candidate = folder.with_name(f"{folder.name}-{number}")


def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end and return its exit code; killed by signal N it is 128 + N, as in a shell.

    SIGTERM is passed on to the child, SIGINT and SIGHUP to its whole process group, as a terminal does; the
    group is its own, so that Ctrl-C in a terminal arrives once, through here.
    """
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, _frame: object = None) -> None:
        if child is None:
            early.append(number)
        elif number == signal.SIGTERM:
            child.send_signal(number)
        elif child.poll() is None:
            os.killpg(child.pid, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup goes on protecting
            signal.signal(number, pass_on)
    child = subprocess.Popen(command, env=environment, start_new_session=True)
    for received in early:
        pass_on(received)
    code = child.wait()
    return code if code >= 0 else 128 - code


def launch(options: argparse.Namespace) -> int:
    """Run the experiment of `options.script` in its folder and return main_continual.py's exit code."""
    source = Path(options.script)
    text = source.read_text(encoding="utf-8-sig", errors="surrogateescape")  # CRLF becomes a plain newline
    if "\0" in text:
        raise UsageError(f"{options.script}: holds a NUL byte; name a bash script")
    args, environment = parse_script(Script(options.script, text), os.environ)
    own = {"--experiment_dir": options.experiment_dir, "--base_experiment_dir": options.base_experiment_dir}
    args += [f"{flag}={value}" for flag, value in own.items() if value is not None]  # the last one counts
    place, args = take_flags(args, *own)
    given, base = place["experiment_dir"], place["base_experiment_dir"]
    base = "experiments" if base is None else base
    if not base.strip():
        raise UsageError("--base_experiment_dir is empty; name a folder: --base_experiment_dir experiments")
    title = take_flags(args, "--name")[0]["name"] or source.stem
    name = fresh_name(title, datetime.now()) if given is None else name_inside(Path(base), given)
    folder, made = Path(base) / name, False
    if not options.dry_run:
        folder, made = make_folder(folder, fresh=given is None)
        if not (folder / source.name).exists():
            os.replace(shutil.copy(source, folder / f".{source.name}.tmp"), folder / source.name)  # whole or not at all
        print(f"experiment folder: {folder}", flush=True)
    args += ["--experiment_dir", folder.name, "--base_experiment_dir", base, *["--dry_run"] * options.dry_run]
    code = run([sys.executable, str(Path(__file__).resolve().with_name(MAIN)), *args], environment)
    if code == 2 and made and os.listdir(folder) == [source.name]:  # bad input: nothing was run
        shutil.rmtree(folder)
    return code


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the launcher's own flags; an unknown one or a missing script is a UsageError."""
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--script", help=f"the bash script with one {MAIN} command")
    parser.add_argument("--experiment_dir", help="folder inside the base; an existing one is gone on with")
    parser.add_argument("--base_experiment_dir", help="folder of all experiments (default: experiments)")
    parser.add_argument("--dry_run", action="store_true", help="check only: no folder; passed on to the run")
    options, unknown = parser.parse_known_args(argv)
    flags = [f"--{name}" for name in vars(options)]
    if unknown:
        near = difflib.get_close_matches(unknown[0].partition("=")[0], flags, n=1)
        cure = f"did you mean {near[0]}?" if near else f"known: {', '.join(flags)}; others go into the script"
        raise UsageError(f"unknown argument {unknown[0]}; {cure}")
    if not options.script:
        raise UsageError("--script is missing; name the experiment's script: --script bash_files/NAME.sh")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Launch from the command line; return the exit code."""
    try:
        return launch(parse_args(argv))
    except (UsageError, argparse.ArgumentError) as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; check this path", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
