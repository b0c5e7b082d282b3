"""What must hold for every input: the right result, or one clear line."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import main_continual
from kaizen import evaluate, report
from kaizen.args import Args, UsageError
from kaizen.bash_script import Script, parse_script
from kaizen.checkpoint import load_task, save_task
from kaizen.cli import args_from, flags_of, read_args
from kaizen.experiment import Experiment
from kaizen.memory import kept_before
from kaizen.task import build_learner

SECONDS = 1.0
TASKS, COUNTS = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]], [[1] * 5, [1] * 5]
IMAGES = {"training": "0a", "test": "0b"}
ROWS = {"classifier": [0.5, 0.25], "knn": [0.75, 0.5]}
ARGV = ["--dataset", "digits", "--method", "simclr", "--encoder", "tiny", "--size", "8", "--replay", "True",
        "--proj_hidden_dim", "8", "--output_dim", "4", "--max_epochs", "1"]  # fmt: skip


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """The block ends well, or with a UsageError of one line; soon in any case."""
    started = time.process_time()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except UsageError as error:
        message = str(error)
        assert message and len(message.splitlines()) == 1, f"not one line: {message!r}"
        message.encode()  # can be printed
    assert time.process_time() - started < SECONDS, "slow"


def reproducible(check: Callable[..., None]) -> Callable[..., None]:
    """Whatever a check stumbles over, its message says by which input, in plain ASCII."""

    @functools.wraps(check)
    def checked(*case: Any) -> None:
        try:
            check(*case)
        except Exception as error:
            shown = [argument for argument in case if not isinstance(argument, Folder)]
            where = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-3:]]
            raise AssertionError(ascii(f"{check.__name__}{(*shown,)}: {error!r:.500} at {where}")) from None

    return checked


@reproducible
def check_command_line(argv: list[str]) -> None:
    """`read_args` returns Args or names a flag; the program looks at it and ends with 0, or with 2 and one line."""
    with one_line():
        try:
            assert isinstance(read_args(argv), Args)
        except UsageError as error:
            assert "--" in str(error), f"names no flag: {error}"
            raise
    told = io.StringIO()
    with one_line(), contextlib.redirect_stderr(told):
        status = main_continual.main([*argv, "--dry_run"])
        assert status in (0, 2), f"exit status {status}"
    lines = told.getvalue().splitlines()
    assert not lines if status == 0 else len(lines) == 1 and lines[0].startswith("error: "), lines


@reproducible
def check_script(text: str) -> None:
    """The launcher's parser returns plain arguments or refuses."""
    with one_line():
        arguments, environment = parse_script(Script("x.sh", text), {"A": "1 $B `c`"})
        assert all(isinstance(word, str) for word in [*arguments, *environment.values()])


class Folder:
    """A whole experiment of two tasks, as a run leaves it."""

    def __init__(self, folder: Path) -> None:
        self.args = read_args([*ARGV, "--data_dir", str(folder)])
        self.flags = flags_of(self.args)
        self.experiment = Experiment.start(folder, self.flags, TASKS, ["a", "b"], images=IMAGES)
        learner = build_learner(self.args, 10, 0)
        for task in range(2):
            self.experiment.make_task_folder(task)
            save_task(learner, self.experiment.checkpoint(task), task, self.flags)
            self.experiment.finish_task(task, ROWS, ROWS if task == 0 else None, 1.0)
            self.experiment.write_evaluation(task, "linear", [0.5, 0.5], [0.1, 0.1], {"lr": 0.1})
        kept = [[[i] for i in task] for task in TASKS]
        self.experiment.replay(1).write_text(json.dumps({"selection": "first", "tasks": kept}))
        self.whole = {path: path.read_bytes() for path in sorted(folder.rglob("*.json"))}
        self.checkpoint = self.experiment.checkpoint(0).read_bytes()
        self.content = load_task(self.experiment.checkpoint(0), "--flag")

    def uses(self) -> list[Callable[[], object]]:
        """Everything that reads the folder."""
        folder = self.experiment.folder
        return [
            lambda: args_from(Experiment.open(folder).flags),
            lambda: Experiment.check(folder, self.flags, TASKS, images=IMAGES),
            lambda: kept_before(self.experiment, 1, COUNTS),
            self.report,
            lambda: evaluate.run(["--experiment", str(folder), "--protocol", "knn", "--dry_run"]),
        ]

    def report(self) -> None:
        """Write the results, which are JSON then, and show them."""
        results = report.write(self.experiment.folder)
        json.loads((self.experiment.folder / "results.json").read_text())
        report.show(results)

    @reproducible
    def check_json(self, path: Path, content: bytes) -> None:
        """Everything that reads the folder goes on, or refuses the file."""
        path.write_bytes(content)
        try:
            for use in self.uses():
                with one_line():
                    use()
        finally:
            path.write_bytes(self.whole[path])

    @reproducible
    def check_checkpoint(self, content: bytes) -> None:
        """A damaged checkpoint is refused, or nothing of what it says has changed."""
        path = self.experiment.folder / "damaged.ckpt"
        path.write_bytes(content)
        with one_line():
            assert same(load_task(path, "--flag"), self.content), "other content"


def same(a: Any, b: Any) -> bool:
    """Equal values of the same kind, bit for bit."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and a == b
