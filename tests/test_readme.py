"""README.md is short, and its figures stand beside the commands that measured them."""

from __future__ import annotations

import re

import pytest
import yaml
from pages import PAGES, ROOT, read, spans, tables

README = read("README.md")
FIGURE = re.compile(r"\**\.\d{3}\b")


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_figures_stand_beside_the_command_that_measured_them() -> None:
    measured = [table for table in tables(README) if any(FIGURE.match(cell) for row in table for cell in row)]
    assert len(measured) >= 2
    for head, *rows in measured:
        if head[:2] == ["method", "arm"]:  # of the study: these commands make the whole table
            assert {"DATA_DIR=/data/cifar10 make study", "python docs/study_results.py"} <= set(spans(README))
            continue
        assert head[-1] == "command"
        for row in rows:
            assert re.search(r"`[^`]*(python|--)[^`]*`", row[-1]), row


@pytest.mark.parametrize("name", PAGES)
def test_the_files_that_it_names_are_there(name: str) -> None:
    for span in spans(read(name)):
        for path in re.findall(r"(?<![\w/.<>-])((?:kaizen|tests|imgs|bash_files|docs|benchmarks)/[\w./-]*)", span):
            placeholder = re.search(r"NAME|X\.sh|align_uniform", path)
            assert placeholder or (ROOT / path).exists(), f"{name}: {path}"
        for script in re.findall(r"^(\w[\w.]*\.sh)$", span):
            assert script == "X.sh" or (ROOT / script).exists() or (ROOT / "bash_files" / script).exists(), script


@pytest.mark.parametrize("name", ["README.md", "docs/recipes.md"])
def test_every_recipe_is_named(name: str) -> None:
    assert {path.name for path in (ROOT / "bash_files").glob("*.sh")} <= set(spans(read(name)))


def test_the_citation_file_says_what_the_readme_says() -> None:
    cited = yaml.safe_load(read("CITATION.cff"))
    assert cited["cff-version"] == "1.2.0" and {"title", "message", "authors"} <= cited.keys()
    assert f'version = "{cited["version"]}"' in read("pyproject.toml")
    assert f"## [{cited['version']}]" in read("CHANGELOG.md")
    entries = README.split("@inproceedings")[1:]
    papers = [cited["preferred-citation"], *cited["references"]]
    assert len(entries) == len(papers)
    for entry, paper in zip(entries, papers, strict=True):
        assert {"type", "title", "authors", "year"} <= paper.keys()
        assert f"{{{paper['title']}}}" in entry and f"{{{paper['year']}}}" in entry
        names = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
        assert f"{{{names}}}" in entry
