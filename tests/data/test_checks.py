from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import args_of, plan_of

from kaizen.args import Args, UsageError
from kaizen.data.checks import check_labels
from kaizen.data.datasets import DATASETS
from kaizen.data.images import ImageSet, MemoryImages

pytestmark = pytest.mark.usefixtures("tiny")

DOMAIN = "--split_strategy domain"
NO_LABELS = "--no_labels --split_strategy data --classifier_training False --disable_knn_eval"


@pytest.mark.parametrize(
    ("dataset", "flags", "tasks"),
    [
        ("digits", "", 2),
        ("digits", "--classes_per_task 4 3 3", 3),
        ("digits", "--classes_per_task 4 3 3 --num_tasks 3", 3),
        ("domainnet", DOMAIN, 6),
        ("domainnet", f"{DOMAIN} --num_tasks 4", 4),
        ("domainnet", f"{DOMAIN} --domain clipart", 1),
        ("domainnet", f"{DOMAIN} --domain clipart --num_tasks 1", 1),
        ("domainnet", "--split_strategy data --domain clipart", 2),
        ("domainnet", "--domain clipart --num_tasks 5", 5),
        ("custom", NO_LABELS, 2),
    ],
)
def test_the_number_of_tasks(dataset: str, flags: str, tasks: int) -> None:
    assert args_of(*flags.split(), dataset=dataset).num_tasks == tasks


@pytest.mark.parametrize(
    ("dataset", "flags", "message"),
    [
        ("digits", DOMAIN, "--split_strategy domain: digits has no domains; use class or data"),
        ("digits", "--domain real", "--domain real: digits has no domains; leave it out"),
        (
            "domainnet",
            f"{DOMAIN} --domain reel",
            "--domain reel: choose from real, quickdraw, painting, sketch, infograph, clipart (did you mean real?)",
        ),
        (
            "domainnet",
            f"{DOMAIN} --num_tasks 7",
            "--num_tasks 7: a task is a domain, and there are only "
            "real, quickdraw, painting, sketch, infograph, clipart; use at most 6",
        ),
        (
            "domainnet",
            f"{DOMAIN} --num_tasks 2 --domain real",
            "--num_tasks 2: a task is a domain, and there is only real; use at most 1",
        ),
        (
            "domainnet",
            "--num_tasks 2",
            "--num_tasks 2: does not divide the 345 classes of domainnet; use one of 1, 3, 5",
        ),
        (
            "digits",
            "--num_tasks 3",
            "--num_tasks 3: does not divide the 10 classes of digits; use one of 1, 2, 5, 10, "
            "or give --classes_per_task 4 3 3",
        ),
        (
            "cifar100",
            "--num_tasks 30",
            "use one of 1, 2, 4, 5, 10, 20, 25, 50, 100, or give --classes_per_task 4 4 ...",
        ),
        (
            "digits",
            "--num_tasks 20",
            "--num_tasks 20: does not divide the 10 classes of digits; use one of 1, 2, 5, 10",
        ),
        (
            "digits",
            "--classes_per_task 4 3",
            "--classes_per_task 4 3: sum to 7, not to the 10 classes of digits; give sizes that do",
        ),
        ("digits", "--classes_per_task 10 0", "--classes_per_task 0: must be at least 1"),
        (
            "digits",
            "--classes_per_task 4 6 --num_tasks 3",
            "--num_tasks 3: --classes_per_task 4 6 makes 2 tasks; leave one of the two out",
        ),
        (
            "digits",
            "--classes_per_task 4 6 --split_strategy data",
            "--classes_per_task 4 6: only a class split has it, not --split_strategy data; leave one of the two out",
        ),
        ("digits", "--class_order 0 1 --split_strategy data", "--class_order 0 1: only a class split has it"),
        ("digits", "--class_order 0 1 2 3 4 5 6 7 8 8", "--class_order 8: is given twice"),
        ("digits", "--class_order 0 1 2", "--class_order: lacks 7 of the 10 classes, the first one 3"),
        ("cifar10", "--class_order cat dog", "--class_order: names 2 of the 10 classes; give each class once"),
        ("digits", "--semi_supervised 0", "--semi_supervised 0.0: must be above 0 and at most 1"),
        ("digits", "--semi_supervised 1.5", "--semi_supervised 1.5: must be above 0 and at most 1"),
    ],
)
def test_data_flags_that_do_not_go_together(dataset: str, flags: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        args_of(*flags.split(), dataset=dataset)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        ("--split_strategy class", "use --split_strategy data"),
        ("--classifier_training True", "use --classifier_training False"),
        ("--online_evaluation", "use --online_evaluation False"),
        ("--disable_knn_eval False", "use --disable_knn_eval"),
        ("--supervised", "use --supervised False"),
        ("--semi_supervised 0.5", "leave it out"),
        ("--held_back 0.5", "leave it out"),
        ("--dataset digits", "leave it out, or use --dataset custom"),
    ],
)
def test_what_needs_labels(change: str, cure: str) -> None:
    with pytest.raises(UsageError) as caught:
        args_of(*NO_LABELS.split(), *change.split(), dataset="custom")
    message = str(caught.value)
    assert message.startswith("--no_labels: ") and message.endswith(cure) and "\n" not in message


@pytest.mark.parametrize(("labels", "named"), [([0, 1, 2], 2), ([1, 2, 1], 2), ([-2, 0, 1], -2)])
def test_labels_are_those_of_classes(labels: list[int], named: int) -> None:
    images = MemoryImages(torch.zeros(3, 3, 4, 4, dtype=torch.uint8), torch.tensor(labels), ["a", "b"])
    with pytest.raises(UsageError, match=f"--dataset digits: a test image has the label {named}, and there are 2 cla"):
        check_labels(args_of(), images, "test", 2)


def test_a_data_set_numbered_from_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    info = DATASETS["digits"]

    def from_one(args: Args) -> tuple[ImageSet, ImageSet]:
        train, test = info.open(args)
        return MemoryImages(train.images, train.targets + 1, train.class_names), test

    monkeypatch.setitem(DATASETS, "digits", replace(info, open=from_one))
    with pytest.raises(UsageError, match="a training image has the label 10, and there are 10 classes; number them"):
        plan_of()
