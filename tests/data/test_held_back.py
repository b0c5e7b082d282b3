"""Judging on held-back training images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import args_of, class_folders, command_line, domain_lists, run_experiment

from kaizen import evaluate
from kaizen.args import UsageError
from kaizen.data.held_back import hold_back
from kaizen.data.images import CentreCrop, MemoryImages
from kaizen.files import read_json
from kaizen.plan import load_data, open_data
from main_continual import main

pytestmark = [pytest.mark.usefixtures("tiny")]


def numbered(counts: list[int], domains: torch.Tensor | None = None) -> MemoryImages:
    """Images whose every pixel is their position."""
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = torch.arange(len(targets), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2).contiguous()
    return MemoryImages(images, targets, [f"class{i}" for i in range(len(counts))], domains, ["a", "b"])


def positions(images: MemoryImages) -> list[int]:
    return images.images[:, 0, 0, 0].tolist()


def test_every_image_is_on_one_side_with_its_label() -> None:
    train = numbered([20, 40])
    rest, held = hold_back(train, 0.1, seed=5)
    assert sorted(positions(rest) + positions(held)) == list(range(60))
    assert held.targets.tolist() == [0] * 2 + [1] * 4
    for side in (rest, held):
        assert positions(side) == sorted(positions(side))
        assert torch.equal(side.targets, train.targets[positions(side)])
        assert side.class_names == train.class_names


def test_the_choice_follows_from_the_seed() -> None:
    held = [positions(hold_back(numbered([50, 50]), 0.2, seed)[1]) for seed in (5, 5, 6)]
    assert held[0] == held[1] != held[2]


def test_unlabelled_images_are_not_held_back() -> None:
    train = numbered([10, 10])
    train.targets[5:10] = -1
    rest, held = hold_back(train, 0.4, seed=5)
    assert held.targets.tolist() == [0] * 2 + [1] * 4
    assert (rest.targets == -1).sum() == 5


def test_domains_are_held_back_in_equal_shares() -> None:
    train = numbered([20, 20], domains=torch.arange(40) % 2)
    _, held = hold_back(train, 0.2, seed=5)
    assert held.domains is not None
    assert sorted(zip(held.targets.tolist(), held.domains.tolist(), strict=True)) == sorted(
        [(c, d) for c in range(2) for d in range(2)] * 2
    )


@pytest.mark.parametrize(("share", "taken"), [(0.04, 0), (0.98, 10)])
def test_a_share_that_leaves_a_side_without_a_class_is_refused(share: float, taken: int) -> None:
    with pytest.raises(UsageError, match=f"--held_back {share}: takes {taken} of the 10 training images of class cl"):
        hold_back(numbered([10, 100]), share, seed=5)


def test_images_in_files_are_held_back_too(tmp_path: Path) -> None:
    class_folders(tmp_path, [10, 20])
    args = args_of("--data_dir", str(tmp_path), "--held_back", "0.2", dataset="custom")
    data = open_data(args)
    assert (len(data.train), len(data.test)) == (24, 6)
    args.held_back = None
    everything = open_data(args).train
    crops = CentreCrop(8)
    rows = torch.cat([data.train.read(range(24), crops), data.test.read(range(6), crops)]).flatten(1)  # type: ignore
    assert sorted(rows.tolist()) == sorted(everything.read(range(30), crops).flatten(1).tolist())  # type: ignore


def test_images_of_domains_in_lists_are_held_back(tmp_path: Path) -> None:
    root = domain_lists(tmp_path, ["real", "quickdraw"])
    flags = ("--data_dir", str(root), "--split_strategy", "domain", "--num_tasks", "2", "--held_back", "0.25")
    args = args_of(*flags, dataset="domainnet")
    assert [len(part) for part in load_data(args).split.test] == [4, 4]  # of 2 classes with 8 images each


def test_an_experiment_is_judged_on_them_also_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    experiment = run_experiment(command_line("--held_back", "0.2"), folder)
    assert evaluate.main(["--experiment", str(folder), "--protocol", "linear", "--max_epochs", "1"]) == 0
    held = [len(part) for part in open_data(args_of("--held_back", "0.2")).split.test]
    heads = read_json(folder / "results.json")["heads"]
    assert len(heads) == 3
    for head in heads.values():
        for row in head["accuracy_matrix"]:
            for size, value in zip(held, row, strict=True):
                assert size * value == pytest.approx(round(size * value), abs=1e-4)
    assert experiment.flags["held_back"] == 0.2


def test_a_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command_line("--held_back", "0.2", "--dry_run")) == 0
    assert "judged on training images that training does not see" in capsys.readouterr().out


def test_a_checkpoint_is_judged_on_them_unless_it_is_asked_not_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_experiment(command_line("--held_back", "0.2"), tmp_path / "run")
    command = ["--pretrained_model", str(tmp_path / "run" / "task1" / "final.ckpt"), "--protocol", "classifier"]
    accuracies = []
    for flags, held in (([], True), (["--held_back", "0"], False)):
        capsys.readouterr()
        assert evaluate.main([*command, *flags, "--out", str(tmp_path / f"{held}")]) == 0
        assert ("--held_back 0.2: judged on training images" in capsys.readouterr().out) == held
        accuracies.append(read_json(tmp_path / f"{held}" / "classifier.json")["accuracy_by_task"])
    assert accuracies[0] == read_json(tmp_path / "run" / "task1" / "accuracy.json")["heads"]["classifier"]
    assert accuracies[0] != accuracies[1]
    assert args_of("--held_back", "0").held_back is None
