"""The launcher, with stand-ins of main_continual.py."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from launching import STARTED, STARTS_ONE_THAT_WAITS, WAITS, Place, interrupt

from kaizen.args import UsageError
from kaizen.recipe import fresh_name, make_folder, name_inside, take_flags


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
    made = [make_folder(tmp_path / "base" / "a", "", fresh=True) for _ in range(3)]
    assert [(folder.name, new) for folder, new in made] == [("a", True), ("a-2", True), ("a-3", True)]
    made = [make_folder(tmp_path / "base" / "a", "-seed5", fresh=True) for _ in range(2)]
    assert [folder.name for folder, _ in made] == ["a-seed5", "a-2-seed5"]


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
        (["--script"], ["--script", "expected at least one argument"]),
        (["--scrip", "X.sh", "--script", "X.sh"], ["--scrip;", "did you mean --script?"]),
        (["--script", "X.sh", "--dry-run"], ["--dry-run", "did you mean --dry_run?"]),
        (["--script", "X.sh", "--lr=1"], ["--lr=1", "others go into the script"]),
        (["--script", "X.sh", "more"], ["more"]),
        (["--script", ""], ["--script is missing"]),
        (["--script", "X.sh", "--base_experiment_dir", ""], ["--base_experiment_dir is empty"]),
        (["--script", "X.sh", "--experiment_dir", ""], ["--experiment_dir ''"]),
        (["--script", "X.sh", "--base_experiment_dir", "X.sh"], ["X.sh", "File exists"]),
        (["--script", "X.sh", "--slots", "0"], ["--slots 0", "whole number"]),
        (["--script", "X.sh", "--gpus", "a"], ["--gpus a", "--gpus 0,1"]),
        (["--script", "X.sh", "--arm", ""], ["--arm ''", "names no arm"]),
        (["--script", "X.sh", "--arm", "A", "x"], ["--arm A x", "FLAG=VALUE"]),
        (["--script", "X.sh", "--arm", "A b", "--arm", "a-B"], ["--arm a-B", "another name"]),
        (["--script", "X.sh", "X.sh"], ["X.sh and X.sh", "one name"]),
        (["--script", "X.sh", "--seeds"], ["--seeds", "expected at least one argument"]),
        (["--script", "X.sh", "--seeds", "5", "x\n"], ["--seeds x\\n", "whole numbers"]),
        (["--script", "X.sh", "--seeds", "-1"], ["--seeds -1", "at least 0"]),
        (["--script", "X.sh", "--seeds", "1000000001"], ["--seeds 1000000001", "at most 1e+09"]),
        (["--script", "X.sh", "--seeds", "5", "6", "05"], ["--seeds 5", "twice"]),
        (["--script", "X.sh", "--seeds", "5", "--set", "seed=6"], ["--set seed", "--seeds"]),
        (["--script", "X.sh", "--seeds", "5", "--experiment_dir", "a/b"], ["--experiment_dir a/b", "not directly"]),
        (["--script", "X.sh", "--set", "max_epochs"], ["--set max_epochs", "FLAG=VALUE"]),
        (["--script", "X.sh", "--set", "--max_epochs=3"], ["--set", "expected at least one argument"]),
        (["--script", "X.sh", "--set", "a b=3\n"], ["--set a b=3\\n", "FLAG=VALUE"]),
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


def test_a_nul_byte_is_refused(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.script("python3 main_continual.py --name 'a\0b'\n")
    ended = place.start()
    assert (ended.returncode, ended.stderr) == (2, "error: X.sh: holds a NUL byte; name a bash script\n")


def test_it_starts_where_nothing_is_installed(place: Place) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(place.launcher), "--script", "X.sh"],
        cwd=place.folder, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
