"""Bad input: one line on stderr that names flag, value and cure, status 2, and nothing is touched."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers import PAIRS, args_of, class_folders, command_line, domain_lists, run_experiment

import main_continual
from kaizen import cli
from kaizen.args import Flag, UsageError, core_flags, flags_of_signature
from kaizen.building import view_options
from kaizen.cli import (
    REGISTRIES,
    VIEW_FLAGS,
    args_from,
    everything_known,
    flags_of,
    own_flags,
    parsed,
    per_view,
    read_args,
    unused_flags,
)
from kaizen.devices import uses_cuda
from kaizen.distillers import CLASSIFIER_DISTILLERS
from kaizen.experiment import Experiment
from kaizen.methods import METHODS

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What the program says to bad input, which must leave everything as it is."""
    before = files(Path.cwd())
    assert main_continual.main(list(argv)) == 2
    assert files(Path.cwd()) == before
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.out
    return captured.err


DISTILL = ("--distiller", "contrastive", "--distiller_classifier", "soft_label")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--proj_hiden_dim 3", ["unknown flag --proj_hiden_dim", "--proj_hidden_dim"]),
        ("--feature_extractor_distil_lamb 3", ["unknown flag", "did you mean --feature_extractor_distill_lamb?"]),
        ("--max_epoch 3", ["unknown flag --max_epoch", "did you mean --max_epochs?"]),
        ("--queue 3", ["unknown flag --queue", "--queue_size"]),
        ("--num_tasks 3", ["--num_tasks 3", "10 classes of digits", "1, 2, 5, 10"]),
        ("--num_tasks 20", ["--num_tasks 20", "10 classes of digits"]),
        ("--task_idx 2", ["--task_idx 2", "0 to 1"]),
        ("--task_idx 1", ["--task_idx 1", "model of task 0", "--pretrained_model", "--experiment_dir"]),
        ("--num_tasks 5 --task_idx 2", ["--task_idx 2", "start from task 0 or 1"]),
        ("--batch_size 716", ["--batch_size 716", "task 1", "715"]),
        ("--split_strategy data --num_tasks 1400", ["--num_tasks 1400", "1 training images", "fewer"]),
        ("--split_strategy data --num_tasks 2 --batch_size 800", ["--batch_size 800", "721"]),
        ("--replay --replay_proportion 0.001", ["--replay_proportion 0.001", "no image", "task 1", "larger"]),
        ("--replay --memory_size 4", ["--replay_memory_size 4", "no image", "larger"]),
        ("--replay --memory_size 100 --replay_proportion 0.001", ["--replay_proportion 0.001", "no image"]),
        ("--replay --memory_size 4 --replay_proportion 0.5", ["--replay_memory_size 4", "no image"]),
        ("--distiller_classifier soft_label --classifier_training False", ["soft_label", "--classifier_training True"]),
        ("--distiller contrastiv", ["--distiller contrastiv", "did you mean contrastive?", "predictive_mse"]),
        ("--distiller knowledge", ["--distiller knowledge", "simclr has none", "use another distiller"]),
        ("--distiller_classifier knowledge", ["--distiller_classifier knowledge", "choose from", "soft_label"]),
        ("--method simclt", ["--method simclt", "did you mean simclr?", "byol"]),
        ("--dataset digit", ["--dataset digit", "did you mean digits?"]),
        ("--encoder resnet19", ["--encoder resnet19", "resnet18"]),
        ("--encoder_width 0.2", ["--encoder_width 0.2", "at least 0.25"]),
        ("--method mocov2plus --queue_size 0", ["--queue_size 0", "at least 1"]),
        ("--method swav --num_prototypes 3 4", ["--num_prototypes 3 4", "swav takes one value"]),
        ("--method swav --queue_size -1", ["--queue_size -1", "at least 0"]),
        ("--temperature 0", ["--temperature 0", "above 0"]),
        ("--feature_extractor_distill_lamb -1", ["--feature_extractor_distill_lamb -1", "at least 0"]),
        ("--pretrained_model none.ckpt", ["--pretrained_model none.ckpt", "no such file", "final.ckpt"]),
        ("--gaussian_prob 0.1 0.2 0.3", ["--gaussian_prob 0.1 0.2 0.3", "2 views"]),
        ("--min_scale 0.5 --max_scale 0.6 0.4", ["--min_scale 0.5", "--max_scale 0.4", "smaller"]),
        ("--size 8 8", ["--size 8 8", "one side"]),
        ("--mean 0.5", ["--mean 0.5", "three values"]),
        ("--std 0.5 0.5", ["--std 0.5 0.5", "three values"]),
        ("--mean 123 116 103", ["--mean 123", "at most 1"]),
        ("--lars --optimizer adam", ["--lars", "--optimizer adam", "--optimizer sgd"]),
        ("--scheduler step", ["--scheduler step", "--lr_decay_steps 60 80"]),
        ("--scheduler reduce --lr_gamma 1", ["--lr_gamma 1", "less than 1"]),
        ("--gpus cuda", ["--gpus cuda", "e.g. --gpus 0"]),
        ("--gpus -1", ["--gpus -1", "e.g. --gpus 0"]),
        ("--gpus ²", ["--gpus ²", "e.g. --gpus 0"]),
        ("--gpus ,", ["--gpus ,", "e.g. --gpus 0"]),
        ("--gpus 1,1", ["--gpus 1,1", "twice"]),
        ("--gpus 0,cuda --dry_run", ["--gpus 0,cuda", "e.g. --gpus 0"]),
        ("--accelerator dp", ["--accelerator dp", "auto, gpu, cpu, ddp"]),
        ("--save_checkpoint False", ["--save_checkpoint False", "leave this flag out"]),
        ("--classifier_training False --disable_knn_eval", ["nothing is left to evaluate", "--online_evaluation True"]),
        ("--experiment_dir a/b", ["--experiment_dir a/b", "--base_experiment_dir experiments", "plain name"]),
        ("--experiment_dir ..", ["--experiment_dir ..", "plain name"]),
        ("--experiment_dir=", ["--experiment_dir", "plain name"]),
        ("--lr nan", ["--lr", "'nan'", "finite"]),
        ("--seed 5000000000", ["--seed 5000000000", "at most"]),
        ("--precision 8", ["--precision 8", "16, bf16, 32"]),
        ("--unknown", ["unknown flag --unknown"]),
        ("stray", ["stray", "value without a flag"]),
    ],
)
def test_a_bad_flag(capsys: pytest.CaptureFixture[str], flags: str, words: list[str]) -> None:
    message = refusal(capsys, *command_line(*flags.split()))
    assert all(word in message for word in words), message


def test_method_and_dataset_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--method (not given): choose from" in refusal(capsys)
    assert "--dataset (not given): choose from" in refusal(capsys, "--method", "byol")


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "--gpus 2: this machine has 2; give an index from 0 to 1" in refusal(capsys, *command_line("--gpus", "2"))
    assert args_of("--gpus", "1").gpus == "1"


def test_accelerators(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--accelerator gpu: no CUDA here; use auto or cpu" in refusal(capsys, *command_line("--accelerator", "gpu"))
    assert main_continual.main(command_line("--accelerator", "gpu", "--dry_run")) == 0
    assert "not checked: --accelerator gpu: no CUDA here" in capsys.readouterr().out
    assert not uses_cuda(args_of())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert all(uses_cuda(args_of("--accelerator", name)) for name in ("auto", "gpu", "ddp"))
    assert not uses_cuda(args_of("--accelerator", "cpu"))


def test_compiling_without_a_compiler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "--compile: no C++ compiler no-such-compiler" in refusal(capsys, *command_line("--compile"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "--compile: needs triton on CUDA" in refusal(capsys, *command_line("--compile"))


def test_wandb_without_a_key(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("NETRC", str(place / "netrc"))
    message = refusal(capsys, *command_line("--wandb"))
    assert "--wandb" in message and "wandb login" in message and "--offline" in message


# Data.


def custom(data: Path, *flags: str) -> list[str]:
    return command_line("--data_dir", str(data), *flags, dataset="custom")


def test_a_data_folder_that_is_missing_or_empty(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = place / "data"
    assert f"--data_dir {data}: no such folder" in refusal(capsys, *custom(data))
    data.mkdir()
    assert f"--train_dir {data}/train: no such folder" in refusal(capsys, *custom(data))
    (data / "train" / "cats").mkdir(parents=True)
    assert f"--train_dir {data}/train: holds no class folder with images" in refusal(capsys, *custom(data))
    class_folders(place / "whole")
    shutil.rmtree(place / "whole" / "val")
    assert "--val_dir" in refusal(capsys, *custom(place / "whole"))


def test_a_class_without_images(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = class_folders(place / "data")
    (data / "train" / "nothing").mkdir()
    assert "class folder nothing holds no images; add some or remove it" in refusal(capsys, *custom(data))


def test_classes_that_differ(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = class_folders(place / "data")
    (data / "val" / "class1").rename(data / "val" / "other")
    message = refusal(capsys, *custom(data))
    assert "--val_dir val" in message and "(class1, other)" in message and "same class folders" in message


def test_classes_that_do_not_divide(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = class_folders(place / "data", [8] * 4)
    assert "--num_tasks 3: does not divide the 4 classes" in refusal(capsys, *custom(data, "--num_tasks", "3"))
    one = class_folders(place / "one", [8])
    assert "use one of 1" in refusal(capsys, *custom(one))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--split_strategy domain", ["--split_strategy domain", "custom has no domains", "class or data"]),
        ("--classes_per_task 1 2", ["--classes_per_task 1 2", "sum to 3", "4 classes"]),
        ("--class_order class0 class1 class2 clas3", ["--class_order clas3", "did you mean class3?"]),
        ("--class_order 0 1 2", ["--class_order", "lacks 1 of the 4 classes", "class3"]),
        ("--no_labels", ["--no_labels", "--split_strategy data"]),
    ],
)
def test_a_split_that_cannot_be(place: Path, capsys: pytest.CaptureFixture[str], flags: str, words: list[str]) -> None:
    message = refusal(capsys, *custom(class_folders(place / "data"), *flags.split()))
    assert all(word in message for word in words), message


def test_a_list_that_leads_out_of_the_data_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = domain_lists(place / "data", ["real"])
    (data / "real_test.txt").write_text("../secret.png 0\n")
    flags = ["--data_dir", str(data), "--split_strategy", "domain", "--domain", "real"]
    message = refusal(capsys, *command_line(*flags, dataset="domainnet"))
    assert f"{data}/real_test.txt:1: ../secret.png leads out of --data_dir" in message


def test_a_batch_beyond_the_smallest_task(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = class_folders(place / "data", [9, 9, 2, 9])
    message = refusal(capsys, *custom(data, "--num_tasks", "4"))
    assert "--batch_size 8" in message and "only 2 training images" in message and "at most 2" in message


# Checkpoints.


def pretrained(path: Path, *flags: str) -> list[str]:
    return command_line("--task_idx", "1", "--pretrained_model", str(path), *flags)


def test_a_checkpoint_that_is_no_good(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class_folders(place / "data")
    made = run_experiment(custom(place / "data", "--num_tasks", "1"), place / "experiments" / "made")
    good = made.checkpoint(0).read_bytes()

    path = place / "bad.ckpt"
    for damage in (good[: len(good) // 2], good[:100], b"", b"\x80\x02garbage", b"just text\n", good[::-1]):
        path.write_bytes(damage)
        message = refusal(capsys, *pretrained(path))
        assert f"--pretrained_model {path}: cut short, damaged or not a checkpoint" in message

    torch.save({"state_dict": {}}, path)
    assert "not a checkpoint of Kaizen or CaSSLe; give the task*/final.ckpt" in refusal(capsys, *pretrained(path))
    torch.save([1, 2], path)
    assert "not a checkpoint of Kaizen" in refusal(capsys, *pretrained(path))
    assert "no such file" in refusal(capsys, *pretrained(place))

    path.write_bytes(good)
    message = refusal(capsys, *pretrained(path, "--encoder", "resnet9", "--classifier_training", "False"))
    assert f"--pretrained_model {path}: another architecture; method.encoder." in message
    assert "use the flags it was trained with" in message
    assert "classifier.0.bias is (4,) there and (10,) here" in refusal(capsys, *pretrained(path))


# An experiment that goes on.


def test_an_experiment_with_other_flags(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = command_line("--experiment_dir", "run", "--lr", "0.1", "--temperature", "0.3")
    Experiment.start(place / "experiments" / "run", flags_of(read_args(flags)), [[0]], ["a"])
    for dry in ([], ["--dry_run"]):
        changed = [*flags, "--lr", "0.2", "--temperature", "0.5", "--max_epochs", "2", "--num_workers", "1", *dry]
        message = refusal(capsys, *changed)
        assert "--lr 0.1 (now 0.2), --temperature 0.3 (now 0.5);" in message
        assert "use the same ones or another folder" in message and "num_workers" not in message
    assert main_continual.main([*flags, "--num_workers", "1", "--dry_run"]) == 0


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"flags": [1]}', '{"flags": null}', "\xff"])
def test_an_experiment_file_that_is_damaged(place: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    folder = place / "experiments" / "run"
    folder.mkdir(parents=True)
    (folder / "experiment.json").write_bytes(content.encode("latin-1"))
    message = refusal(capsys, *command_line("--experiment_dir", "run"))
    assert "experiment.json is missing or damaged; use a new folder" in message


def test_a_base_folder_that_is_a_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "taken").write_text("")
    message = refusal(capsys, *command_line("--base_experiment_dir", "taken"))
    assert "--base_experiment_dir taken" in message and "name another folder" in message


# What is no error.


@pytest.mark.parametrize(
    ("flags", "unused"),
    [
        (["--queue_size", "8", "--pred_hidden_dim", "8"], "--pred_hidden_dim, --queue_size"),
        (["--no_distill", *DISTILL, "--classifier_distill_lamb", "2"], "--classifier_distill_lamb"),
        (["--distiller", "predictive", "--distill_temperature", "2"], "--feature_extractor_distill_temperature"),
        (["--momentum_classifier"], "--momentum_classifier"),
        (["--online_evaluation", "--momentum_classifier"], "--momentum_classifier"),
        ([*DISTILL, "--distill_no_predictior", "--temperature", "1"], ""),
    ],
)
def test_one_warning_lists_what_is_not_used(capsys: pytest.CaptureFixture[str], flags: list[str], unused: str) -> None:
    assert main_continual.main(command_line(*flags, "--dry_run")) == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert [line.split(": ")[-1] for line in warnings] == ([unused] if unused else [])


def known_with(monkeypatch: pytest.MonkeyPatch, owner: str, item: Flag) -> None:
    known = everything_known()
    monkeypatch.setattr(cli, "everything_known", lambda: [*known, (owner, item)])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            Flag("warmup_epochs", int, 3, "", ""),
            "mine: --warmup_epochs is a flag of every training already; give its own an",
        ),
        (Flag("pace", int, 3, "", "", aliases=("lr",)), "mine: --lr is a flag of every training already"),
        (
            Flag("lamb", int, 3, "", ""),
            "mine: --lamb is of type int, of another owner float; give it that type or another",
        ),
    ],
)
def test_a_flag_that_takes_another_ones_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, item: Flag, message: str
) -> None:
    known_with(monkeypatch, "mine", item)
    with pytest.raises(UsageError, match=message):
        args_of()


def test_every_spelling_of_a_shared_flag_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    known_with(monkeypatch, "mine", Flag("feature_extractor_distill_no_predictor", bool, False, "", ""))
    args = args_of("--distiller", "predictive", "--distill_no_predictior", "True")
    assert args.method_flags["feature_extractor_distill_no_predictor"] is True


def test_a_flag_without_a_default_is_refused() -> None:
    def needs(*, needed: float) -> None: ...

    with pytest.raises(UsageError, match="needs: --needed has no default; give it one"):
        flags_of_signature(needs, "method")


def test_momentum_probes_need_a_momentum_encoder() -> None:
    flags = ("--online_evaluation", "--momentum_classifier")
    assert unused_flags(args_of(*flags, method="byol")) == []
    assert unused_flags(args_of(*flags, method="vicreg")) == ["momentum_classifier"]
    alone = ("--replay_proportion", "0.1", "--num_small_crops", "4")
    assert unused_flags(args_of(*alone)) == ["num_small_crops", "replay_proportion"]
    assert unused_flags(args_of(*alone, "--replay", "--multicrop")) == []


def test_the_published_spelling_of_a_flag() -> None:
    args = args_of(*DISTILL, "--distill_no_predictior", "True", "--classifier_distill_no_predictior", "True")
    assert args.method_flags["feature_extractor_distill_no_predictor"] is True
    assert args.method_flags["classifier_distill_no_predictor"] is True


def test_the_published_spellings_of_a_distiller() -> None:
    args = args_of("--distiller", "predictiveMSE", "--distill_lamb", "3", "--distill_proj_hidden_dim", "5")
    assert args.distiller == "predictive_mse"
    assert args.method_flags["feature_extractor_distill_lamb"] == 3
    assert args.method_flags["feature_extractor_distill_proj_hidden_dim"] == 5


def test_defaults_are_those_of_the_chosen_method_and_distillers() -> None:
    assert args_of(method="byol").method_flags["base_tau_momentum"] == 0.99
    assert args_of("--distiller", "predictive_mse").method_flags["feature_extractor_distill_lamb"] == 25
    assert args_of("--distiller", "contrastive").method_flags["feature_extractor_distill_lamb"] == 1
    assert "feature_extractor_distill_lamb" not in args_of().method_flags
    assert "feature_extractor_distill_lamb" not in args_of(*DISTILL, "--no_distill").method_flags


@pytest.mark.parametrize("method", METHODS)
def test_flags_survive_the_way_through_a_file(method: str) -> None:
    flags = ["--replay", "--distiller", "decorrelative", "--gaussian_prob", "0.5", "0.1", "--gpus", "0", "--wandb"]
    args = args_of(*flags, method=method)
    again = args_from(json.loads(json.dumps(flags_of(args))))
    args.given = frozenset()
    assert again == args


def test_several_prototypes_are_a_matter_of_the_method() -> None:
    assert args_of("--num_prototypes", "3", method="swav").method_flags["num_prototypes"] == 3
    assert args_of("--num_prototypes", "3", method="deepclusterv2").method_flags["num_prototypes"] == [3]
    assert args_of("--num_prototypes", "3", "4", method="deepclusterv2").method_flags["num_prototypes"] == [3, 4]


def test_help_names_what_may_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    beginning = text[: text.index("options:")]
    for flag, names in REGISTRIES.items():
        assert f"--{flag}: {', '.join(names)} " in re.sub(r"\s+", " ", beginning)


def test_no_flag_has_two_owners_that_disagree_on_its_type() -> None:
    names = {item.name for item in core_flags()}
    spellings: dict[str, tuple[str, type]] = {}
    for _, item in everything_known():
        assert item.help, item.name
        for name in (item.name, *item.aliases):
            assert name not in names
            assert spellings.setdefault(name, (item.name, item.kind)) == (item.name, item.kind)


def test_own_flags_of_every_choice() -> None:
    for method, features in PAIRS:
        for labels in CLASSIFIER_DISTILLERS:
            args = args_of("--distiller", features, "--distiller_classifier", labels, method=method)
            assert {item.name for item in own_flags(args)} <= args.method_flags.keys()


def test_knowledge_needs_prototypes() -> None:
    with pytest.raises(UsageError, match=r"--distiller knowledge: .*simclr has none; use another .*or --method"):
        args_of("--distiller", "knowledge")


def test_a_value_for_both_views_or_one_each() -> None:
    assert per_view(args_of(), [0.5]) == [0.5, 0.5]
    assert per_view(args_of(), [0.5, 0.1]) == [0.5, 0.1]


def test_every_view_flag_reaches_its_view() -> None:
    values = {name: [0.11 + i / 100, 0.31 + i / 100] for i, name in enumerate(VIEW_FLAGS)}
    flags = [word for name, pair in values.items() for word in (f"--{name}", *map(str, pair))]
    first, second = view_options(args_of(*flags))
    assert (first.size, second.size) == (8, 8)
    names = {
        "color_jitter_prob": "jitter_prob",
        "gray_scale_prob": "gray_prob",
        "gaussian_prob": "blur_prob",
        "solarization_prob": "solarize_prob",
        "horizontal_flip_prob": "hflip_prob",
    }
    for name, pair in values.items():
        option = names.get(name, name)
        assert [getattr(first, option), getattr(second, option)] == pair, name


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (("--name", "a\nb"), "--name"),
        (("--data_dir", "\0"), "--data_dir"),
        (("--project", "\udc80"), "--project"),
        (("--bad\u2028", "1"), "--bad"),
        (("--max_epochs", "9" * 30), "--max_epochs"),
        (("--num_crops", "1000000000000", "--multicrop"), "--num_crops"),
    ],
)
def test_what_no_line_of_text_or_no_memory_can_hold(argv: tuple[str, ...], word: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_args(["--dataset", "digits", "--method", "simclr", *argv])
    assert word in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", "0.1"),
        ("lr", True),
        ("seed", 1.5),
        ("dataset", None),
        ("brightness", 0.4),
        ("temperature", "x"),
        ("lr", -1),
    ],
)
def test_flags_that_were_written_down_and_are_damaged(name: str, value: object) -> None:
    flags = flags_of(read_args(["--dataset", "digits", "--method", "simclr"]))
    assert args_from(flags).method == "simclr"
    with pytest.raises(UsageError, match=f"^--{name} "):
        args_from({**flags, name: value})
