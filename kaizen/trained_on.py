"""What a checkpoint says of the data behind it, so that it can be used without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kaizen.plan import Data


@dataclass(frozen=True)
class TrainedOn:
    """The classes of a model.

    Attributes:
        classes: names, in the order of the labels.
        classes_by_task: for each task up to the model's own, the labels of the classes in it.
        cropped: were test images cropped one by one as they were read from large files (`CentreCrop`), or came they
            whole, as images in memory do.
    """

    classes: list[str]
    classes_by_task: list[list[int]]
    cropped: bool

    @classmethod
    def of(cls, data: Data, task_idx: int) -> TrainedOn:
        """At the end of a task."""
        judged = data.test if len(data.test) else data.train
        learnt = [[*classes] for classes in data.split.classes[: task_idx + 1]]
        return cls([*data.train.class_names], learnt, not judged.in_memory)

    @property
    def seen(self) -> list[int]:
        """The labels of all classes up to the model's task, sorted."""
        return sorted({label for classes in self.classes_by_task for label in classes})


def is_trained_on(content: Any, task_idx: int) -> bool:
    """Could this, from a file, be a `TrainedOn` of the task; older files have none."""
    if content is None:
        return True
    if not isinstance(content, dict) or content.keys() != {"classes", "classes_by_task", "cropped"}:
        return False
    names, tasks = content["classes"], content["classes_by_task"]
    return (
        isinstance(names, list)
        and all(map(_is_text, names))
        and isinstance(tasks, list)
        and len(tasks) == task_idx + 1 > 0
        and all(_are_labels(labels, len(names)) for labels in tasks)
        and type(content["cropped"]) is bool
    )


def _is_text(name: Any) -> bool:
    try:
        return isinstance(name, str) and bool(name.encode("utf-8"))
    except UnicodeEncodeError:  # half a character
        return False


def _are_labels(labels: Any, count: int) -> bool:
    """Different ones, and some where there are classes at all."""
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < count for label in labels):
        return False
    return len({*labels}) == len(labels) and bool(labels) == bool(count)
