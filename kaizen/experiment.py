"""An experiment's folder: what it was asked, and how far it is."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from kaizen.args import Args, UsageError, core_flags, printable
from kaizen.files import read_json, write_json
from kaizen.folders import make_folder, task_folder
from kaizen.states import settle


@dataclass(frozen=True)
class Experiment:
    """The folder of one experiment and the flags it was started with."""

    folder: Path
    flags: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.name

    @classmethod
    def open(cls, folder: Path) -> Experiment:
        """Take up an existing experiment. Raises UsageError where the folder does not hold one."""
        return cls(folder, _read(folder)["flags"])

    @classmethod
    def devices(cls, folder: Path) -> int | None:
        """How many devices shared each step when the experiment in a folder began; None where there is none."""
        begun = (folder / "experiment.json").exists()
        return int(_read(folder)["flags"]["devices"]) if begun else None

    @classmethod
    def check(
        cls,
        folder: Path,
        flags: dict[str, Any],
        tasks: list[list[int]] | None = None,
        skipped: Sequence[str] = (),
        images: Mapping[str, str] | None = None,
    ) -> None:
        """Raises UsageError where an experiment in the folder cannot go on with these flags, or data if given."""
        if not (folder / "experiment.json").exists():
            return
        before = _read(folder)
        _compare(folder, before["flags"], flags)
        experiment = cls(folder, before["flags"])
        experiment.check_order(flags["task_idx"], flags["num_tasks"])
        experiment.check_epochs(flags)
        if tasks is not None and before.get("tasks") != tasks:
            raise UsageError(
                f"--data_dir {flags['data_dir']}: its tasks are not those that {folder} began with; "
                "use the same data or another folder"
            )
        if tasks is not None:
            cls(folder, flags).check_images(skipped)
        for kind, identity in (images or {}).items():
            if before["images"].get(kind, identity) != identity:
                raise UsageError(
                    f"--data_dir {flags['data_dir']}: its {kind} images are not those that {folder} began with, "
                    "or in another order; put them back as they were, or use another folder"
                )

    @classmethod
    def start(
        cls,
        folder: Path,
        flags: dict[str, Any],
        tasks: list[list[int]],
        task_names: list[str],
        skipped: Sequence[str] = (),
        classes: Sequence[str] = (),
        notices: Sequence[str] = (),
        images: Mapping[str, str] | None = None,
    ) -> Experiment:
        """Make the folder, or go on in it.

        Args:
            folder: of the experiment.
            flags: all of them.
            tasks: classes of each task.
            task_names: for people.
            skipped: names of images that are left out, as they cannot be read.
            classes: their names, in the order of their numbers.
            notices: what the user was told at the start.
            images: training and test images, told apart by `kaizen.data.identity`.

        Raises:
            UsageError: the folder holds an experiment that cannot go on like this.
        """
        make_folder(folder)
        cls.check(folder, flags, tasks, skipped, images)
        if (folder / "experiment.json").exists():
            cls.open(folder)._settle()
        about = {
            "name": flags["name"],
            "flags": flags,
            "tasks": tasks,
            "task_names": task_names,
            "seeds": {"seed": flags["seed"], "split_seed": flags["split_seed"]},
            "versions": versions(),
            "skipped_images": [*skipped],
            "classes": [*classes],
            "notices": [*notices],
            "images": {**(images or {})},
        }
        write_json(folder / "experiment.json", about)
        return cls(folder, flags)

    def _settle(self) -> None:
        """Before anything changes, see to it that each task that is through says so, and with how many epochs."""
        for task in range(int(self.flags["num_tasks"])):
            if self.done(task):
                settle(self.task_folder(task), self.flags["max_epochs"])

    def check_images(self, skipped: Sequence[str]) -> None:
        """Raises UsageError where other images cannot be read than at the start: all places among them would shift."""
        before = _read(self.folder)["skipped_images"]
        if changed := sorted({*before} ^ {*skipped}):
            verb = "can be read now and could not" if changed[0] in before else "cannot be read now and could"
            raise UsageError(
                f"--skip_bad_images: {changed[0]} {verb} when {self.folder} began ({len(changed)} such changes); "
                "put the images back as they were, or use another folder"
            )

    def task_folder(self, task_idx: int) -> Path:
        """Where everything of one task lies."""
        return task_folder(self.folder, task_idx)

    def make_task_folder(self, task_idx: int) -> Path:
        """The same, for what is about to be written into it."""
        folder = self.task_folder(task_idx)
        folder.mkdir(exist_ok=True)
        return folder

    def checkpoint(self, task_idx: int) -> Path:
        """The end of a task."""
        return self.task_folder(task_idx) / "final.ckpt"

    def accuracy(self, task_idx: int) -> Path:
        """What a task reached."""
        return self.task_folder(task_idx) / "accuracy.json"

    def replay(self, task_idx: int) -> Path:
        """What a task replays."""
        return self.task_folder(task_idx) / "replay.json"

    def evaluation(self, task_idx: int, head: str) -> Path:
        """What a head reached that was evaluated after the training."""
        return self.task_folder(task_idx) / "evaluation" / f"{head}.json"

    def done(self, task_idx: int) -> bool:
        """Is a task through. Its accuracies are the last thing that it writes."""
        return self.accuracy(task_idx).exists() and self.checkpoint(task_idx).exists()

    def begun(self, task_idx: int) -> bool:
        """Is there anything of a task; of what a killed process was just writing, nothing counts."""
        folder = self.task_folder(task_idx)
        return folder.is_dir() and any(path.suffix != ".tmp" for path in folder.iterdir())

    def can_start(self, task_idx: int) -> bool:
        """Is there what a task needs of those before it: all their accuracies, and the last one's model or its own."""
        judged = all(self.accuracy(task).exists() for task in range(task_idx))
        return judged and (task_idx == 0 or self.checkpoint(task_idx - 1).exists() or self.done(task_idx))

    def check_order(self, first: int, num_tasks: int) -> None:
        """Refuse to train a task anew when one after it is done: the results would be of two chains.

        Args:
            first: the task to start from.
            num_tasks: of the experiment.

        Raises:
            UsageError: a task is not done, and a later one is.
        """
        last = max((task for task in range(num_tasks) if self.done(task)), default=0)
        missing = [task for task in range(first, last) if not self.done(task)]
        if missing:
            cure = f"go on with --task_idx {last}" if self.can_start(last) else f"delete the tasks after {missing[0]}"
            raise UsageError(
                f"--task_idx {first}: would train task {missing[0]} of {self.folder}, where task {last} is done and "
                f"would not follow from it; {cure}, or use a new folder"
            )

    def check_epochs(self, flags: dict[str, Any]) -> None:
        """Refuse another --max_epochs than before where a task has begun with that one, or none is left to train.

        Raises:
            UsageError: naming both numbers.
        """
        before, now = self.flags.get("max_epochs"), flags["max_epochs"]
        left = [task for task in range(flags["task_idx"], flags["num_tasks"]) if not self.done(task)]
        begun = [task for task in left if self.begun(task)]
        if before == now or (left and not begun):
            return
        why, cure = f"all tasks of {self.folder} are done", "use another folder"
        if begun:
            place = self.task_folder(begun[0])
            why, cure = f"task {begun[0]} of {self.folder} has begun", f"delete {place} to train it anew"
        raise UsageError(f"--max_epochs {now}: {why} with {before}; use --max_epochs {before}, or {cure}")

    def finish_task(
        self,
        task_idx: int,
        accuracy: dict[str, list[float]],
        baseline: dict[str, list[float]] | None,
        seconds: float,
    ) -> None:
        """Write down what a task reached, and forget what was evaluated of a model that it had before.

        Args:
            task_idx: the task.
            accuracy: head -> accuracy in 0-1 on the test images of each task.
            baseline: the same of the untrained network, for the first task.
            seconds: of training.
        """
        content = {"heads": accuracy, "baseline": baseline, "seconds": seconds}
        shutil.rmtree(self.make_task_folder(task_idx) / "evaluation", ignore_errors=True)
        write_json(self.accuracy(task_idx), content)

    def write_evaluation(
        self,
        task_idx: int,
        head: str,
        accuracy: list[float],
        baseline: list[float] | None,
        settings: dict[str, Any],
    ) -> None:
        """Write down what a head reached in an evaluation after the training; what the training wrote stays.

        Args:
            task_idx: the task after which it was judged.
            head: its name.
            accuracy: in 0-1, on the test images of each task.
            baseline: the same of the untrained network, for the first task.
            settings: what the accuracies depend on besides model and data. Tasks with different ones share no matrix.
        """
        path = self.evaluation(task_idx, head)
        path.parent.mkdir(exist_ok=True)
        write_json(path, {"accuracy": accuracy, "baseline": baseline, "settings": settings})


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    names = ("torch", "torchvision", "pytorch-lightning", "lightly", "numpy")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def _read(folder: Path) -> dict[str, Any]:
    try:
        about = dict(read_json(folder / "experiment.json"))
        about["flags"] = {"devices": Args.devices, **about["flags"]}  # a mapping with names for keys
        if type(about["flags"]["devices"]) is not int or about["flags"]["devices"] < 1:
            raise ValueError("no number of devices")
        about["images"] = dict(about.get("images", {}))
        about["skipped_images"] = [name + "" for name in about.get("skipped_images", ())]
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"--experiment_dir {folder}: experiment.json is missing or damaged; use a new folder"
        ) from None
    return about


def _compare(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    free = {item.name for item in core_flags() if item.free} | {"max_epochs"}  # which may change for later tasks
    before = {**{item.name: item.default for item in core_flags()}, **before}  # flags that are newer than the folder
    differing = [name for name in before.keys() | now.keys() if name not in free and before.get(name) != now.get(name)]
    if bool(before["pretrained_model"]) != bool(now.get("pretrained_model")):  # the file itself may have moved
        differing.append("pretrained_model")
    if differing:
        listed = printable(", ".join(f"--{n} {before.get(n)} (now {now.get(n)})" for n in sorted(differing)))
        raise UsageError(
            f"--experiment_dir {folder}: was started with other flags: {listed}; use the same ones or another folder"
        )
