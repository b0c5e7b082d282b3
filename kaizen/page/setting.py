"""What was run: the setting in a few words, the tasks, what to know of, the classes, all flags, versions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kaizen.args import UsageError, core_flags, shorten
from kaizen.page.facts import Facts
from kaizen.page.html import Content, Html, Section, joined, pairs, table, tag
from kaizen.states import DONE, FAILED, INTERRUPTED, RUNNING
from kaizen.status import DAMAGED, TaskStatus, duration

NONE = "\u2013"
MOST_LISTED = 20  # skipped images; experiment.json names the others
SPLITS = {
    "class": ", each with classes of its own",
    "domain": ", each a domain of its own",
    "data": ", each with other images of all classes",
}
MEANS = {
    "distiller": "feature distillation",
    "distiller_classifier": "classifier distillation",
    "replay": "replay of some earlier images",
}
WEIGHTS = {"distiller": "feature_extractor_distill_lamb", "distiller_classifier": "classifier_distill_lamb"}
TITLES = {FAILED: "ended by an error", INTERRUPTED: "interrupted"}


def summary(facts: Facts) -> str:
    """What was run, in a sentence or two."""
    flags, count = facts.flags, len(facts.tasks)
    many = f"{count} tasks, one after the other{SPLITS.get(str(flags.get('split_strategy')), '')}"
    method, dataset = flags.get("method", "self-supervision"), flags.get("dataset", "its data")
    text = f"A network learned {dataset} with {method} in {'one task' if count == 1 else many}."
    if count == 1 or "replay" not in flags:
        return text
    off = {name for name, weight in WEIGHTS.items() if flags.get("no_distill") or flags.get(weight) == 0}
    means = [words for name, words in MEANS.items() if flags.get(name) and name not in off]
    return f"{text} Against forgetting: {', '.join(means) or 'nothing'}."


def badge(facts: Facts) -> Html:
    """The state of the experiment in a few words."""
    words, kind = state_words(facts)
    return tag("p", tag("span", words, class_=f"badge {kind}"))


def state_words(facts: Facts) -> tuple[str, str]:
    """The state, and whether it is good, bad or to be waited for."""
    count, done = len(facts.tasks), sum(bool(task.accuracy) or task.name == DONE for task in facts.tasks)
    for task in facts.tasks:
        if task.name == FAILED:
            return f"failed in task {task.task}{_reason(task)}, {done} of {count} tasks done", "bad"
        if task.name == DAMAGED or task.accuracy is None:
            return f"the files of task {task.task} are damaged", "bad"
    if done == count:
        return f"done, all {count} tasks" if count > 1 else "done", "good"
    running = facts.used or any(task.name == RUNNING for task in facts.tasks)
    stopped = any(task.name == INTERRUPTED for task in facts.tasks)
    verb = "running" if running else "interrupted" if stopped else "not finished"
    return f"{verb}, {done} of {count} tasks done", "wait"


def tasks(facts: Facts) -> Section:
    """What each task is, and how it went."""
    seconds = facts.results["seconds_per_task"] if facts.results else []
    rows = []
    for status, name in zip(facts.tasks, facts.about["task_names"], strict=True):
        trained = duration(seconds[status.task]) if status.task < len(seconds) else NONE
        cells = _state_cells(status)
        rows.append([f"task {status.task}", shorten(name), status.name, trained, *cells])
    columns = ["", "what it is", "state", "training", "last start", "end", "starts", "epochs"]
    total = f"Training took {duration(sum(seconds))} in all (hours:minutes:seconds). " if seconds else ""
    lead = f"{total}Each task starts from the model that the one before it left."
    return Section("Tasks", lead, [table("How far each task is", columns, rows, "tasks", wide=True)], "Tasks")


def _state_cells(status: TaskStatus) -> list[Content]:
    state = status.state
    if state is None:
        return [NONE] * 4
    end = None if status.name == RUNNING else state.end
    return [_moment(state.start), _moment(end), state.starts or NONE, state.max_epochs]


def notes(facts: Facts) -> Section | None:
    """What a reader should know of before the figures are trusted; None if there is nothing."""
    items: list[Content] = [f"There are no results: {facts.problem}"] if facts.problem else []
    for status in facts.tasks:
        if status.name in TITLES:
            cure = f"the same command with --experiment_dir {facts.folder.name} goes on from it"
            items.append(f"Task {status.task} was {TITLES[status.name]}{_reason(status)}; {cure}.")
    skipped = max((value for _, value in facts.logged.series.get("train/skipped_steps", [])), default=0)
    if skipped:
        items.append(f"fp16 overflowed: up to {skipped:.0f} steps of a task were skipped; a few are normal.")
    if unread := facts.about.get("skipped_images"):
        more = " and more" if len(unread) > MOST_LISTED else ""
        names = tag("code", ", ".join(unread[:MOST_LISTED]))
        items.append(joined([f"Without {len(unread)} images that cannot be read: ", names, more]))
    items += facts.notices
    if not items:
        return None
    lead = "Warnings, and what was said when the run was started and on its way."
    return Section("To know", lead, [tag("ul", *(tag("li", item) for item in items), class_="notes")], "To know")


def _reason(status: TaskStatus) -> str:
    state = status.state
    if state is None or state.exit_status is None:
        return ""
    return f" ({state.signal or f'exit status {state.exit_status}'})"


def classes(facts: Facts) -> Section:
    """Which classes are in which task."""
    rows = []
    for task, (labels, name) in enumerate(zip(facts.about["tasks"], facts.about["task_names"], strict=True)):
        names = ", ".join(map(facts.class_name, labels)) if facts.classes else name
        rows.append([f"task {task}", names, ", ".join(map(str, labels))])
    lead = "The classes of each task in the order in which they were learned, and their numbers in the data set."
    body = table("Classes of each task", ["", "classes", "numbers"], rows, "words")
    return Section("Class order", lead, [body], "Classes")


def flags(facts: Facts) -> Section:
    """All flags: first those that differ from their defaults."""
    known = defaults(facts.flags)
    changed = {n: v for n, v in facts.flags.items() if n not in known or known[n] != v}
    others = {n: v for n, v in facts.flags.items() if n not in changed}
    body: list[Html] = []
    for title, part, below in (("Set for this run", changed, known), ("As by default", others, {})):
        rows = [(tag("code", f"--{name}"), _with_default(name, value, below)) for name, value in part.items()]
        body += [tag("h3", title, class_="subhead"), pairs(rows)] if rows else []
    lead = "Everything that says what was done; python main_continual.py --help explains each flag."
    return Section("Flags", lead, body, "Flags")


def versions(facts: Facts) -> Section:
    """What makes the run repeatable."""
    seeds = [(name.replace("_", " "), _value(value)) for name, value in facts.about["seeds"].items()]
    libraries = [(name, _value(value)) for name, value in facts.about["versions"].items()]
    lead = "The same flags, seeds and versions on the same kind of machine give the same figures."
    return Section("Seeds and versions", lead, [pairs([*seeds, *libraries])], "Versions")


def defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of all flags, those of the method and the distillers among them where these are known."""
    from kaizen.cli import args_from, own_flags

    known = {item.name: item.default for item in core_flags()}
    try:
        return known | {item.name: item.default for item in own_flags(args_from(dict(given)))}
    except (UsageError, TypeError):  # of a folder that another version has made
        return known


def as_of(facts: Facts) -> str:
    """When the state was last written down: no other time, so that the page of the same folder is the same."""
    states = [task.state for task in facts.tasks if task.state is not None]
    moments = [datetime.fromisoformat(m) for state in states for m in (state.start, state.end) if m is not None]
    return f", as of {max(moments, key=str):%Y-%m-%d %H:%M}" if moments else ""


def _with_default(name: str, value: object, known: Mapping[str, Any]) -> Html:
    default = tag("small", f"default {_value(known[name])}") if known.get(name, "") != "" else None
    return joined([_value(value), default])


def _value(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "not set" if value is None else str(value)


def _moment(moment: str | None) -> str:
    return NONE if moment is None else f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M}"
