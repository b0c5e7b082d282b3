"""What a script asks for, where its experiments go, and one experiment of it from its start to its end."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kaizen.args import UsageError, core_flags
from kaizen.bash_script import MAIN, Script, parse_script
from kaizen.files import read_json, write_json
from kaizen.processes import first_seat
from kaizen.relay import Child, Relay

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = "output.txt"  # in an experiment's folder: what it printed, where several run at a time
RESULTS = "results.json"
LAUNCHED = "launched.json"  # in it: the command that it was done with


def take_flags(args: Sequence[str], *flags: str) -> tuple[dict[str, str | None], list[str]]:
    """Return the values of some flags (the last one given, or None) and the other arguments."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False, exit_on_error=False)
    for flag in flags:
        parser.add_argument(flag)
    values, others = parser.parse_known_args(args)
    return vars(values), others


def safe_name(title: str) -> str:
    """The title reduced to characters that are safe in a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", title).strip("-.")[:100] or "experiment"


def fresh_name(title: str, now: datetime) -> str:
    """Return `<date>_<time>-<title>`."""
    return f"{now:%Y-%m-%d_%H-%M-%S}-{safe_name(title)}"


def comparison_folder(recipe: Recipe, common: str) -> Path:
    """Where its runs are compared, beside them: named after what their folders' names have in common, or the recipe."""
    return Path(recipe.base, f"{common or recipe.name}-comparison")


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


def make_folder(folder: Path, end: str, fresh: bool) -> tuple[Path, bool]:
    """Make the folder `folder` + `end`, and tell whether it is new.

    A fresh one that exists gets a number in front of its end: `NAME-2-seed5`, `NAME-3-seed5`, ...
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    candidate, number = folder.with_name(folder.name + end), 1
    made = fresh or not candidate.exists()
    while True:
        try:
            candidate.mkdir(exist_ok=not fresh)
            return candidate, made
        except FileExistsError:
            if not fresh:
                raise
            number += 1
            candidate = folder.with_name(f"{folder.name}-{number}{end}")


def written(name: str, value: str) -> list[str]:
    """Write a flag as words of a command line; blanks separate values where a flag may have several."""
    one = {spelling for item in core_flags() if not item.many for spelling in (item.name, *item.aliases)}
    values = [value] if name in one else value.split()
    return [f"--{name}", *values] if len(values) > 1 else [f"--{name}={value}"]  # which may begin with a "-"


@dataclass
class Recipe:
    """What one script asks for, and where its experiments go: `base`/`name`, followed by the seed if there are several.

    Attributes:
        source: the script.
        args: for main_continual.py.
        environment: that main_continual.py sees.
        base: folder of all experiments.
        name: of the experiment's folder, without the seed.
        fresh: a folder of this name is not to be there yet.
        title: in messages, where there are several recipes.
        changed: flags and values that have replaced the script's.
    """

    source: Path
    args: list[str]
    environment: dict[str, str]
    base: str
    name: str
    fresh: bool
    title: str = ""
    changed: Sequence[tuple[str, str]] = ()

    @classmethod
    def read(cls, script: str, changed: Sequence[tuple[str, str]], own: Mapping[str, str | None]) -> Recipe:
        """Read a script and what the command line changes of it.

        Args:
            script: path of the script.
            changed: flags and values that replace the script's.
            own: values of --experiment_dir and --base_experiment_dir, if they are given.

        Raises:
            UsageError: something in either of them cannot be.
        """
        source = Path(script)
        text = source.read_text(encoding="utf-8-sig", errors="surrogateescape")  # CRLF becomes a plain newline
        if "\0" in text:
            raise UsageError(f"{script}: holds a NUL byte; name a bash script")
        args, environment = parse_script(Script(script, text), os.environ)
        args += [word for name, value in changed for word in written(name, value)]
        args += [f"{flag}={value}" for flag, value in own.items() if value is not None]  # the last one counts
        place, args = take_flags(args, *own)
        given, base = place["experiment_dir"], place["base_experiment_dir"]
        base = "experiments" if base is None else base
        if not base.strip():
            raise UsageError("--base_experiment_dir is empty; name a folder: --base_experiment_dir experiments")
        title = take_flags(args, "--name")[0]["name"] or source.stem
        name = fresh_name(title, datetime.now()) if given is None else name_inside(Path(base), given)
        return cls(source, args, environment, base, name, fresh=given is None, changed=changed)


@dataclass
class Run:
    """One experiment of a recipe.

    Attributes:
        recipe: of it.
        seed: None: as the recipe says.
        flags: what it has besides the recipe's.
    """

    recipe: Recipe
    seed: int | None
    flags: list[str]
    made: bool = False
    _folder: Path | None = None

    @property
    def end(self) -> str:
        """Of its folder's name."""
        return "" if self.seed is None else f"-seed{self.seed}"

    @property
    def folder(self) -> Path:
        """Where it went, or will go."""
        return self._folder or Path(self.recipe.base) / f"{self.recipe.name}{self.end}"

    @property
    def words(self) -> list[str]:
        """Its arguments, without its place."""
        return [*self.recipe.args, *self.flags]

    def make(self) -> None:
        """Make its folder, with a copy of the script."""
        recipe = self.recipe
        folder, self.made = make_folder(Path(recipe.base) / recipe.name, self.end, recipe.fresh)
        self._folder = folder
        recipe.name = folder.name.removesuffix(self.end)  # the other seeds stand beside it
        if not (folder / recipe.source.name).exists():
            copy = shutil.copy(recipe.source, folder / f".{recipe.source.name}.tmp")
            os.replace(copy, folder / recipe.source.name)  # whole or not at all
        if first_seat():
            print(f"experiment folder: {folder}", flush=True)

    def start(self, relay: Relay, extra: Mapping[str, str], flags: Sequence[str], dry_run: bool, apart: bool) -> Child:
        """Make its folder, with a copy of the script, and start it.

        Args:
            relay: starts the command.
            extra: what its environment has besides the recipe's.
            flags: of the slot, which change nothing of what is learned.
            dry_run: only check; no folder is made.
            apart: what it prints goes into a file in its folder.
        """
        if not dry_run:
            self.make()
        recipe, folder = self.recipe, self.folder
        place = ["--experiment_dir", folder.name, "--base_experiment_dir", recipe.base, *["--dry_run"] * dry_run]
        command = [sys.executable, str(ROOT / MAIN), *self.words, *flags, *place]
        return relay.start(command, {**recipe.environment, **extra}, folder / OUTPUT if apart else None)

    def over(self, code: int) -> None:
        """It has ended: keep what it was done with, or nothing where bad input let nothing begin."""
        if code == 0 and (self.folder / RESULTS).exists() and first_seat():
            write_json(self.folder / LAUNCHED, {"arguments": self.words})
        if code == 2:
            self.take_back()

    def take_back(self, *others: str) -> None:
        """Remove its folder if it is new and nothing has begun there.

        Args:
            others: names of files that do not count.
        """
        if self.made and {*os.listdir(self.folder)} <= {self.recipe.source.name, OUTPUT, *others}:
            shutil.rmtree(self.folder)

    @property
    def done(self) -> bool:
        """Has this very command ended well in its folder, with all results."""
        try:
            launched, results = read_json(self.folder / LAUNCHED), read_json(self.folder / RESULTS)
            return bool(launched["arguments"] == self.words and results["tasks_done"] == results["num_tasks"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
