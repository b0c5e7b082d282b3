from __future__ import annotations

from pathlib import Path

import pytest
from helpers import NO_LABELS, args_of, class_folders, domain_lists, domain_plan, plan_of

from kaizen.building import training_loaders
from kaizen.plan import num_replayed, open_data
from kaizen.plan_lines import data_notices, describe

pytestmark = pytest.mark.usefixtures("tiny")


def test_classes_that_are_too_small_to_be_replayed_are_told_of(tmp_path: Path) -> None:
    folder = class_folders(tmp_path, [20, 20, 20, 8])
    flags = ("--data_dir", str(folder), "--num_tasks", "2", "--class_order", "3", "0", "1", "2", "--replay")

    def told(*more: str) -> list[str]:
        args = args_of(*flags, *more, dataset="custom")
        return data_notices(args, open_data(args))

    assert told("--replay_proportion", "0.1") == [
        "--replay_proportion 0.1: 1 of 2 classes are too small for it to replay any of their images; give a larger "
        "one, or --replay_selection balanced"
    ]
    assert told("--replay_proportion", "0.2") == [] == told("--replay_memory_size", "4")
    assert told("--replay_proportion", "0.1", "--replay_selection", "balanced") == []


def test_small_images_that_are_enlarged_are_told_of(tmp_path: Path) -> None:
    def told(side: int, *more: str) -> list[str]:
        folder = class_folders(tmp_path / str(side), sizes=[(side, side)])
        args = args_of("--data_dir", str(folder), *more, dataset="custom")
        if not more:
            args.size = None
        return data_notices(args, open_data(args))

    assert told(32) == ["images such as the first one are enlarged from 32 to 224 pixels; --size 32 keeps their size"]
    assert told(120) == told(16, "--size", "64") == []


def test_the_plan_counts_images_and_steps() -> None:
    distill = ("--distiller", "contrastive", "--distiller_classifier", "soft_label")
    args, data = plan_of("--replay", "--replay_proportion", "0.1", "--max_epochs", "3", *distill)
    lines = describe(args, data, Path("here/run"))
    text = "\n".join(lines)
    sizes = [len(part) for part in data.split.train]
    assert "simclr, encoder tiny, images of 8 pixels" in lines[0]
    assert "digits, class split, 2 tasks, seed 5" in lines[1]
    assert "0.075 (0.3 x 64 / 256)" in lines[2]
    assert "here/run/" in lines[3]
    assert f"{sizes[0]} to train, {len(data.split.test[0])} to test, 0 replayed" in text
    assert f"{num_replayed(args, data, 1)} replayed" in text
    assert f"3 epochs x {sizes[0] // 64} = {3 * (sizes[0] // 64)}" in text
    assert text.count("distill_features, distill_classifier") == 1  # not in the first task


def test_the_plan_counts_the_steps_of_the_longest_loader() -> None:
    args, data = plan_of("--replay", "--replay_proportion", "1", "--replay_batch_size", "4")
    loaders = training_loaders(args, data, 1, data.split.train[0])
    steps = max(map(len, loaders.values()))
    assert steps == len(loaders["replay"]) > len(loaders["task"])
    assert f"1 epochs x {steps} = {steps}" in "\n".join(describe(args, data, None))


def test_a_plan_without_data_names_the_classes_by_number() -> None:
    args = args_of("--num_tasks", "50", dataset="cifar100")
    text = "\n".join(describe(args, None, None))
    assert text.count("  classes ") == 50 and "to train" not in text
    assert "<time>-kaizen/" in text
    custom = args_of("--num_tasks", "2", dataset="custom")
    assert "classes" not in "\n".join(describe(custom, None, None))


def test_long_names_are_cut(tmp_path: Path) -> None:
    data = class_folders(tmp_path, [4] * 20)
    args = args_of("--data_dir", str(data), "--num_tasks", "1", dataset="custom")
    assert max(map(len, describe(args, open_data(args), Path("x")))) <= 110


def test_the_plan_of_a_domain_split(tmp_path: Path) -> None:
    flags = ["--split_strategy", "domain", "--num_tasks", "2"]
    without = describe(args_of(*flags, dataset="domainnet"), None, None)
    assert [line.split()[-1] for line in without if line.startswith("  domain ")] == ["real", "quickdraw"]
    domain_lists(tmp_path, ["real", "quickdraw"])
    args, data = domain_plan(tmp_path, *flags)
    lines = describe(args, data, None)
    assert [line.split()[-1] for line in lines if line.startswith("  domain ")] == ["real", "quickdraw"]
    assert "16 to train, 4 to test" in "\n".join(lines)


@pytest.mark.parametrize(("order", "shown"), [("9876543210", ["9, 8, 7, 6", "5, 4, 3, 2, 1, 0"]), ("abcdefghij", None)])
def test_the_plan_without_data_follows_the_order_given(order: str, shown: list[str] | None) -> None:
    args = args_of("--classes_per_task", "4", "6", "--class_order", *order, dataset="cifar10")
    lines = [line.split(maxsplit=1)[1] for line in describe(args, None, None) if line.startswith("  classes")]
    assert lines == (shown or ["a, b, c, d", "e, f, g, h, i, j"])
    equal = args_of("--num_tasks", "5", dataset="cifar10")
    assert "  classes      4, 6" not in describe(equal, None, None)


def test_the_plan_says_how_many_labels_are_visible() -> None:
    args, data = plan_of("--semi_supervised", "0.1")
    lines = [line for line in describe(args, data, None) if line.startswith("  labels")]
    visible = [int((data.visible_targets[part] >= 0).sum()) for part in data.split.train]
    sizes = [len(part) for part in data.split.train]
    assert lines == [
        f"  labels       {n} of {all_} visible in training" for n, all_ in zip(visible, sizes, strict=True)
    ]
    assert "labels" not in "\n".join(describe(*plan_of(), None))


def test_the_plan_without_labels(tmp_path: Path) -> None:
    args = args_of("--data_dir", str(class_folders(tmp_path)), *NO_LABELS, dataset="custom")
    data = open_data(args)
    assert data.split.classes == [[], []] and data.num_classes == 0
    text = "\n".join(describe(args, data, None))
    assert "24 to train, 0 to test" in text and "labels       0 of 24" in text
    assert "python -m kaizen.evaluate" in text
    assert "python -m kaizen.evaluate" in "\n".join(describe(args, None, None))
