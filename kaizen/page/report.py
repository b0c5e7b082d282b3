"""`report.html`: everything about one experiment, in the order in which a newcomer asks."""

from __future__ import annotations

from pathlib import Path

from kaizen.files import atomic_write_text
from kaizen.page.curves import curves
from kaizen.page.facts import Facts, read_facts
from kaizen.page.html import Section, page, paragraph
from kaizen.page.pictures import sample_views
from kaizen.page.scores import scores
from kaizen.page.setting import as_of, badge, classes, flags, notes, summary, tasks, versions

NAME = "report.html"


def write_report(folder: Path) -> Path:
    """Write the page of an experiment, whole or not at all; a run in progress is welcome.

    Raises:
        UsageError: it is not the folder of an experiment.
    """
    path = folder / NAME
    atomic_write_text(path, report_of(read_facts(folder.resolve())))
    return path


def report_of(facts: Facts) -> str:
    """The page of an experiment."""
    header = [paragraph(summary(facts), kind="lead"), badge(facts)]
    figures = scores(facts.results) if facts.results is not None else []
    first, rest = figures[:1], figures[1:]
    sections = [*first, notes(facts), *rest, _views(facts), curves(facts.logged)]
    sections += [tasks(facts), classes(facts), flags(facts), versions(facts)]
    title = str(facts.about.get("name") or facts.folder.name)
    footer = f"Made by Kaizen from {facts.folder.name}{as_of(facts)}; python -m kaizen.page writes it anew."
    whole = [section for section in sections if section is not None]
    return page("Kaizen: report of an experiment", title, header, whole, footer)


def _views(facts: Facts) -> Section | None:
    tables = sample_views(facts.folder, facts.about["task_names"])
    if not tables:
        return None
    lead = (
        "Images of the first training step of each task, and the random views that were made of them: the network "
        "learns that views of one image belong together. Below the dashed line, replayed images of earlier tasks."
    )
    return Section("What the network saw", lead, tables, "Views")
