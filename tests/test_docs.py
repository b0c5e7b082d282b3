"""What the pages say holds: examples run, links lead somewhere, flags exist, tables are those of the code."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from pages import (
    PAGES,
    ROOT,
    added_arguments,
    anchors,
    blocks,
    command_lines,
    constructor_flags,
    flags_in,
    links,
    prose,
    read,
    section,
    spans,
    tables,
)

from docs.flags import default, flags_page
from docs.study_results import FIGURES, PLACES, accuracy_over_epochs, picture_of, with_table
from kaizen.args import Flag, core_flags, flags_of_fields
from kaizen.cli import everything_known
from kaizen.distillers import FEATURE_DISTILLERS, distiller_flags
from kaizen.methods import METHODS, method_flags
from kaizen.protocols import EvaluationFlags

METHODS_PAGE = read("docs/methods.md")
ADDING = read("docs/adding.md")


def names_of(items: list[Flag]) -> set[str]:
    return {name for item in items for name in (item.name, *item.aliases)}


TRAINING = names_of([*core_flags(), *(item for _, item in everything_known())]) | {"help"}


def known_flags(program: str) -> set[str]:
    """The flags of main_continual.py, job_launcher.py or `-m kaizen.NAME`."""
    if program == "main_continual.py":
        return TRAINING
    if program == "job_launcher.py":
        return added_arguments(*ROOT.glob("*.py"), ROOT / "kaizen" / "slurm.py")
    if program == "-m kaizen.evaluate":
        return names_of([*core_flags(), *flags_of_fields(EvaluationFlags)])
    module = ROOT / "kaizen" / program.rpartition(".")[2]
    return added_arguments(*(module.glob("*.py") if module.is_dir() else [module.with_suffix(".py")]))


@cache
def every_flag() -> set[str]:
    """Of all programs, those that measure and test among them."""
    sources = [path for folder in ("kaizen", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py")]
    return TRAINING | names_of(flags_of_fields(EvaluationFlags)) | added_arguments(*ROOT.glob("*.py"), *sources)


# Worked examples.


def install(block: str, project: Path) -> str:
    """Put a block where its first line says; returns the file's name."""
    place = block.partition("\n")[0]
    (name,) = re.findall(r"kaizen/[\w/]+\.py", place)
    path = project / name
    if place.startswith("# at the end of"):
        path.write_text(path.read_text(encoding="utf-8") + "\n\n" + block, encoding="utf-8")
    else:
        assert not path.exists()
        path.write_text(block, encoding="utf-8")
    return name


def write_arrays(path: Path) -> None:
    """Bright and dark images of four classes."""
    noise = np.random.default_rng(0)
    content = {}
    for part, count in (("train", 20), ("test", 4)):
        labels = np.repeat(np.arange(4), count)
        levels = noise.integers(0, 60, (len(labels), 16, 16, 3)) + 60 * labels[:, None, None, None]
        content |= {f"{part}_images": levels.astype(np.uint8), f"{part}_labels": labels}
    np.savez(path, **content)


@pytest.mark.slow
def test_the_worked_examples(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for name in ("kaizen", "main_continual.py"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, project)
    files = [install(block, project) for block in blocks(ADDING, "python")]
    assert len(files) == 5 and sum(name.startswith("kaizen/methods/") for name in files) == 2

    write_arrays(project / "x.npz")
    (command,) = blocks(ADDING, "bash")
    python, *words = shlex.split(command.replace("\\\n", " "))
    assert python == "python"
    run = subprocess.run(
        [sys.executable, *words, "--experiment_dir", "run"], cwd=project, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    results = json.loads((project / "experiments" / "run" / "results.json").read_text())
    assert results["flags"]["uniform_weight"] == 0.5 and results["flags"]["feature_extractor_distill_lamb"] == 2
    matrix = results["heads"]["classifier"]["accuracy_matrix"]
    assert results["heads"]["classifier"]["learning_accuracy"] == pytest.approx((matrix[0][0] + matrix[1][1]) / 2)
    logged = (project / "experiments" / "run" / "task1" / "metrics.csv").read_text().partition("\n")[0]
    assert "train/distill_features" in logged
    assert "learning" in run.stdout


# Links and pictures.


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for picture, words, target in links(read(name)):
        if "://" in target:
            assert target.startswith("https://"), target
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.is_file(), f"{name}: {target}"
        assert words, f"{name}: {target} has no words"
        if picture:
            assert path.stat().st_size > 0 and path.suffix == ".png"
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{name}: {target}"


def test_the_readme_leads_to_every_page() -> None:
    targets = {target.partition("#")[0] for _, _, target in links(read("README.md"))}
    assert {page for page in PAGES if page.startswith("docs/")} - {"docs/index.md"} <= targets


# Commands and flags.


@pytest.mark.parametrize("name", PAGES)
def test_commands_have_known_flags(name: str) -> None:
    text = read(name)
    added = {flag for block in blocks(text, "python") for flag in constructor_flags(block)}
    for program, words in command_lines(text):
        assert set(flags_in(words)) <= known_flags(program) | added, f"{name}: {program} {words}"


def test_commands_are_found() -> None:
    text = (
        "```bash\nA=1 python main_continual.py --x 1 \\\n  --y # --z\n```\nand `python job_launcher.py --q` `--not`\n"
    )
    assert command_lines(text) == [("main_continual.py", ["--x", "1", "--y"]), ("job_launcher.py", ["--q"])]
    assert sum(len(command_lines(read(name))) for name in PAGES) > 10


@pytest.mark.parametrize("name", PAGES)
def test_flags_that_are_named_exist(name: str) -> None:
    known = every_flag()
    for span in spans(read(name)):
        if span.startswith("--"):
            for flag in flags_in(span.split()):
                prefix = flag.rstrip(".").endswith("_") and any(one.startswith(flag.rstrip(".")) for one in known)
                assert prefix or flag in known | {"max_epoch", "flag"}, f"{name}: --{flag}"


def test_the_page_of_flags_is_what_the_code_says() -> None:
    assert read("docs/flags.md") == flags_page(), "python docs/flags.py writes it anew"


# The page on methods and distillers.

SECTIONS = {name: title for title, name in re.findall(r"^(### .* \((\w+)\))$", METHODS_PAGE, re.MULTILINE)}


def table_of(items: list[Flag], mark: str) -> list[list[str]]:
    return [["flag", "default", "meaning"], *([f"`{mark}{item.name}`", default(item), item.help] for item in items)]


def test_every_method_and_distiller_has_its_section() -> None:
    assert SECTIONS.keys() == METHODS.keys() | FEATURE_DISTILLERS.keys()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_its_equation_its_paper_and_its_flags(name: str) -> None:
    text = section(METHODS_PAGE, SECTIONS[name])
    assert blocks(text, "math") and all(block.startswith("L = ") for block in blocks(text, "math"))
    papers = re.findall(r"arXiv (\d{4}\.\d{5})", str(METHODS[name].__doc__))
    assert papers and all(f"arXiv {paper}" in text.replace("\n", " ") for paper in papers)
    assert tables(text) == [table_of(method_flags(name), "--")]


@pytest.mark.parametrize("name", FEATURE_DISTILLERS)
def test_a_distiller_has_its_equation_and_its_flags(name: str) -> None:
    text = section(METHODS_PAGE, SECTIONS[name])
    assert len(blocks(text, "math")) == 1
    assert tables(text) == [table_of(distiller_flags(FEATURE_DISTILLERS[name], ("",)), "")]


# The site.


class Loads(HTMLParser):
    """What a browser fetches to show a page, and what is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.equations = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.equations += tag == "math"
        if tag in ("script", "img", "iframe", "source", "video") and given.get("src"):
            self.fetched.append(str(given["src"]))
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next") and given.get("href"):
            self.fetched.append(str(given["href"]))


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    for module in ("mkdocs", "material", "mkdocstrings_handlers.python", "latex2mathml"):
        pytest.importorskip(module, reason="needs docs/requirements.txt")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    for name in PAGES[1:]:
        text = (tmp_path / Path(name).name).with_suffix(".html").read_text(encoding="utf-8")
        page = Loads()
        page.feed(text)
        assert page.fetched and not [source for source in page.fetched if re.match(r"(https?:)?//", source)]
        inline = re.sub(r"`[^`\n]*`", "", prose(read(name)))
        assert page.equations == len(blocks(read(name), "math")) + len(re.findall(r"\$[^$\n]+\$", inline))
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text(encoding="utf-8"))
    assert (tmp_path / "imgs" / "method.png").is_file()


@pytest.mark.parametrize(("page", "marker"), PLACES)
def test_the_tables_of_the_study_are_those_of_its_rows(page: str, marker: str) -> None:
    assert with_table(read(page), marker) == read(page), "run python docs/study_results.py"
    assert all(picture_of(draw).is_file() for draw in (*FIGURES, accuracy_over_epochs))
