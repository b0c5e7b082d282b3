"""Models in use: they say what they said in training, whatever the images come in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from helpers import class_folders, command_line, run_experiment, tiny_encoder
from PIL import Image
from torch import Tensor

import kaizen
from kaizen import task
from kaizen.args import UsageError
from kaizen.checkpoint import load_task
from kaizen.cli import args_from
from kaizen.data.images import ImageSet
from kaizen.models.encoders import ENCODERS
from kaizen.plan import load_data

pytestmark = pytest.mark.usefixtures("tiny")


def test_images(folder: Path) -> tuple[ImageSet, list[Tensor]]:
    data = load_data(args_from(json.loads((folder / "experiment.json").read_text())["flags"]))
    return data.test, data.split.test


test_images.__test__ = False  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two tasks each: of digits in memory, and of folders with images of one small size, or larger than it is kept."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "tiny", tiny_encoder)
        patch.setattr(task, "draw_plots", lambda results, folder: None)
        run_experiment(command_line("--online_evaluation", "--max_epochs", "2"), root / "digits")
        for name, sizes in (("small", [(20, 14)]), ("mixed", [(20, 14), (9, 30)]), ("large", [(120, 90), (70, 130)])):
            class_folders(root / f"{name}_data", sizes=sizes)
            run_experiment(
                command_line("--data_dir", str(root / f"{name}_data"), "--num_workers", "0", dataset="custom"),
                root / name,
            )
        yield root


@pytest.fixture
def digits(root: Path) -> Path:
    return root / "digits"


def accuracies(labels: Tensor, targets: Tensor, tasks: list[Tensor]) -> list[float]:
    return [float((labels == targets)[indices].float().mean()) for indices in tasks]


def written(folder: Path, task_idx: int, head: str) -> list[float]:
    found: list[float] = json.loads((folder / f"task{task_idx}" / "accuracy.json").read_text())["heads"][head]
    return found


@pytest.mark.parametrize("head", ["classifier", "online"])
@pytest.mark.parametrize("task_idx", [0, 1])
def test_the_accuracies_of_the_training_come_out_again(digits: Path, head: str, task_idx: int) -> None:
    images, tasks = test_images(digits)
    model = kaizen.load(digits / f"task{task_idx}" / "final.ckpt", head)
    found = model.predict(images.read(range(len(images)), ()), classes="all")  # type: ignore[arg-type]
    row = written(digits, task_idx, head)
    assert accuracies(found.labels, images.targets, tasks) == row and max(row) > 0.2


@pytest.mark.parametrize("name", ["small", "mixed", "large"])
def test_files_are_prepared_as_the_test_images_of_a_folder(root: Path, name: str) -> None:
    images, tasks = test_images(root / name)
    model = kaizen.load(root / name)
    files = images.paths  # type: ignore[attr-defined]
    found = model.predict(files)
    assert accuracies(found.labels, images.targets, tasks) == written(root / name, 1, "classifier")
    assert model.reader.cropped == (name != "small")
    crops = torch.cat([*model.reader.batches(files, 5)])
    side = (14, 20) if name == "small" else (8, 8)
    assert crops.shape == (16, 3, *side)
    torch.testing.assert_close(model.features(files), model.features(files, batch_size=3))


def test_the_newest_finished_task_of_an_experiment(digits: Path, tmp_path: Path) -> None:
    assert kaizen.load(digits).task_idx == 1 and kaizen.load(str(digits)).task_idx == 1
    for number in (0, 1, 9, 10):
        folder = tmp_path / f"task{number}"
        folder.mkdir()
        (folder / "final.ckpt").write_bytes((digits / "task0" / "final.ckpt").read_bytes())
        if number != 10:  # which is trained and not yet judged
            (folder / "accuracy.json").write_text("{}")
    (tmp_path / "task9" / "final.ckpt").write_bytes((digits / "task1" / "final.ckpt").read_bytes())
    assert kaizen.load(tmp_path).task_idx == 1
    with pytest.raises(UsageError, match="holds no finished task"):
        kaizen.load(tmp_path / "task0")


def test_only_classes_that_were_learnt(digits: Path) -> None:
    images, _ = test_images(digits)
    pixels: Any = images.read(range(len(images)), ())
    model = kaizen.load(digits / "task0" / "final.ckpt")
    (seen,) = model.classes_by_task
    unseen = [label for label in range(10) if label not in seen]
    assert model.seen == sorted(seen) and len(unseen) == 5 and model.classes == [str(c) for c in range(10)]
    found, all_classes = model.predict(pixels), model.predict(pixels, classes="all")
    assert {*found.labels.tolist()} <= {*seen}
    assert found.probabilities[:, unseen].eq(0).all() and all_classes.probabilities[:, unseen].gt(0).any()
    torch.testing.assert_close(found.probabilities.sum(dim=1), torch.ones(len(pixels)))
    assert found.names == model.classes and found.label_names == [str(c) for c in found.labels.tolist()]
    assert torch.equal(found.labels, found.probabilities.argmax(dim=1)) and found.labels.dtype == torch.int64
    after_all = kaizen.load(digits)
    assert len(after_all.classes_by_task) == 2 and after_all.seen == [*range(10)]
    same = [after_all.predict(pixels, classes=which).probabilities for which in ("seen", "all")]
    assert torch.equal(*same)
    with pytest.raises(UsageError, match="classes new: choose from seen, all"):
        model.predict(pixels, classes="new")


@pytest.mark.parametrize("name", ["digits", "large"])
def test_the_same_image_in_any_form(root: Path, tmp_path: Path, name: str) -> None:
    levels = torch.randint(0, 256, (3, 3, 40, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    arrays = rearrange(levels, "n c h w -> n h w c").numpy()
    pictures = [Image.fromarray(array) for array in arrays]
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for picture, file in zip(pictures, files, strict=True):
        picture.save(file)
    model = kaizen.load(root / name)
    expected = model.features(levels)
    assert expected.shape == (3, model.feature_dim) and expected.dtype == torch.float32 and not expected.requires_grad
    forms: list[Any] = [
        levels / 255,
        (levels / 255).double(),
        arrays,
        arrays[::-1][::-1],
        pictures,
        files,
        list(map(str, files)),
    ]
    forms += [[pictures[0], str(files[1]), files[2]], np.float32(arrays / 255), tuple(pictures)]
    for form in forms:
        assert torch.equal(model.features(form), expected)
    for one in (levels[0], levels[:1], arrays[0], pictures[0], files[0], str(files[0]), levels[0] / 255):
        torch.testing.assert_close(model.features(one), expected[:1])
    assert model.features([]).shape == (0, model.feature_dim) == model.features(levels[:0]).shape
    assert model.predict([]).probabilities.shape == (0, len(model.classes))


def test_images_of_many_sizes_and_modes_at_once(digits: Path) -> None:
    modes = [
        Image.new(mode, size) for mode, size in (("L", (8, 8)), ("RGBA", (300, 200)), ("P", (3, 90)), ("1", (1, 1)))
    ]
    model = kaizen.load(digits)
    found = model.features(modes)
    assert found.shape == (4, 8)
    torch.testing.assert_close(found, torch.cat([model.features(image) for image in modes]))


def test_using_a_model_changes_nothing(digits: Path) -> None:
    model = kaizen.load(digits).to("cpu")
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    images = torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8)
    first = model.predict(images).probabilities
    assert torch.equal(model.predict(images).probabilities, first)
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())
    assert model.device == torch.device("cpu") and (model.image_size, model.head) == (8, "classifier")


def test_what_the_training_had_no_labels_for(tmp_path: Path, root: Path) -> None:
    flags = ("--no_labels", "--split_strategy", "data", "--classifier_training", "False", "--disable_knn_eval")
    data = ("--data_dir", str(root / "small_data"), "--num_workers", "0")
    run_experiment(command_line(*data, *flags, dataset="custom"), tmp_path / "run")
    model = kaizen.load(tmp_path / "run")
    assert model.features(torch.zeros(2, 3, 14, 20, dtype=torch.uint8)).shape == (2, 8)
    assert (model.classes, model.head, model.reader.cropped, model.notice) == ([], None, False, "")
    with pytest.raises(UsageError, match="has no classifier .*--protocol linear") as caught:
        model.predict(torch.zeros(2, 3, 14, 20, dtype=torch.uint8))
    assert "\n" not in str(caught.value)


def changed(path: Path, tmp_path: Path, **values: Any) -> Path:
    content = {**torch.load(path, weights_only=True), **values}
    torch.save({name: value for name, value in content.items() if value is not ...}, tmp_path / "x.ckpt")
    return tmp_path / "x.ckpt"


def test_older_checkpoints_name_no_classes(digits: Path, tmp_path: Path) -> None:
    path = changed(digits / "task0" / "final.ckpt", tmp_path, trained_on=..., task_idx=10**15)
    with pytest.warns(UserWarning, match="of an older version"):
        model = kaizen.load(path)
    assert model.classes == [str(c) for c in range(10)] and model.seen == [*range(10)]
    assert model.reader.cropped is None
    large, small = (Image.new("RGB", size) for size in ((200, 100), (90, 60)))
    assert model.reader.read(large).shape == (3, 8, 8) and model.reader.read(small).shape == (3, 60, 90)


def refusal(path: Path, head: str = "classifier") -> str:
    with pytest.raises(UsageError) as caught:
        kaizen.load(path, head)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_models_that_cannot_be_used(digits: Path, tmp_path: Path) -> None:
    end = digits / "task0" / "final.ckpt"
    assert "has no momentum_online head; it has classifier, online" in refusal(end, "momentum_online")
    assert "head onlin: choose from classifier, online, momentum_online (did you mean online?)" in refusal(end, "onlin")
    assert "no such file" in refusal(tmp_path / "none.ckpt")
    (tmp_path / "bad.ckpt").write_bytes(b"PK")
    assert "damaged" in refusal(tmp_path / "bad.ckpt")
    torch.save({"state_dict": {"encoder.conv1.weight": torch.ones(1)}}, tmp_path / "published.ckpt")
    assert "does not say how it was trained" in refusal(tmp_path / "published.ckpt")
    flags = load_task(end, "")["flags"]
    assert "another architecture" in refusal(changed(end, tmp_path, flags={**flags, "encoder": "resnet9"}))
    for width, problem in ((1e4, "another architecture"), (1e6, "too large"), (1e300, "too large")):  # terabytes and up
        wide = {**flags, "encoder": "resnet9", "encoder_width": width}
        assert problem in refusal(changed(end, tmp_path, flags=wide))
    assert "--mean 0.5" in refusal(changed(end, tmp_path, flags={**flags, "mean": [0.5]}))
    few = {"classes": ["a"], "classes_by_task": [[0]], "cropped": False}
    assert "names 1 classes for 10 outputs" in refusal(changed(end, tmp_path, trained_on=few))
    state = load_task(end, "")["state"]
    odd = {name.replace("classifier.0", "classifier.x"): value for name, value in state.items()}
    assert "is not a head of linear layers" in refusal(changed(end, tmp_path, state=odd))
    bias = {name: value for name, value in state.items() if name != "classifier.0.weight"}
    assert "is not a head of linear layers" in refusal(changed(end, tmp_path, state=bias))


@pytest.mark.parametrize("precision", ["bf16", "64"])
def test_the_precision_of_the_training(precision: str, tmp_path: Path) -> None:
    run_experiment(command_line("--precision", precision, "--num_tasks", "1"), tmp_path / "run")
    images, tasks = test_images(tmp_path / "run")
    found = kaizen.load(tmp_path / "run").predict(images.read(range(len(images)), ()))  # type: ignore[arg-type]
    assert accuracies(found.labels, images.targets, tasks) == written(tmp_path / "run", 0, "classifier")
    assert found.probabilities.dtype == torch.float32
