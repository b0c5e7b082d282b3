from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import args_of

from kaizen.args import Args, UsageError
from kaizen.cli import flags_of
from kaizen.protocols import (
    LABELS,
    MODES,
    Protocol,
    build_protocol,
    of_checkpoint,
    of_experiment,
    read_request,
    unused_flags,
)

pytestmark = pytest.mark.usefixtures("tiny")


def experiment_flags(*flags: str) -> dict[str, Any]:
    return flags_of(args_of("--num_tasks", "5", *flags))


def protocol_of(*flags: str, training: tuple[str, ...] = ()) -> Protocol:
    """That of an experiment."""
    asked, args = read_request(["--experiment", "x", *flags])
    model = of_experiment(experiment_flags(*training), args)
    return build_protocol(asked, args, model, model.method)


@pytest.mark.parametrize(
    ("flags", "head"),
    [
        ("", "linear"),
        ("--protocol linear --labels all_tasks", "linear"),
        ("--labels seen_tasks", "linear_seen_tasks"),
        ("--linear_classifier_training_data_source current_task", "linear_current_task"),
        ("--protocol linear --lr 7", "linear"),
        ("--protocol knn", "knn"),
        ("--protocol knn --labels seen_tasks --knn_k 3", "knn"),
        ("--protocol knn --labels all_tasks", "knn_all_tasks"),
        ("--protocol knn --knn_k 7", "knn_k7"),
        ("--protocol knn --knn_k 7 --labels current_task", "knn_current_task_k7"),
        ("--protocol classifier", "classifier"),
        ("--evaluation_mode online_classifier_eval", "online"),
        ("--evaluation_mode linear_eval", "linear"),
    ],
)
def test_the_head_is_named_by_what_makes_it_different(flags: str, head: str) -> None:
    protocol = protocol_of(*flags.split())
    assert protocol.head == head and protocol.labels in LABELS


def test_the_experiments_own_labels_and_neighbours_make_the_head_of_its_training() -> None:
    training = ("--online_evaluation_training_data_source", "all_tasks", "--knn_k", "4")
    own = protocol_of("--protocol", "knn", training=training)
    assert (own.head, own.labels, own.knn_k) == ("knn", "all_tasks", 4)
    assert protocol_of("--protocol", "knn", "--labels", "seen_tasks", training=training).head == "knn_seen_tasks"


def test_settings_hold_what_counts() -> None:
    base = protocol_of().settings()
    assert (base["labels"], base["lr"], base["seed"]) == ("all_tasks", 1.0, 5)  # simclr
    assert protocol_of("--data_dir", "elsewhere", "--num_workers", "0").settings() == base
    for flag, value in (("lr", "2"), ("batch_size", "64"), ("max_epochs", "3"), ("seed", "1"), ("optimizer", "adam")):
        changed = protocol_of(f"--{flag}", value).settings()
        assert {name for name in base if base[name] != changed[name]} - {"lr_decay_steps"} == {flag}
    assert protocol_of(training=("--seed", "9")).settings()["seed"] == 9
    assert protocol_of("--protocol", "knn").settings() == {"labels": "seen_tasks", "knn_k": 3}
    assert protocol_of("--protocol", "classifier").settings() == {}


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        ("", ["nothing to judge", "--experiment"]),
        ("--experiment a --pretrained_model b", ["--experiment and --pretrained_model"]),
        ("--pretrained_feature_extractor a --pretrained_model b", ["--pretrained_feature_extractor and"]),
        ("--experiment a --protocol nn", ["--protocol nn", "did you mean knn"]),
        ("--experiment a --label all_tasks", ["unknown flag --label ", "did you mean --labels"]),
        ("--experiment a --labels all", ["--labels all", "did you mean all_tasks"]),
        ("--experiment a --tasks -1", ["--tasks -1", "at least 0"]),
        ("--experiment a --protocol knn --evaluation_mode linear_eval", ["--protocol knn", "--evaluation_mode"]),
        ("--experiment a --queue_size 3", ["unknown flag --queue_size"]),
    ],
)
def test_errors_name_the_flag_and_the_cure(argv: str, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        read_request(argv.split())
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in parts), message


def test_the_published_modes() -> None:
    for mode, protocol in MODES.items():
        assert read_request(["--pretrained_model", "m", "--evaluation_mode", mode])[0].protocol == protocol


def test_an_experiments_data_and_model_are_its_own() -> None:
    flags = experiment_flags()
    _, args = read_request(
        [
            "--experiment",
            "x",
            "--data_dir",
            "there",
            "--image_cache",
            "none",
            "--num_workers",
            "1",
            "--precision",
            "bf16",
            "--batch_size",
            "9",
        ]
    )
    model = of_experiment(flags, args)
    assert (model.data_dir, model.num_workers, model.precision) == ("there", 1, "bf16")
    assert model.image_cache == "none"
    assert model.batch_size == flags["batch_size"]  # the one given is the linear layer's
    for flag, value in (("dataset", "digits"), ("num_tasks", "5"), ("encoder", "tiny"), ("task_idx", "1")):
        with pytest.raises(UsageError, match=f"--{flag}: is the experiment's own"):
            of_experiment(flags, read_request(["--experiment", "x", f"--{flag}", value])[1])


def test_a_checkpoint_speaks_for_itself_where_nothing_is_given() -> None:
    flags = experiment_flags("--seed", "8")
    model = of_checkpoint(flags, read_request(["--pretrained_model", "m", "--num_tasks", "2"])[1])
    assert (model.dataset, model.encoder, model.size, model.num_tasks, model.seed) == ("digits", "tiny", [8], 2, 8)
    assert model.batch_size == flags["batch_size"]


def test_on_other_data_a_checkpoint_speaks_of_the_encoder_alone() -> None:
    flags = experiment_flags("--split_strategy", "data", "--replay", "True", "--encoder", "resnet9", "--size", "12")
    model = of_checkpoint(flags, read_request(["--pretrained_model", "m", "--dataset", "cifar100"])[1])
    assert (model.dataset, model.split_strategy, model.num_tasks, model.replay) == ("cifar100", "class", 2, False)
    assert (model.encoder, model.size) == ("resnet9", [12])


def test_on_other_data_images_keep_the_size_that_the_training_had_by_default() -> None:
    flags = {**experiment_flags("--encoder", "resnet9"), "size": None}  # the digits' own
    model = of_checkpoint(flags, read_request(["--pretrained_model", "m", "--dataset", "cifar100"])[1])
    assert model.size == [16]
    given = read_request(["--pretrained_model", "m", "--dataset", "cifar100", "--size", "32"])[1]
    assert of_checkpoint(flags, given).size == [32]
    own = of_checkpoint(flags, read_request(["--pretrained_model", "m"])[1])
    assert own.size is None


def test_a_training_without_labels_is_judged_on_data_that_have_some() -> None:
    flags = flags_of(args_of("--no_labels", "--split_strategy", "data", "--classifier_training", "False",
                             "--disable_knn_eval", dataset="custom"))  # fmt: skip
    model = of_checkpoint(flags, read_request(["--pretrained_model", "m", "--dataset", "digits"])[1])
    assert (model.dataset, model.no_labels, model.split_strategy) == ("digits", False, "class")


def test_where_a_training_ran_is_not_where_it_is_judged() -> None:
    flags = {**experiment_flags(), "gpus": "2", "accelerator": "gpu"}
    _, args = read_request(["--experiment", "x"])
    assert (of_experiment(flags, args).gpus, of_experiment(flags, args).accelerator) == (None, "auto")
    model = of_checkpoint(flags, read_request(["--pretrained_model", "m", "--gpus", "1"])[1])
    assert (model.gpus, model.accelerator) == ("1", "auto")


def foreign(*flags: str) -> Args:
    return of_checkpoint({}, read_request(["--pretrained_feature_extractor", "m", *flags])[1])


def test_a_published_checkpoint_needs_the_data_set() -> None:
    model = foreign("--dataset", "cifar100", "--num_tasks", "5", "--encoder", "resnet50", "--task_idx", "3")
    assert (model.dataset, model.num_tasks, model.encoder, model.task_idx) == ("cifar100", 5, "resnet50", 3)
    with pytest.raises(UsageError, match="--dataset .*choose from"):
        foreign()
    with pytest.raises(UsageError, match="--num_tasks 7: does not divide"):
        foreign("--dataset", "cifar100", "--num_tasks", "7")
    with pytest.raises(UsageError, match="--encoder resnet19"):
        foreign("--dataset", "cifar100", "--encoder", "resnet19")


def test_flags_of_the_training_alone_are_named() -> None:
    training = "--brightness 0.1 --distiller contrastive --replay True --classifier_lr 1 --online_evaluation"
    learning = "--knn_k 3 --lr 1 --classifier_layers 4 --labels all_tasks"
    useful = "--wandb --name n --data_dir d"
    never = {"brightness", "classifier_lr", "distiller", "online_evaluation", "replay"}
    for protocol, unused in {
        "linear": {"knn_k"},
        "knn": {"lr", "classifier_layers"},
        "online": {"knn_k", "lr", "classifier_layers", "labels"},
    }.items():
        asked, args = read_request(f"--experiment x {training} {learning} {useful} --protocol {protocol}".split())
        assert {*unused_flags(asked, args)} == never | unused


def test_out_and_both_names_of_a_checkpoint() -> None:
    asked, args = read_request(["--pretrained_model", "a/b.ckpt"])
    assert asked.checkpoint(args) == (Path("a/b.ckpt"), "--pretrained_model")
    asked, args = read_request(["--pretrained_feature_extractor", "a/b.ckpt"])
    assert asked.checkpoint(args) == (Path("a/b.ckpt"), "--pretrained_feature_extractor")
