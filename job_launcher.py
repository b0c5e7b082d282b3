"""Run one bash script as one experiment, or one for each seed: make its folder, keep a copy of the script, start it.

    DATA_DIR=/data CUDA_VISIBLE_DEVICES=0 python job_launcher.py --script bash_files/NAME.sh
    python job_launcher.py --script bash_files/NAME.sh --seeds 5 6 7 --set max_epochs=20 name=short

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
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kaizen.args import SEED, UsageError, core_flags, shorten
from kaizen.bash_script import MAIN, NAME, Script, parse_script
from kaizen.relay import Relay


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
    """

    source: Path
    args: list[str]
    environment: dict[str, str]
    base: str
    name: str
    fresh: bool

    def run(self, relay: Relay, end: str, flags: Sequence[str], dry_run: bool) -> int:
        """Run one experiment in its folder and return main_continual.py's exit code.

        Args:
            relay: runs the command.
            end: of the folder's name.
            flags: what this experiment has besides `args`.
            dry_run: only check; no folder is made.
        """
        folder, made = Path(self.base) / f"{self.name}{end}", False
        if not dry_run:
            folder, made = make_folder(Path(self.base) / self.name, end, self.fresh)
            self.name = folder.name.removesuffix(end)  # the other seeds stand beside it
            if not (folder / self.source.name).exists():
                copy = shutil.copy(self.source, folder / f".{self.source.name}.tmp")
                os.replace(copy, folder / self.source.name)  # whole or not at all
            print(f"experiment folder: {folder}", flush=True)
        place = ["--experiment_dir", folder.name, "--base_experiment_dir", self.base, *["--dry_run"] * dry_run]
        main = str(Path(__file__).resolve().with_name(MAIN))
        code = relay.run([sys.executable, main, *self.args, *flags, *place], self.environment)
        if code == 2 and made and os.listdir(folder) == [self.source.name]:  # bad input: nothing was run
            shutil.rmtree(folder)
        return code


def read_recipe(options: argparse.Namespace) -> Recipe:
    """Read the script and what the command line changes of it.

    Raises:
        UsageError: something in either of them cannot be.
    """
    source = Path(options.script)
    text = source.read_text(encoding="utf-8-sig", errors="surrogateescape")  # CRLF becomes a plain newline
    if "\0" in text:
        raise UsageError(f"{options.script}: holds a NUL byte; name a bash script")
    args, environment = parse_script(Script(options.script, text), os.environ)
    args += [word for name, value in options.set for word in written(name, value)]
    own = {"--experiment_dir": options.experiment_dir, "--base_experiment_dir": options.base_experiment_dir}
    args += [f"{flag}={value}" for flag, value in own.items() if value is not None]  # the last one counts
    place, args = take_flags(args, *own)
    given, base = place["experiment_dir"], place["base_experiment_dir"]
    base = "experiments" if base is None else base
    if not base.strip():
        raise UsageError("--base_experiment_dir is empty; name a folder: --base_experiment_dir experiments")
    title = take_flags(args, "--name")[0]["name"] or source.stem
    name = fresh_name(title, datetime.now()) if given is None else name_inside(Path(base), given)
    return Recipe(source, args, environment, base, name, fresh=given is None)


def written(name: str, value: str) -> list[str]:
    """Write a flag as words of a command line; blanks separate values where a flag may have several."""
    one = {spelling for item in core_flags() if not item.many for spelling in (item.name, *item.aliases)}
    values = [value] if name in one else value.split()
    return [f"--{name}", *values] if len(values) > 1 else [f"--{name}={value}"]  # which may begin with a "-"


def launch(options: argparse.Namespace) -> int:
    """Run the experiment of `options.script`, or one for each seed, and return main_continual.py's exit code."""
    recipe = read_recipe(options)
    relay = Relay()
    if not options.seeds:
        return recipe.run(relay, "", [], options.dry_run)
    for seed in options.seeds:  # where a folder cannot be, nothing is begun
        name_inside(Path(recipe.base), f"{recipe.name}-seed{seed}")
    fixed = {name for name, _ in options.set}
    codes: dict[int, int] = {}
    for seed in options.seeds:
        flags = [f"--{name}={seed}" for name in ("seed", "split_seed") if name not in fixed]
        codes[seed] = recipe.run(relay, f"-seed{seed}", flags, options.dry_run)
        if relay.received or codes[seed] == 2 or codes[seed] > 128:  # asked to end, bad input, or killed
            break
    return told(recipe, options.seeds, codes, relay.received)


def told(recipe: Recipe, seeds: Sequence[int], codes: Mapping[int, int], received: Sequence[int]) -> int:
    """Say which seeds failed and which were not begun, and return the first exit code that is not 0."""
    for seed, code in codes.items():
        if code != 0:
            folder = Path(recipe.base) / f"{recipe.name}-seed{seed}"
            cure = f"; --seeds {seed} --experiment_dir {recipe.name} goes on with it" * folder.exists()
            print(f"seed {seed} stopped with exit status {code}{cure}", file=sys.stderr)
    left = seeds[len(codes) :]
    if left:
        print(f"not begun: --seeds {' '.join(map(str, left))}", file=sys.stderr)
    asked = 128 + received[-1] if received and left else 0
    return next((code for code in codes.values() if code != 0), asked)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the launcher's own flags; an unknown one or a missing script is a UsageError."""
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--script", help=f"the bash script with one {MAIN} command")
    parser.add_argument(
        "--seeds",
        nargs="+",
        metavar="N",
        default=[],
        help="run the script once for each, one after the other, with --seed N and --split_seed N (the published runs "
        "have one number for both; --set split_seed=5 keeps one split), each in a folder that ends in -seedN",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        metavar="FLAG=VALUE",
        default=[],
        help="flags that replace the script's: --set max_epochs=20 no_distill=True; blanks separate several "
        "values of one flag: --set 'classifier_layers=256 128'",
    )
    parser.add_argument(
        "--experiment_dir", help="folder inside the base; an existing one is gone on with; with --seeds NAME-seedN"
    )
    parser.add_argument("--base_experiment_dir", help="folder of all experiments (default: experiments)")
    parser.add_argument("--dry_run", action="store_true", help="check only: no folder; passed on to the run")
    options, unknown = parser.parse_known_args(argv)
    flags = [f"--{name}" for name in vars(options)]
    if unknown:
        near = difflib.get_close_matches(unknown[0].partition("=")[0], flags, n=1)
        cure = f"did you mean {near[0]}?" if near else "others go into the script, or behind --set as FLAG=VALUE"
        raise UsageError(f"unknown argument {unknown[0]}; {cure}")
    if not options.script:
        raise UsageError("--script is missing; name the experiment's script: --script bash_files/NAME.sh")
    options.set = [changed_flag(text) for text in options.set]
    options.seeds = checked_seeds(options.seeds, {name for name, _ in options.set})
    return options


def changed_flag(text: str) -> tuple[str, str]:
    """Split FLAG=VALUE. Raises UsageError where it is none."""
    name, sign, value = text.partition("=")
    if not (sign and re.fullmatch(NAME, name)):
        raise UsageError(f"--set {shorten(ascii(text)[1:-1])}: is not FLAG=VALUE; write --set max_epochs=20")
    return name, value


def checked_seeds(texts: Sequence[str], fixed: Collection[str]) -> list[int]:
    """Read --seeds. Raises UsageError where one is no seed or is given twice, or --set gives one as well."""
    for text in texts:
        if not re.fullmatch("[0-9]{1,10}", text) or int(text) not in SEED:
            raise UsageError(f"--seeds {shorten(ascii(text)[1:-1])}: must be whole numbers, each {SEED}")
    seeds = [int(text) for text in texts]
    twice = [seed for place, seed in enumerate(seeds) if seed in seeds[:place]]
    if twice:
        raise UsageError(f"--seeds {twice[0]}: is there twice; give each seed once")
    if seeds and "seed" in fixed:
        raise UsageError("--set seed with --seeds: every run would have the same one; leave one of the two out")
    return seeds


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
