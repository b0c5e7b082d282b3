"""An experiment's folder as a run leaves it, with made-up figures; and a reader of pages."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from kaizen.files import write_json

HOSTILE = "<script>alert(1)</script>"


def make_experiment(
    folder: Path,
    num_tasks: int = 3,
    done: int = 3,
    heads: Sequence[str] = ("classifier", "online", "knn"),
    classes: Sequence[str] | None = None,
    notices: Sequence[str] = (),
    steps: int = 20,
) -> Path:
    """Write all files of an experiment of two classes a task."""
    folder.mkdir(exist_ok=True, parents=True)
    names = [*classes] if classes is not None else [f"thing {label}" for label in range(2 * num_tasks)]
    about = {
        "name": folder.name,
        "flags": {"dataset": "digits", "method": "byol", "num_tasks": num_tasks, "replay": True, "lr": 0.7, "seed": 5},
        "tasks": [[2 * task, 2 * task + 1] for task in range(num_tasks)],
        "task_names": [f"{names[2 * task]}, {names[2 * task + 1]}" for task in range(num_tasks)],
        "seeds": {"seed": 5, "split_seed": 6},
        "versions": {"torch": "2.6"},
        "skipped_images": [],
        "classes": names,
        "notices": [*notices],
    }
    write_json(folder / "experiment.json", about)
    for task in range(done):
        place = folder / f"task{task}"
        place.mkdir()
        row = [max(0.0, 0.6 + 0.01 * j - 0.02 * (task - j)) if j <= task else 0.125 for j in range(num_tasks)]
        baseline = {head: [0.1] * num_tasks for head in heads} if task == 0 else None
        write_json(place / "accuracy.json", {"heads": dict.fromkeys(heads, row), "baseline": baseline, "seconds": 61.0})
        (place / "final.ckpt").touch()
        write_state(place, "done", 0)
        lines = [f"{step},{2 / step},{step / steps},{0.3},{0.9}" for step in range(1, steps + 1)]
        header = "step,train/ssl,train/classifier_acc1,lr/encoder,train/tau"
        (place / "metrics.csv").write_text("\n".join([header, *lines]) + "\n")
        write_views(place, names[2 * task])
    return folder


def write_state(place: Path, state: str, exit_status: int | None, signal: str | None = None) -> None:
    """state.json of one task."""
    place.mkdir(exist_ok=True)
    content = {"state": state, "max_epochs": 4, "exit_status": exit_status, "signal": signal, "starts": 2}
    content |= {"start": "2026-01-02T03:04:05.000+00:00", "end": "2026-01-02T03:05:06.000+00:00", "seconds": 61.0}
    write_json(place / "state.json", {**content, "versions": {}})


def write_views(place: Path, name: str | None, cell: int = 8) -> None:
    """views.png and views.json of one task: an image of the task, one that is replayed, two views of each."""
    columns, gap = ["original", "view 1", "view 2"], 4
    size = (len(columns) * (cell + gap) + gap, 2 * (cell + gap) + gap)
    Image.effect_noise(size, 60).convert("RGB").save(place / "views.png")
    rows = [{"from": "task", "class": name}, {"from": "replay", "class": None}]
    write_json(place / "views.json", {"cell": cell, "gap": gap, "columns": columns, "rows": rows})


class Reader(HTMLParser):
    """What is in a page; an end tag that does not fit its start tag is an error."""

    VOID = ("meta", "img", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All text."""
        return " ".join(self.texts)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]
