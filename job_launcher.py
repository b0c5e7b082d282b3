r"""Run bash scripts as experiments: make each one's folder, keep a copy of the script, start it.

    DATA_DIR=/data CUDA_VISIBLE_DEVICES=0 python job_launcher.py --script bash_files/NAME.sh
    python job_launcher.py --script bash_files/NAME.sh --seeds 5 6 7 --set max_epochs=20 name=short
    python job_launcher.py --script A.sh B.sh --seeds 5 6 7 --gpus 0,1,2,3 --experiment_dir STUDY \
        --arm Kaizen --arm CaSSLe classifier_distill_lamb=0 replay=False
    python job_launcher.py --script A.sh --mode slurm --partition gpu --gpus 4 --hours 12 --requeue

A script holds one `python3 main_continual.py ...` command. It is read here and started without a shell: a
variable's value arrives as one argument, whatever it contains. What only a shell could do is refused.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from kaizen import jobs, slurm
from kaizen.args import SEED, UsageError, shorten, shown
from kaizen.bash_script import MAIN, NAME
from kaizen.files import path_error
from kaizen.recipe import RESULTS, ROOT, Recipe, Run, comparison_folder, fresh_name, name_inside, safe_name
from kaizen.relay import Relay
from kaizen.slots import Slots, slots_on

Changed = list[tuple[str, str]]  # flags and their values


def launch(options: argparse.Namespace) -> int:
    """Run every script, arm and seed, compare them if there are several, and return the first exit code that is bad."""
    recipes, common = read_recipes(options)
    runs = [Run(recipe, seed, seed_flags(options, seed)) for seed in options.seeds or [None] for recipe in recipes]
    for run in runs:  # where a folder cannot be, nothing is begun
        name_inside(Path(run.recipe.base), run.folder.name)
    if options.slurm is not None:
        return jobs.submit(options.slurm, runs, common, options.dry_run)
    relay = Relay()
    compared = 0
    codes = Slots(relay, slots_on(options.slots, options.gpus, os.environ), options.dry_run, runs).run()
    done = [str(run.folder) for place, run in enumerate(runs) if codes.get(place) == 0]
    done = [folder for folder in done if Path(folder, RESULTS).exists()]
    if len(done) > 1 and not options.dry_run and not relay.received:
        out = comparison_folder(recipes[0], common)
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-m", "kaizen.compare", *done, "--out", str(out)]
        compared = relay.run(command, {**os.environ, "PYTHONPATH": paths})
    if len(runs) == 1:
        return codes.get(0, 128 + (relay.received or [0])[-1])
    return told(runs, codes, common, relay.received) or compared


def read_recipes(options: argparse.Namespace) -> tuple[list[Recipe], str]:
    """Read every script, once for each arm.

    Returns:
        The recipes, and what the names of their folders begin with if they are several.

    Raises:
        UsageError: something in a script or on the command line cannot be.
    """
    arms: list[tuple[str, Changed]] = options.arm or [("", [])]
    own = {"--experiment_dir": options.experiment_dir, "--base_experiment_dir": options.base_experiment_dir}
    if len(options.script) * len(arms) == 1:
        return [Recipe.read(options.script[0], [*options.set, *named(*arms[0])], own)], ""
    common, recipes = options.experiment_dir or fresh_name("study", datetime.now()), []
    for script in options.script:
        for arm, changed in arms:
            parts = [safe_name(Path(script).stem)] * (len(options.script) > 1) + [safe_name(arm)] * bool(arm)
            home = {**own, "--experiment_dir": "-".join([common.rstrip("/"), *parts])}
            recipe = Recipe.read(script, [*options.set, *named(arm, changed)], home)
            recipe.title = ", ".join([script] * (len(options.script) > 1) + [f"arm {arm}"] * bool(arm))
            recipes.append(recipe)
    names = [Path(recipe.base, recipe.name) for recipe in recipes]
    for place, name in enumerate(names):
        if name in names[:place]:
            twin = recipes[names.index(name)].title
            raise UsageError(f"{recipes[place].title} and {twin}: their folders have one name; rename one of them")
    return recipes, Path(common).name


def named(arm: str, changed: Changed) -> Changed:
    """What an arm changes: its own flags, and the name by which a comparison knows it."""
    return [("name", arm), *changed] if arm else changed


def seed_flags(options: argparse.Namespace, seed: int | None) -> list[str]:
    """--seed and --split_seed, but for what --set fixes."""
    fixed = {name for name, _ in options.set}
    return [] if seed is None else [f"--{name}={seed}" for name in ("seed", "split_seed") if name not in fixed]


def told(runs: Sequence[Run], codes: Mapping[int, int], common: str, received: Sequence[int]) -> int:
    """Say which runs failed and which were not begun, and return the first exit code that is not 0."""
    for place, code in sorted(codes.items()):
        run = runs[place]
        if code != 0:
            here = f"--experiment_dir {common or run.recipe.name} goes on with it"
            cure = f"; the same command with {here}" if common else f"; --seeds {run.seed} {here}"
            print(f"{title(run)} stopped with exit status {code}{cure * run.folder.exists()}", file=sys.stderr)
    left = [run for place, run in enumerate(runs) if place not in codes]
    if left and common:
        print(f"not begun: {'; '.join(map(title, left))}", file=sys.stderr)
    elif left:
        print(f"not begun: --seeds {' '.join(str(run.seed) for run in left)}", file=sys.stderr)
    asked = 128 + received[-1] if received and left else 0
    return next((code for _, code in sorted(codes.items()) if code != 0), asked)


def title(run: Run) -> str:
    """A run in messages."""
    return ", ".join(filter(None, [run.recipe.title, "" if run.seed is None else f"seed {run.seed}"]))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the launcher's own flags; an unknown one or a missing script is a UsageError."""
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--script", nargs="+", metavar="X.sh", help=f"bash scripts, each with one {MAIN} command")
    parser.add_argument(
        "--seeds",
        nargs="+",
        metavar="N",
        default=[],
        help="run each script once for each, with --seed N and --split_seed N (the published runs "
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
        "--arm",
        nargs="+",
        action="append",
        metavar=("NAME", "FLAG=VALUE"),
        default=[],
        help="may be given several times: run each script once for each arm, with --name NAME and these flags in the "
        "place of the script's",
    )
    parser.add_argument("--slots", metavar="N", help="runs at a time (default: one for each GPU in --gpus, else 1)")
    parser.add_argument(
        "--gpus",
        metavar="0,1",
        help="GPUs to share among the runs, each on one (default: as in the script); with "
        "--mode slurm: how many on each node",
    )
    parser.add_argument(
        "--experiment_dir",
        help="folder inside the base; an existing one is gone on with; of several runs the beginning of each one's "
        "name: NAME-<script>-<arm>-seedN",
    )
    parser.add_argument("--base_experiment_dir", help="folder of all experiments (default: experiments)")
    parser.add_argument("--dry_run", action="store_true", help="check only: no folder; passed on to the run")
    slurm.add_flags(parser)
    options, unknown = parser.parse_known_args(argv)
    flags = [f"--{name}" for name in vars(options)]
    if unknown:
        near = difflib.get_close_matches(unknown[0].partition("=")[0], flags, n=1, cutoff=0.7)
        cure = f"did you mean {near[0]}?" if near else "others go into the script, or behind --set as FLAG=VALUE"
        raise UsageError(f"unknown argument {unknown[0]}; {cure}")
    if not options.script or not all(options.script):
        raise UsageError("--script is missing; name the experiment's script: --script bash_files/NAME.sh")
    options.arm = checked_arms(options.arm)
    options.set = [changed_flag("--set", text) for text in options.set]
    options.slots = slurm.whole("slots", options.slots, "of runs at a time: --slots 4")
    options.slurm = slurm.checked(options)
    if options.slurm is None:
        options.gpus = checked_gpus(options.gpus)
    else:
        options.set = [*options.slurm.flags, *options.set]
    options.seeds = checked_seeds(options.seeds, {name for name, _ in options.set})
    return options


def changed_flag(option: str, text: str) -> tuple[str, str]:
    """Split FLAG=VALUE. Raises UsageError where it is none."""
    name, sign, value = text.partition("=")
    if not (sign and re.fullmatch(NAME, name)):
        raise UsageError(f"{option} {shown(text)}: is not FLAG=VALUE; write {option} max_epochs=20")
    return name, value


def checked_arms(texts: Sequence[Sequence[str]]) -> list[tuple[str, Changed]]:
    """Read --arm. Raises UsageError where one has no name, or the name of another, or a word that is no flag."""
    arms = [(name, [changed_flag(f"--arm {shorten(name)}", text) for text in words]) for name, *words in texts]
    folders = [safe_name(name).lower() for name, _ in arms]
    for place, (name, _) in enumerate(arms):
        if not name.strip() or not name.isprintable():
            raise UsageError(f"--arm {name!a}: names no arm; write --arm NAME FLAG=VALUE ...")
        if folders[place] in folders[:place]:
            raise UsageError(f"--arm {shorten(name)}: its folder would be that of another arm; give it another name")
    return arms


def checked_gpus(text: str | None) -> list[int]:
    """Read --gpus. Raises UsageError where it is no list of indices."""
    if text is not None and not re.fullmatch("[0-9]{1,4}(,[0-9]{1,4})*,?", text):
        raise UsageError(f"--gpus {shown(text)}: give the indices of GPUs: --gpus 0,1")
    return [] if text is None else [int(part) for part in text.split(",") if part]


def checked_seeds(texts: Sequence[str], fixed: Collection[str]) -> list[int]:
    """Read --seeds. Raises UsageError where one is no seed or is given twice, or --set gives one as well."""
    for text in texts:
        if not re.fullmatch("[0-9]{1,10}", text) or int(text) not in SEED:
            raise UsageError(f"--seeds {shown(text)}: must be whole numbers, each {SEED}")
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
        print(f"error: {path_error(error)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
