from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import args_of, class_folders, domain_lists, domain_plan, learner_of, plan_of

from kaizen.args import UsageError
from kaizen.building import training_loaders
from kaizen.cli import image_size
from kaizen.plan import (
    active_terms,
    channel_statistics,
    num_replayed,
    open_data,
    probe_batch_size,
    probe_indices,
    replayed,
)

pytestmark = pytest.mark.usefixtures("tiny")

DISTILL = ("--distiller", "contrastive", "--distiller_classifier", "soft_label")


NOTHING = torch.empty(0, dtype=torch.int64)


def test_tasks_of_the_digits() -> None:
    _, data = plan_of("--num_tasks", "5")
    assert [len(classes) for classes in data.split.classes] == [2] * 5
    assert sum(len(part) for part in data.split.train) == len(data.train)
    assert data.task_names == [", ".join(map(str, classes)) for classes in data.split.classes]
    _, data = plan_of("--split_strategy", "data", "--num_tasks", "3")
    assert data.task_names == ["part 0", "part 1", "part 2"]


@pytest.mark.parametrize("tasks", ["2000", "500000000"])
def test_more_tasks_than_images_are_refused_before_they_are_made(tasks: str) -> None:
    with pytest.raises(UsageError, match=f"--num_tasks {tasks}: there are [0-9]+ training images; use fewer tasks"):
        plan_of("--split_strategy", "data", "--num_tasks", tasks)


def test_one_task_holds_everything() -> None:
    args, data = plan_of("--num_tasks", "1", "--replay")
    assert sorted(data.split.classes[0]) == list(range(10))
    assert num_replayed(args, data, 0) == 0


def test_size_and_statistics_come_from_the_data_set_unless_given() -> None:
    args = args_of()
    args.size = None
    assert image_size(args) == 16
    assert image_size(args_of("--size", "12")) == 12
    assert channel_statistics(args)[0] == (0.3053,) * 3
    given = args_of("--mean", "0", "0.5", "1", "--std", "0.1", "0.2", "0.3")
    assert channel_statistics(given) == ((0, 0.5, 1), (0.1, 0.2, 0.3))


def test_replay_keeps_1_percent_unless_told_otherwise() -> None:
    counts = {}
    for flags in ((), ("--replay_proportion", "0.1"), ("--memory_size", "50"), ("--replay_proportion", "1")):
        args, data = plan_of("--replay", *flags)
        counts[flags] = num_replayed(args, data, 1)
    first = data.split.train[0]
    assert counts[()] == 5  # of each class 1 % of 140 to 146
    assert counts["--memory_size", "50"] == 50
    assert counts["--replay_proportion", "1"] == len(first)
    assert 5 * 14 <= counts["--replay_proportion", "0.1"] <= len(first) // 10
    args, data = plan_of("--replay_proportion", "1")
    assert num_replayed(args, data, 1) == 0  # --replay was not given


@pytest.mark.parametrize(
    ("source", "parts"), [("all_tasks", [0, 1, 2, 3, 4]), ("seen_tasks", [0, 1, 2]), ("current_task", [2])]
)
def test_the_labels_that_probes_learn_from(source: str, parts: list[int]) -> None:
    args, data = plan_of("--num_tasks", "5", "--online_evaluation_training_data_source", source)
    expected = torch.cat([data.split.train[i] for i in parts])
    assert torch.equal(probe_indices(args, data, 2), expected)


def test_probe_batches() -> None:
    published = args_of("--online_eval_batchnorm", "update")
    assert probe_batch_size(published, 1000, 10) == 100
    assert probe_batch_size(published, 1001, 10) == 101
    clean = args_of("--online_eval_batchnorm", "frozen", "--batch_size", "64")
    assert probe_batch_size(published, 5, 10) == 2  # of one image BatchNorm has no variance
    assert probe_batch_size(clean, 1000, 10) == 64
    assert probe_batch_size(clean, 20, 10) == 20
    assert probe_batch_size(args_of("--online_eval_batch_size", "7"), 1000, 10) == 7


@pytest.mark.parametrize("flags", [("frozen",), ("update",), ("update", "--online_eval_batch_size", "2")])
def test_probes_never_make_an_epoch_longer(flags: tuple[str, ...]) -> None:
    args, data = plan_of("--online_evaluation", "--num_tasks", "5", "--online_eval_batchnorm", *flags)
    loaders = training_loaders(args, data, 4, NOTHING)
    assert len(loaders["online"]) <= len(loaders["task"]) == len(data.split.train[4]) // 64
    if flags != ("update",):
        assert len(loaders["online"]) == len(loaders["task"])


def test_loaders_of_a_task() -> None:
    args, data = plan_of("--replay", "--replay_proportion", "0.1", "--replay_batch_size", "16", "--num_tasks", "5")
    assert set(training_loaders(args, data, 0, NOTHING)) == {"task"}
    replay = data.split.train[0][::10]
    loaders = training_loaders(args, data, 2, replay)
    assert set(loaders) == {"task", "replay"}
    for name, allowed in (("task", data.split.train[2]), ("replay", replay)):
        batch = next(iter(loaders[name]))
        assert len(batch[0]) == (64 if name == "task" else 16)
        assert torch.isin(batch[2], allowed).all()


def test_the_terms_of_each_task() -> None:
    args = args_of(*DISTILL, "--online_evaluation", "--momentum_classifier", "--classifier_distill_lamb", "0")
    assert active_terms(args, 0) == ["ssl", "classifier", "online"]
    assert active_terms(args, 1) == ["ssl", "classifier", "distill_features", "online"]
    args = args_of(*DISTILL, "--online_evaluation", "--momentum_classifier", method="byol")
    expected = ["ssl", "classifier", "distill_features", "distill_classifier", "online", "momentum_online"]
    assert active_terms(args, 1) == expected
    assert active_terms(args_of("--classifier_training", "False"), 1) == ["ssl"]


def test_a_class_without_test_images_is_told(tmp_path: Path) -> None:
    data = class_folders(tmp_path, [8] * 2)
    for path in (data / "val" / "class1").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match=r"--val_dir .*class folder class1 holds no images"):
        open_data(args_of("--data_dir", str(data), dataset="custom"))


# Splits.


def test_a_class_split_by_hand() -> None:
    _, data = plan_of("--classes_per_task", "5", "2", "3", "--class_order", *"9876543210")
    assert data.split.classes == [[9, 8, 7, 6, 5], [4, 3], [2, 1, 0]]
    assert data.task_names[1] == "4, 3"
    assert set(data.train.targets[data.split.train[1]].tolist()) == {4, 3}
    assert set(data.test.targets[data.split.test[1]].tolist()) == {4, 3}


def test_a_class_order_by_name(tmp_path: Path) -> None:
    flags = ["--data_dir", str(class_folders(tmp_path)), "--class_order", "class3", "class0", "class1"]
    args = args_of(*flags, "class2", dataset="custom")
    assert open_data(args).split.classes == [[3, 0], [1, 2]]
    with pytest.raises(UsageError, match=r"--class_order clas2: no such class \(did you mean class2\?\)"):
        open_data(args_of(*flags, "clas2", dataset="custom"))


def test_a_task_for_each_domain(tmp_path: Path) -> None:
    domain_lists(tmp_path, ["clipart", "real", "quickdraw"], counts=[4, 0, 6])
    replay = ["--replay", "--replay_proportion", "0.5"]
    args, data = domain_plan(tmp_path, "--split_strategy", "domain", "--num_tasks", "2", *replay)
    assert data.task_names == ["real", "quickdraw"] and data.num_classes == 345
    assert data.split.classes == [list(range(345))] * 2
    assert [part.tolist() for part in data.split.train] == [list(range(10)), list(range(10, 20))]
    assert [part.tolist() for part in data.split.test] == [list(range(6)), list(range(6, 12))]
    assert sum(replayed(args, data, 1)[0]) == 5  # of each class of the first domain a half
    args, data = domain_plan(tmp_path, "--split_strategy", "domain", "--domain", "clipart")
    assert data.task_names == ["clipart"] and len(data.split) == 1


def test_a_class_split_of_one_domain(tmp_path: Path) -> None:
    domain_lists(tmp_path, ["clipart"], counts=[4, 0, 6])
    order = [str(c) for c in range(345)]
    with pytest.raises(UsageError, match=r"--batch_size 4: task 1 has only 2"):
        domain_lists(tmp_path / "few", ["clipart"], counts=[4, 2])
        domain_plan(tmp_path / "few", "--domain", "clipart", "--classes_per_task", "1", "344", "--class_order", *order)
    flags = ["--domain", "clipart", "--classes_per_task", "2", "343", "--class_order", *order]
    _, data = domain_plan(tmp_path, *flags)
    assert [len(part) for part in data.split.train] == [4, 6]
    assert data.task_names[0] == "thing0, 1"


def test_a_task_without_test_images(tmp_path: Path) -> None:
    file = domain_lists(tmp_path, ["clipart"]) / "clipart_test.txt"
    file.write_text("\n".join(file.read_text().splitlines()[:2]))  # the first class alone
    order = [str(c) for c in range(345)]
    with pytest.raises(UsageError, match=r"--data_dir .*: no test images for task 1 \(thing1, 2, .*; every task"):
        domain_plan(tmp_path, "--domain", "clipart", "--classes_per_task", "1", "344", "--class_order", *order)


# Labels.


def test_training_sees_a_part_of_the_labels_and_probes_all() -> None:
    flags = ["--semi_supervised", "0.1", "--online_evaluation", "--replay", "--replay_proportion", "1"]
    args, data = plan_of(*flags, "--replay_batch_size", "700")
    loaders = training_loaders(args, data, 1, data.split.train[0])
    seen = {}
    for name in ("task", "replay", "online"):
        targets, chosen = (torch.cat(parts) for parts in list(zip(*loaders[name], strict=True))[1:])
        seen[name] = dict(zip(chosen.tolist(), targets.tolist(), strict=True))
    assert all(label == data.train.targets[i] for i, label in seen["online"].items())
    for name in ("task", "replay"):
        assert all(label == data.visible_targets[i] for i, label in seen[name].items())
        assert 0.05 < sum(label >= 0 for label in seen[name].values()) / len(seen[name]) < 0.15
    assert bool((data.train.targets >= 0).all())
    for part, classes in zip(data.split.train, data.split.classes, strict=True):
        for c in classes:
            members = part[data.train.targets[part] == c]
            assert (data.visible_targets[members] == c).sum() == round(0.1 * len(members))


def test_the_same_labels_are_visible_in_every_run_with_a_seed() -> None:
    torch.manual_seed(1)
    first = plan_of("--semi_supervised", "0.1")[1].visible_targets
    torch.manual_seed(2)
    assert torch.equal(plan_of("--semi_supervised", "0.1", "--lr", "1")[1].visible_targets, first)
    assert not torch.equal(plan_of("--semi_supervised", "0.1", "--seed", "6")[1].visible_targets, first)


def test_hidden_labels_teach_the_classifier_nothing() -> None:
    args, data = plan_of("--semi_supervised", "0.2")
    learner = learner_of("--semi_supervised", "0.2")
    images, targets, indices = next(iter(training_loaders(args, data, 0, NOTHING)["task"]))
    assert (targets == -1).any() and (targets >= 0).any()
    learner.training_step({"task": (images, targets, indices)}, 0)
    assert learner.meter.flush()["classifier"] > 0
    learner.training_step({"task": (images, torch.full_like(targets, -1), indices)}, 0)
    assert learner.meter.flush()["classifier"] == 0
