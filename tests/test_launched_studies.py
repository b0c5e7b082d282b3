"""The launcher with several runs: one for each seed, arms, and studies whose runs share slots; with stand-ins."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess

import pytest
from helpers import wait_for
from launching import STAND_IN, WAITS, Place, interrupt

from kaizen.recipe import written
from kaizen.slots import cores, slots_on

# ---- one run for each seed, and flags that are changed ------------------------------------------------------

FAILS_WITH = """
import json, os, sys
flags = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
print(json.dumps(sys.argv[1:]), flush=True)
if "BEGUN" in os.environ:
    place = f"experiments/{sys.argv[sys.argv.index('--experiment_dir') + 1]}/task0"
    os.makedirs(place)
    open(f"{place}/state.json", "w")
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


def test_bad_input_keeps_the_others(place: Place) -> None:
    place.stand_in(FAILS_WITH)
    done = place.start("--seeds", "5", "6", "7", CODES='{"5": 2}')
    assert (done.returncode, len(runs(done))) == (2, 1)
    assert done.stderr.splitlines() == ["seed 5 stopped with exit status 2", "not begun: --seeds 6 7"]
    assert place.experiments == []


@pytest.mark.parametrize(("code", "begun"), [(2, {"BEGUN": "1"}), (137, {})])
def test_a_loss_of_nan_or_a_kill_keeps_none(place: Place, code: int, begun: dict[str, str]) -> None:
    place.stand_in(FAILS_WITH)
    done = place.start("--seeds", "5", "6", "7", CODES=f'{{"5": {code}}}', **begun)
    assert (done.returncode, len(runs(done))) == (code, 3)
    assert done.stderr.startswith(f"seed 5 stopped with exit status {code}") and "not begun" not in done.stderr
    assert len(place.experiments) == 3


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


@pytest.mark.parametrize(("code", "kept"), [(1, []), (2, ["big-X-seed6", "big-X-seed7"]), (137, [])])
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
    assert re.search(r"big-Y-seed7: exit status 3 after \d seconds \(\d of 6\): error: it went wrong", done.stdout)
    assert "error" in (study.folder / "experiments" / "big-Y-seed7" / "output.txt").read_text()


def test_what_cannot_be_kept_of_a_run_does_not_keep_the_others(study: Place) -> None:
    (study.folder / "experiments" / "big-X-seed5" / "launched.json").mkdir(parents=True)
    done = study.start(*STUDY, "--slots", "2")
    assert done.returncode == 2 and "launched.json: Is a directory; check this path" in done.stderr
    assert all(len(calls(study, name)) == 1 for name in study.experiments) and len(study.experiments) == 6


def test_a_comparison_that_fails_is_no_success(study: Place) -> None:
    (study.launcher.parent / "kaizen" / "compare.py").write_text("raise SystemExit(2)")
    assert study.start(*STUDY, "--slots", "2").returncode == 2


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
