"""The launcher: against bash for what a script means, with stand-ins of main_continual.py for running it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import job_launcher
from job_launcher import Script, UsageError, fresh_name, name_inside, parse_script, take_flags

SHOW_ARGUMENTS = "import json, sys; print(json.dumps(sys.argv[1:]))"
STAND_IN = """
import json, os, sys
print(json.dumps({"argv": sys.argv[1:], "marker": os.environ.get("MARKER"), "cwd": os.getcwd()}))
sys.exit(int(os.environ.get("EXIT_WITH", "0")))
"""
STARTED = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-")


def parse(text: str, environment: Mapping[str, str] | None = None) -> list[str]:
    return parse_script(Script("X.sh", text), environment or {})[0]


def refusal(text: str, environment: Mapping[str, str] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        parse(text, environment)
    message = str(caught.value)
    assert "\n" not in message
    return message


class Place:
    """A folder with the launcher, a stand-in and one script; `start` runs the launcher there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.launcher = folder / "code" / "job_launcher.py"
        self.launcher.parent.mkdir()
        shutil.copy(job_launcher.__file__, self.launcher)
        self.stand_in(STAND_IN)
        self.script("python3 main_continual.py --lars\n")

    @property
    def experiments(self) -> list[str]:
        base = self.folder / "experiments"
        return sorted(path.name for path in base.iterdir()) if base.exists() else []

    def stand_in(self, code: str) -> None:
        self.launcher.with_name("main_continual.py").write_text(code)

    def script(self, text: str) -> None:
        (self.folder / "X.sh").write_bytes(text.encode())

    def command(self, *flags: str) -> list[str]:
        return [sys.executable, str(self.launcher), *flags]

    def start(self, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
        given = flags if "--script" in flags else ("--script", "X.sh", *flags)
        env = os.environ | environment
        return subprocess.run(
            self.command(*given), cwd=self.folder, env=env, capture_output=True, text=True, timeout=60
        )

    def argv(self, *flags: str, **environment: str) -> list[str]:
        done = self.start(*flags, **environment)
        assert done.returncode == 0, done.stderr
        argv: list[str] = json.loads(done.stdout.splitlines()[-1])["argv"]
        return argv


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# ---- what a script means -----------------------------------------------------------------------------------

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
    "dollar alone": "python3 main_continual.py $ a$ $/x $.y\n",
    "script's variables": 'B=one\nexport C="$B two"\nD=$B$B E=$D\npython3 main_continual.py $B "$C" $D $E\n',
    "the script's value wins": "A=new\npython3 main_continual.py $A\n",
    "in front of the command": "A=new python3 main_continual.py $A\n",
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


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
@settings(max_examples=200, deadline=None)
def test_a_value_is_never_split_or_read_again(value: str) -> None:
    text = 'B=$A\npython3 main_continual.py $A "${A}" x${B}y ${A:-}'
    assert parse(text, {"A": value}) == [value, value, f"x{value}y", value]


def test_a_value_is_no_assignment_and_no_command() -> None:
    assert "line 1" in refusal("$A\npython3 main_continual.py", {"A": "B=1"})


def test_what_the_script_exports_reaches_the_command() -> None:
    text = "PLAIN=1\nexport A=2\nB=3\nexport B KNOWN=$B\nIN=5\nFRONT=6 python3 main_continual.py"
    _, environment = parse_script(Script("X.sh", text), {"IN": "0", "PATH": "p"})
    assert environment == {"A": "2", "B": "3", "KNOWN": "3", "IN": "5", "FRONT": "6", "PATH": "p"}


OTHER_COMMANDS = (
    "echo hello|cd ..|python3 other.py|main_continual.py|python3 -m kaizen|A=1 make|set|export 2x=1|if true"
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


def test_take_flags() -> None:
    args = ["--name", "a", "--x", "-1", "--name=b c", "--names", "d", "e f"]
    assert take_flags(args, "--name", "--none") == (
        {"name": "b c", "none": None},
        ["--x", "-1", "--names", "d", "e f"],
    )


# ---- the folder --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "safe"),
    [
        ("byol", "byol"),
        ("a b/c;$(d)", "a-b-c-d"),
        ("../..", "experiment"),
        ("é", "experiment"),
        ("x" * 300, "x" * 100),
    ],
)
def test_fresh_name(title: str, safe: str) -> None:
    assert fresh_name(title, datetime(2026, 1, 2, 3, 4, 5)) == f"2026-01-02_03-04-05-{safe}"


@pytest.mark.parametrize(
    "given_name", ["foo", "foo/", "./foo", "a/../foo", "experiments/foo", "experiments/foo/", "{base}/foo"]
)
def test_a_name_or_a_path_inside_the_base(given_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given_name = given_name.format(base=tmp_path / "experiments")
    assert name_inside(Path("experiments"), given_name) == "foo"


def test_a_link_does_not_lead_out_of_the_base(tmp_path: Path) -> None:
    """main_continual.py refuses it too; here nothing has been copied yet."""
    (tmp_path / "disk" / "large").mkdir(parents=True)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "foo").symlink_to(tmp_path / "disk" / "large")
    with pytest.raises(UsageError, match=f"write --base_experiment_dir {tmp_path}/disk --experiment_dir large"):
        name_inside(tmp_path / "experiments", "foo")
    (tmp_path / "disk" / "base").symlink_to(tmp_path / "experiments")
    assert name_inside(tmp_path / "disk" / "base", "bar") == "bar"  # the base itself may be one


@pytest.mark.parametrize(
    "name", ["", " ", ".", "./", "..", "../x", "a/b", "/", "/elsewhere/x", "a\nb", "a\0b", "\x1b[2J"]
)
def test_a_path_outside_the_base_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--experiment_dir") as refused:
        name_inside(Path("experiments"), name)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(("given_name", "word"), [("x" * 300, "File name too long"), ("x\ny", "names no folder")])
def test_a_name_that_no_folder_can_have_is_one_line(place: Place, given_name: str, word: str) -> None:
    done = place.start("--experiment_dir", given_name)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert word in done.stderr and place.experiments == []


def test_the_cure_for_a_path_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="write --base_experiment_dir /else --experiment_dir x"):
        name_inside(tmp_path, "/else/x")


# ---- running -----------------------------------------------------------------------------------------------


def test_a_run_makes_a_folder_with_a_copy_and_passes_everything_on(place: Place) -> None:
    text = "python3 main_continual.py --name 'a b' --data_dir $DATA_DIR \\\r\n  --x 'c d' --wandb"
    place.script(text)
    done = place.start(DATA_DIR="/d/$(touch no);'\" x", MARKER="kept")
    (name,) = place.experiments
    seen = json.loads(done.stdout.splitlines()[1])
    assert done.stdout.splitlines()[0] == f"experiment folder: experiments/{name}"
    assert STARTED.match(name) and name.endswith("-a-b")
    assert (place.folder / "experiments" / name / "X.sh").read_bytes() == text.encode()
    assert seen["argv"] == [
        *("--name", "a b", "--data_dir", "/d/$(touch no);'\" x", "--x", "c d", "--wandb"),
        *("--experiment_dir", name, "--base_experiment_dir", "experiments"),
    ]
    assert (seen["marker"], seen["cwd"]) == ("kept", str(place.folder))
    assert not (place.folder / "no").exists()


def test_without_a_name_the_script_gives_it_and_two_starts_never_share_a_folder(place: Place) -> None:
    for _ in range(3):
        place.argv()
    names = place.experiments
    assert len(names) == 3 and all(re.fullmatch(STARTED.pattern + r"X(-\d)?", name) for name in names)


def test_a_taken_name_gets_a_number(tmp_path: Path) -> None:
    made = [job_launcher.make_folder(tmp_path / "base" / "a", fresh=True) for _ in range(3)]
    assert [(folder.name, new) for folder, new in made] == [("a", True), ("a-2", True), ("a-3", True)]


def test_going_on_keeps_the_first_copy(place: Place) -> None:
    place.argv("--experiment_dir", "mine")
    place.script("python3 main_continual.py --changed\n")
    argv = place.argv("--experiment_dir", "experiments/mine")
    assert argv == ["--changed", "--experiment_dir", "mine", "--base_experiment_dir", "experiments"]
    assert "--lars" in (place.folder / "experiments" / "mine" / "X.sh").read_text()


def test_the_launchers_folder_wins_over_the_scripts_only_if_given(place: Place) -> None:
    place.script("python3 main_continual.py --experiment_dir own --base_experiment_dir=there --lars\n")
    assert place.argv() == ["--lars", "--experiment_dir", "own", "--base_experiment_dir", "there"]
    argv = place.argv("--experiment_dir", "mine", "--base_experiment_dir", "here")
    assert argv == ["--lars", "--experiment_dir", "mine", "--base_experiment_dir", "here"]
    assert (place.folder / "there" / "own" / "X.sh").exists() and (place.folder / "here" / "mine").is_dir()


def test_a_dry_run_makes_no_folder(place: Place) -> None:
    argv = place.argv("--dry_run")
    assert (argv[0], argv[-1]) == ("--lars", "--dry_run")
    assert place.experiments == []


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_the_exit_code_is_the_childs(place: Place, code: int) -> None:
    assert place.start(EXIT_WITH=str(code)).returncode == code
    assert len(place.experiments) == 1


def test_bad_input_leaves_no_new_folder(place: Place) -> None:
    assert place.start(EXIT_WITH="2").returncode == 2
    assert place.start("--experiment_dir", "mine", EXIT_WITH="2").returncode == 2
    assert place.experiments == []


def test_bad_input_keeps_a_folder_that_existed_or_holds_more(place: Place) -> None:
    (place.folder / "experiments" / "old").mkdir(parents=True)
    assert place.start("--experiment_dir", "old", EXIT_WITH="2").returncode == 2
    place.stand_in("import sys; open(f'experiments/{sys.argv[3]}/result', 'w'); sys.exit(2)")
    assert place.start("--experiment_dir", "new").returncode == 2
    assert place.experiments == ["new", "old"]


def test_a_child_killed_by_a_signal(place: Place) -> None:
    place.stand_in("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert place.start().returncode == 128 + signal.SIGKILL


WAITS = """
import signal, sys, time
def stop(number, frame):
    print("got", number, flush=True)
    time.sleep(0.3)
    print("saved", flush=True)
    sys.exit(7)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGHUP, stop)
print("ready", flush=True)
time.sleep(60)
"""


STARTS_ONE_THAT_WAITS = f"""
import signal, subprocess, sys
with subprocess.Popen([sys.executable, "-c", {WAITS!r}]) as process:
    signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    signal.signal(signal.SIGINT, lambda number, _: None)
    sys.exit(process.wait())
"""


def interrupt(place: Place, stand_in: str, send: Callable[[int], None]) -> tuple[int, list[str]]:
    place.stand_in(stand_in)
    child = subprocess.Popen(
        place.command("--script", "X.sh"),
        cwd=place.folder,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout
    lines = iter(child.stdout.readline, "")
    assert any(line == "ready\n" for line in lines)
    send(child.pid)
    rest = [line.strip() for line in lines]
    return child.wait(timeout=60), rest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_on_and_the_child_waited_for(place: Place, number: signal.Signals) -> None:
    code, lines = interrupt(place, WAITS, lambda pid: os.kill(pid, number))
    assert (code, lines) == (7, [f"got {number.value}", "saved"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_process_that_trains_once(place: Place, number: signal.Signals) -> None:
    code, lines = interrupt(place, STARTS_ONE_THAT_WAITS, lambda pid: os.kill(pid, number))
    assert (code, lines) == (7, [f"got {number.value}", "saved"])


def test_a_terminals_ctrl_c_reaches_the_child_once(place: Place) -> None:
    code, lines = interrupt(place, WAITS, lambda pid: os.killpg(pid, signal.SIGINT))
    assert (code, lines) == (7, [f"got {signal.SIGINT.value}", "saved"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--script", "none.sh"], ["none.sh", "No such file"]),
        (["--script", "."], ["is a directory"]),
        (["--script"], ["--script", "expected one argument"]),
        (["--scrip", "X.sh", "--script", "X.sh"], ["--scrip;", "did you mean --script?"]),
        (["--script", "X.sh", "--dry-run"], ["--dry-run", "did you mean --dry_run?"]),
        (["--script", "X.sh", "--lr=1"], ["--lr=1", "others go into the script"]),
        (["--script", "X.sh", "more"], ["more"]),
        (["--script", ""], ["--script is missing"]),
        (["--script", "X.sh", "--base_experiment_dir", ""], ["--base_experiment_dir is empty"]),
        (["--script", "X.sh", "--experiment_dir", ""], ["--experiment_dir ''"]),
        (["--script", "X.sh", "--base_experiment_dir", "X.sh"], ["X.sh", "File exists"]),
    ],
)
def test_a_mistake_is_one_line(place: Place, flags: list[str], words: list[str]) -> None:
    done = place.start(*flags)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert all(word.lower() in done.stderr.lower() for word in words), done.stderr
    assert place.experiments == []


def test_a_flag_without_its_value_in_the_script(place: Place) -> None:
    place.script("python3 main_continual.py --lars --experiment_dir\n")
    done = place.start()
    assert done.returncode == 2 and "--experiment_dir: expected one argument" in done.stderr


@pytest.mark.parametrize("line", ["a\x1b[31m|", "a\r\u2028|", "é\x85|"])
def test_a_refusal_is_one_line_whatever_the_script_holds(line: str) -> None:
    assert len(refusal(line).splitlines()) == 1 and "\x1b" not in refusal(line)


def test_a_nul_byte_is_refused(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.script("python3 main_continual.py --name 'a\0b'\n")
    ended = place.start()
    assert (ended.returncode, ended.stderr) == (2, "error: X.sh: holds a NUL byte; name a bash script\n")
