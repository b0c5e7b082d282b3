"""The launcher, with stand-ins of main_continual.py."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from helpers import wait_for

import job_launcher
from kaizen.args import UsageError
from kaizen.recipe import fresh_name, make_folder, name_inside, take_flags, written
from kaizen.slots import cores, slots_on

STAND_IN = """
import json, os, sys
print(json.dumps({"argv": sys.argv[1:], "marker": os.environ.get("MARKER"), "cwd": os.getcwd()}))
sys.exit(int(os.environ.get("EXIT_WITH", "0")))
"""
STARTED = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-")


class Place:
    """A folder with the launcher, a stand-in and one script; `start` runs the launcher there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.launcher = folder / "code" / "job_launcher.py"
        own = Path(job_launcher.__file__)
        (self.launcher.parent / "kaizen").mkdir(parents=True)
        shutil.copy(own, self.launcher)
        parts = (
            "__init__",
            "args",
            "bash_script",
            "files",
            "jobs",
            "lock",
            "processes",
            "recipe",
            "relay",
            "slots",
            "slurm",
        )
        for name in parts:
            shutil.copy(own.parent / "kaizen" / f"{name}.py", self.launcher.parent / "kaizen")
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


def interrupt(place: Place, stand_in: str, send: Callable[[int], None], *flags: str) -> tuple[int, list[str]]:
    place.stand_in(stand_in)
    child = subprocess.Popen(
        place.command("--script", "X.sh", *flags),
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


# ---- one run for each seed, and flags that are changed ------------------------------------------------------

FAILS_WITH = """
import json, os, sys
flags = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
print(json.dumps(sys.argv[1:]), flush=True)
sys.exit(json.loads(os.environ.get("CODES", "{}")).get(flags["--seed"], 0))
"""


def runs(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


def test_each_seed_is_a_run_in_its_own_folder(place: Place) -> None:
    place.stand_in(FAILS_WITH)
    done = place.start("--seeds", "5", "06")
    assert done.returncode == 0 and done.stderr == ""
    assert [argv[:3] for argv in runs(done)] == [["--lars", f"--seed={n}", f"--split_seed={n}"] for n in (5, 6)]
    first, second = place.experiments
    assert first.endswith("-X-seed5") and second == first.replace("-seed5", "-seed6")
    assert [argv[4] for argv in runs(done)] == [first, second]
    assert all((place.folder / "experiments" / name / "X.sh").exists() for name in (first, second))


def test_the_same_command_goes_on_in_the_same_folders(place: Place) -> None:
    place.stand_in(FAILS_WITH)
    for _ in range(2):
        done = place.start("--seeds", "5", "6", "--experiment_dir", "experiments/mine/")
        assert [argv[4] for argv in runs(done)] == ["mine-seed5", "mine-seed6"]
    assert place.experiments == ["mine-seed5", "mine-seed6"]


def test_a_failed_seed_does_not_keep_the_others(place: Place) -> None:
    place.stand_in(FAILS_WITH)
    done = place.start("--seeds", "5", "6", "7", "--experiment_dir", "mine", CODES='{"5": 3, "6": 1}')
    assert (done.returncode, len(runs(done))) == (3, 3)
    assert done.stderr.splitlines() == [
        "seed 5 stopped with exit status 3; --seeds 5 --experiment_dir mine goes on with it",
        "seed 6 stopped with exit status 1; --seeds 6 --experiment_dir mine goes on with it",
    ]


@pytest.mark.parametrize("code", [2, 137])
def test_bad_input_or_a_kill_keeps_the_others(place: Place, code: int) -> None:
    place.stand_in(FAILS_WITH)
    done = place.start("--seeds", "5", "6", "7", CODES=f'{{"5": {code}}}')
    assert (done.returncode, len(runs(done))) == (code, 1)
    assert done.stderr.splitlines()[0].startswith(f"seed 5 stopped with exit status {code}")
    assert done.stderr.splitlines()[1] == "not begun: --seeds 6 7"
    assert len(place.experiments) == (0 if code == 2 else 1)


def in_use_elsewhere(place: Place, name: str) -> int:
    """Hold the lock of an experiment's folder, as a run does whose launcher was killed; the open file."""
    folder = place.folder / "experiments" / name
    folder.mkdir(parents=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def test_what_another_process_runs_begins_when_that_is_over(place: Place) -> None:
    place.stand_in(FAILS_WITH)
    descriptor = in_use_elsewhere(place, "mine-seed5")
    command = place.command("--script", "X.sh", "--seeds", "5", "6", "--slots", "1", "--experiment_dir", "mine")
    launcher = subprocess.Popen(command, cwd=place.folder, stdout=subprocess.PIPE, text=True)
    assert launcher.stdout
    waits = next(launcher.stdout)
    assert waits.endswith("mine-seed5 is in use by another process; waiting until that is over\n")
    with pytest.raises(subprocess.TimeoutExpired):  # its slot is taken
        launcher.wait(timeout=1)
    os.close(descriptor)
    seeds = [line for line in launcher.stdout if line.startswith("[")]
    assert launcher.wait(timeout=60) == 0 and ["--seed=5" in line for line in seeds] == [True, False]


def test_a_signal_ends_the_wait_for_another_process(place: Place) -> None:
    descriptor = in_use_elsewhere(place, "mine-seed5")
    command = place.command("--script", "X.sh", "--seeds", "5", "6", "--slots", "1", "--experiment_dir", "mine")
    launcher = subprocess.Popen(command, cwd=place.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert launcher.stdout and "is in use by" in next(launcher.stdout)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.communicate(timeout=60)[1] == "not begun: --seeds 5 6\n"
    assert launcher.returncode == 128 + signal.SIGTERM
    os.close(descriptor)


def test_a_dry_run_checks_each_seed(place: Place) -> None:
    place.stand_in(FAILS_WITH)
    done = place.start("--seeds", "5", "6", "--dry_run")
    assert [argv[-1] for argv in runs(done)] == ["--dry_run", "--dry_run"] and place.experiments == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_no_other_seed_is_begun(place: Place, number: signal.Signals) -> None:
    def send(pid: int) -> None:
        os.kill(pid, number)

    code, lines = interrupt(place, WAITS, send, "--seeds", "5", "6")
    assert (code, lines) == (7, [f"got {number.value}", "saved"])
    assert len(place.experiments) == 1


def test_a_run_that_ends_well_all_the_same_is_the_last(place: Place) -> None:
    code, _ = interrupt(place, WAITS.replace("exit(7)", "exit(0)"), lambda pid: os.kill(pid, signal.SIGTERM),
                        "--seeds", "5", "6")  # fmt: skip
    assert (code, len(place.experiments)) == (128 + signal.SIGTERM, 1)


def test_changed_flags_come_after_the_scripts(place: Place) -> None:
    place.script("python3 main_continual.py --name first --max_epochs 100\n")
    argv = place.argv("--set", "max_epochs=20", "name=my run", "--set", "classifier_layers=256 128", "no_distill=True")
    assert argv[:4] == ["--name", "first", "--max_epochs", "100"]
    assert argv[4:10] == [
        "--max_epochs=20", "--name=my run", "--classifier_layers", "256", "128", "--no_distill=True"
    ]  # fmt: skip
    assert place.experiments[0].endswith("-my-run")


def test_set_keeps_one_split_for_all_seeds(place: Place) -> None:
    place.stand_in(FAILS_WITH)
    done = place.start("--seeds", "6", "7", "--set", "split_seed=5")
    assert [argv[:3] for argv in runs(done)] == [["--lars", "--split_seed=5", f"--seed={n}"] for n in (6, 7)]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("data_dir", "my data", ["--data_dir=my data"]),
        ("name", "--x", ["--name=--x"]),
        ("memory_size", "5", ["--memory_size=5"]),
        ("lr_decay_steps", "3 5", ["--lr_decay_steps", "3", "5"]),
        ("classifier_layers", "", ["--classifier_layers="]),
    ],
)
def test_written(name: str, value: str, words: list[str]) -> None:
    assert written(name, value) == words


# ---- several scripts, arms and seeds, some at a time --------------------------------------------------------

LASTS = """
import json, os, sys, time
from pathlib import Path
words = sys.argv[1:]
flags = dict(word.split("=", 1) for word in words if "=" in word)
folder = Path(words[words.index("--base_experiment_dir") + 1], words[words.index("--experiment_dir") + 1])
began = time.time()
if folder.name in os.environ.get("FAIL", "").split(","):
    print("error: it went wrong")
    sys.exit(int(os.environ["CODE"]))
time.sleep(0.4)
(folder / "results.json").write_text(json.dumps({"tasks_done": 1, "num_tasks": 1}))
seen = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
with (folder / "calls.json").open("a") as file:
    file.write(json.dumps([words, began, time.time(), seen]) + "\\n")
"""
STUDY = ("--script", "X.sh", "Y.sh", "--seeds", "5", "6", "7", "--experiment_dir", "big")


@pytest.fixture
def study(place: Place) -> Place:
    place.stand_in(LASTS)
    shutil.copy(place.folder / "X.sh", place.folder / "Y.sh")
    (place.launcher.parent / "kaizen" / "compare.py").write_text("import sys; print('compared', *sys.argv[1:])")
    return place


def calls(place: Place, name: str) -> list[tuple[list[str], float, float, dict[str, str]]]:
    path = place.folder / "experiments" / name / "calls.json"
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def most_at_once(place: Place) -> int:
    spans = [(begun, ended) for name in place.experiments for _, begun, ended, _ in calls(place, name)]
    return max(sum(begun <= moment < ended for begun, ended in spans) for moment, _ in spans)


def test_a_study_fills_its_slots_and_is_compared(study: Place) -> None:
    done = study.start(*STUDY, "--slots", "2", "--set", "lr=0.1")
    assert done.returncode == 0, done.stderr
    names = [f"big-{script}-seed{seed}" for script in "XY" for seed in (5, 6, 7)]
    assert study.experiments == names and most_at_once(study) == 2
    assert calls(study, "big-X-seed6")[0][0][:4] == ["--lars", "--lr=0.1", "--seed=6", "--split_seed=6"]
    assert (study.folder / "experiments" / "big-Y-seed5" / "Y.sh").exists()
    assert sum(": done after" in line for line in done.stdout.splitlines()) == 6 and "(6 of 6)" in done.stdout
    by_seed = [f"experiments/big-{script}-seed{seed}" for seed in (5, 6, 7) for script in "XY"]
    assert done.stdout.splitlines()[-1] == f"compared {' '.join(by_seed)} --out experiments/big-comparison"


@pytest.mark.parametrize(
    ("code", "kept"), [(1, []), (2, ["big-X-seed6", "big-X-seed7"]), (137, ["big-X-seed6", "big-X-seed7"])]
)
def test_a_run_that_fails_keeps_none_but_its_own_kind_and_is_taken_up(study: Place, code: int, kept: list[str]) -> None:
    done = study.start(*STUDY, FAIL="big-X-seed5", CODE=str(code))
    assert done.returncode == code
    assert {name for name in study.experiments if not calls(study, name)} <= {"big-X-seed5"}
    assert {name for name in kept if calls(study, name)} == set()
    assert "X.sh, seed 5 stopped with exit status" in done.stderr
    assert ("not begun: X.sh, seed 6; X.sh, seed 7" in done.stderr) == bool(kept)
    before = {name: calls(study, name) for name in study.experiments if calls(study, name)}
    again = study.start(*STUDY, "--slots", "3")
    assert again.returncode == 0 and len(study.experiments) == 6
    assert all(calls(study, name) == found for name, found in before.items())  # what is done is left alone
    assert sum(line.endswith("is done") for line in again.stdout.splitlines()) == len(before) == 5 - len(kept)
    assert all(len(calls(study, name)) == 1 for name in study.experiments)


def test_what_a_run_of_a_study_said_last_is_told(study: Place) -> None:
    done = study.start(*STUDY, "--slots", "2", FAIL="big-Y-seed7", CODE="3")
    assert re.search(r"big-Y-seed7: exit status 3 after 0 seconds \(\d of 6\): error: it went wrong", done.stdout)
    assert "error" in (study.folder / "experiments" / "big-Y-seed7" / "output.txt").read_text()


def test_a_run_whose_flags_changed_is_started_again(study: Place) -> None:
    for changed in ("lr=0.1", "lr=0.1", "lr=0.2"):
        study.start(*STUDY, "--set", changed)
    assert {len(calls(study, name)) for name in study.experiments} == {2}


def test_arms_have_names_flags_and_folders(study: Place) -> None:
    done = study.start(
        "--script", "X.sh", "--experiment_dir", "big", "--arm", "all of it", "--arm", "bare", "replay=False", "lr=1"
    )
    assert done.returncode == 0, done.stderr
    assert study.experiments == ["big-all-of-it", "big-bare"]
    assert calls(study, "big-all-of-it")[0][0][1] == "--name=all of it"
    assert calls(study, "big-bare")[0][0][1:4] == ["--name=bare", "--replay=False", "--lr=1"]


def test_without_a_folders_name_a_study_has_one_of_its_own(study: Place) -> None:
    assert study.start("--script", "X.sh", "Y.sh").returncode == 0
    first, second = study.experiments
    assert first.endswith("-study-X") and second == first.removesuffix("X") + "Y"


def test_each_run_has_a_gpu_of_those_that_are_visible(study: Place) -> None:
    assert study.start(*STUDY, "--gpus", "0,2", CUDA_VISIBLE_DEVICES="4,5,6").returncode == 0
    found = [calls(study, name)[0] for name in study.experiments]
    assert {seen["CUDA_VISIBLE_DEVICES"] for *_, seen in found} == {"4", "6"} and most_at_once(study) == 2
    assert all("--gpus=0" in words for words, *_ in found)


def test_cores_are_shared_among_slots() -> None:
    assert [dict(slot.environment) for slot in slots_on(None, [], {})] == [{}]
    (slot, *_) = slots_on(2, [], {})
    assert slot.environment == {"OMP_NUM_THREADS": str(max(1, cores() // 2))} and slot.flags == []
    assert dict(slots_on(2, [], {"OMP_NUM_THREADS": "3"})[0].environment) == {}
    shared = slots_on(4, [0, 1], {"OMP_NUM_THREADS": "1"})
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in shared] == ["0", "1", "0", "1"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_slot_once_and_no_other_run_begins(study: Place, number: signal.Signals) -> None:
    study.stand_in(WAITS)
    command = study.command(*STUDY, "--slots", "2")
    with subprocess.Popen(command, cwd=study.folder, start_new_session=True, stderr=subprocess.PIPE) as launcher:
        outputs = [study.folder / "experiments" / f"big-{script}-seed5" / "output.txt" for script in "XY"]
        wait_for(lambda: all(path.exists() and "ready" in path.read_text() for path in outputs))
        launcher.send_signal(number)
        assert launcher.wait(timeout=60) == 7
        assert launcher.stderr is not None and b"not begun: X.sh, seed 6" in launcher.stderr.read()
    assert [path.read_text().splitlines() for path in outputs] == [["ready", f"got {number.value}", "saved"]] * 2
    assert len(study.experiments) == 2


def test_a_dry_run_of_a_study_checks_all_and_makes_nothing(study: Place) -> None:
    study.stand_in(STAND_IN)
    done = study.start(*STUDY, "--slots", "2", "--dry_run")
    assert [json.loads(line)["argv"][-1] for line in done.stdout.splitlines()] == ["--dry_run"] * 6
    assert study.experiments == []
