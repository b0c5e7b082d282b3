"""What a script means: against bash."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaizen.args import UsageError
from kaizen.bash_script import Script, parse_script

SHOW_ARGUMENTS = "import json, sys; print(json.dumps(sys.argv[1:]))"


def parse(text: str, environment: Mapping[str, str] | None = None) -> list[str]:
    return parse_script(Script("X.sh", text), environment or {})[0]


def refusal(text: str, environment: Mapping[str, str] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        parse(text, environment)
    message = str(caught.value)
    assert "\n" not in message
    return message


LIKE_BASH = {
    "continued": "python3 main_continual.py \\\n    --dataset cifar100 \\\n    --lars\n",
    "last flag, no newline": "python main_continual.py --a 1 \\\n  --wandb",
    "ends in a backslash": "python3 main_continual.py --a 1 \\\n",
    "ends in a backslash, no newline": "python3 main_continual.py --a 1 \\",
    "word across lines": "python3 main_continual.py --da\\\nta x\n",
    "comments": "#!/bin/bash\n# it's `a` | $NO \\\n\nset -euo pipefail\npython3 main_continual.py --a # b\n",
    "hash in a word": "python3 main_continual.py --tag run#1 '#' \\#\n",
    "single quotes": "python3 main_continual.py '$A ${B} `c` \"d\" ; | > \\' ''\n",
    "double quotes": 'python3 main_continual.py "a b;|>" "\\$A \\" \\\\ \\n \\` \'" "" "$" "two\\\nlines"\n',
    "escapes": "python3 main_continual.py \\$A a\\ b \\` \\; \\' \\\\\n",
    "joined": "python3 main_continual.py --a='b c'\"d\"e$A'$A'\"$A\"\n",
    "braces": 'python3 main_continual.py ${A}x "${A:-no}" ${NO:-yes} "${NO:-$A/x y}" ${EMPTY:-z}${NO:-}!\n',
    "nothing": "python3 main_continual.py $EMPTY ${NO:-} $EMPTY${NO:-} $EMPTY'' \"$EMPTY\" \"${NO:-}\" ''\n",
    "dollar alone": "python3 main_continual.py $ a$ $/x $.y\n",
    "script's variables": 'B=one\nexport C="$B two"\nD=$B$B E=$D\npython3 main_continual.py $B "$C" $D $E\n',
    "the script's value wins": "A=new\npython3 main_continual.py $A\n",
    "in front of the command": "A=new python3 main_continual.py $A\n",
    "one after the other in front": "A=y\nA=x B=$A python3 main_continual.py $A\n",
    "home": "D=~/d\npython3 main_continual.py ~/data ~ '~/x' \"~/x\" a~b a/~ $D\n",
    "patterns that match nothing": "python3 main_continual.py no-such-* [a] {x}\n",
    "blank and tab": "\t python3\tmain_continual.py   --a\t1 \n",
    "path": "python3 ./main_continual.py --a\n",
}


@pytest.mark.parametrize("text", LIKE_BASH.values(), ids=LIKE_BASH)
def test_a_script_means_what_it_means_to_bash(text: str, tmp_path: Path) -> None:
    (tmp_path / "main_continual.py").write_text(SHOW_ARGUMENTS)
    (tmp_path / "X.sh").write_text(text)
    for name in ("python", "python3"):
        (tmp_path / name).symlink_to(sys.executable)
    environment = {"PATH": str(tmp_path), "A": "value", "EMPTY": "", "HOME": "/home/me"}
    bash = str(shutil.which("bash"))
    out = subprocess.run([bash, "X.sh"], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert parse(text, environment) == json.loads(out.stdout)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r"))))
@settings(max_examples=200, deadline=None)
def test_any_quoted_argument_arrives_unchanged(values: list[str]) -> None:
    assert parse(f"python3 main_continual.py {shlex.join(values)}") == values


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
@settings(max_examples=200, deadline=None)
def test_a_value_is_never_split_or_read_again(value: str) -> None:
    text = 'B=$A\npython3 main_continual.py $A "${A}" x${B}y ${A:-}'
    assert parse(text, {"A": value}) == [value, value, f"x{value}y", value]


def test_a_value_is_no_assignment_and_no_command() -> None:
    assert "line 1" in refusal("$A\npython3 main_continual.py", {"A": "B=1"})


def test_what_the_script_exports_reaches_the_command() -> None:
    text = "A=y\nA=x B=$A python3 main_continual.py"
    assert parse_script(Script("X.sh", text), {})[1] == {"A": "x", "B": "x"}
    text = "PLAIN=1\nexport A=2\nB=3\nexport B KNOWN=$B\nIN=5\nFRONT=6 python3 main_continual.py"
    _, environment = parse_script(Script("X.sh", text), {"IN": "0", "PATH": "p"})
    assert environment == {"A": "2", "B": "3", "KNOWN": "3", "IN": "5", "FRONT": "6", "PATH": "p"}


OTHER_COMMANDS = (
    "echo hello|cd ..|python3 other.py|main_continual.py|python3 -m kaizen|A=1 make|set|set -a|set -eo allexport|"
    "export 2x=1|if true"
)
SHELL_SYNTAX = [
    *("| tee log", "> log", "2>&1", "< in", "&& echo", "; echo", "&", "(a)"),
    *("`date`", "$(date)", '"$(date)"', '"`date`"', "$((1+1))", "${A:-`b`}"),
    *('"$@"', "$1 $?", "${A%b}", "${A", "$'a'"),
]
SHELL_LINES = [*OTHER_COMMANDS.split("|"), *(f"python3 main_continual.py {end}" for end in SHELL_SYNTAX)]


@pytest.mark.parametrize("line", SHELL_LINES)
def test_what_needs_a_shell_is_refused(line: str) -> None:
    message = refusal(f"# first\n\n{line}\n", {"A": "ab"})
    assert message.startswith(f"X.sh line 3: {line}: ")
    assert "one main_continual.py command" in message and "`bash X.sh`" in message


def test_several_commands_or_none() -> None:
    second = refusal("python3 main_continual.py --a \\\n --b\npython main_continual.py --c\n")
    assert "line 3" in second and "one main_continual.py command" in second
    assert "no main_continual.py command" in refusal("# nothing\n")


@pytest.mark.parametrize("gap", ["--a 1\n", "--a 1 \\ \n", "--a 1 # why \\\n"])
def test_a_lost_continuation_is_explained(gap: str) -> None:
    message = refusal(f"python3 main_continual.py {gap}  --b 2\n")
    assert "line 2: --b 2" in message and "end in a \\" in message


@pytest.mark.parametrize(("word", "line"), [("$DATA", 3), ("${DATA}", 3), ('"\n$DATA"', 4), ("${A:-$DATA}", 3)])
def test_an_unset_variable_is_named_with_its_line_and_cure(word: str, line: int) -> None:
    message = refusal(f"# one\npython3 main_continual.py \\\n  --data_dir {word}\n")
    assert f"line {line}: $DATA is not set" in message
    assert "DATA=... python job_launcher.py --script X.sh" in message


@pytest.mark.parametrize("quote", ["'", '"'])
def test_an_open_quote_is_named_with_its_line(quote: str) -> None:
    assert f"line 2: this {quote} is never closed" in refusal(f"\npython3 main_continual.py {quote}a\n\n")


@pytest.mark.parametrize("line", ["a\x1b[31m|", "a\r\u2028|", "é\x85|"])
def test_a_refusal_is_one_line_whatever_the_script_holds(line: str) -> None:
    assert len(refusal(line).splitlines()) == 1 and "\x1b" not in refusal(line)
