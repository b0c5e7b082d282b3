from __future__ import annotations

import dataclasses
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaizen.args import (
    Alias,
    Args,
    Flag,
    Range,
    UsageError,
    check_value,
    core_flags,
    flags_of_signature,
    nearest,
    parse,
)


def refusal(*argv: str, extra: list[Flag] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        parse(argv, extra or [])
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_nothing_given_gives_the_defaults() -> None:
    args = parse([])
    assert args == Args()
    assert args.given == frozenset()
    assert (args.seed, args.split_seed, args.num_tasks, args.replay_batch_size) == (5, 5, 2, 32)


def test_every_kind_of_value() -> None:
    words = "--lr 1e-2 --batch_size 7 --name=a=b --size 16 --gpus 0 --hue 0.1 0.2 --classifier_layers 5 6"
    args = parse(words.split())
    assert (args.lr, args.batch_size, args.name, args.size, args.gpus) == (0.01, 7, "a=b", [16], "0")
    assert (args.hue, args.classifier_layers) == ([0.1, 0.2], [5, 6])
    assert args.given == {"lr", "batch_size", "name", "size", "gpus", "hue", "classifier_layers"}


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--lars"], True),
        (["--lars", "True"], True),
        (["--lars=yes"], True),
        (["--lars", "1"], True),
        (["--lars", "False"], False),
        (["--lars", "no"], False),
        (["--lars=0"], False),
        (["--lars", "--replay"], True),
        (["--lars", "--lars", "False"], False),
    ],
)
def test_a_switch_with_and_without_its_value(words: list[str], value: bool) -> None:
    assert parse(words).lars is value


def test_the_last_one_counts() -> None:
    assert parse(["--lr", "1", "--lr", "2"]).lr == 2


def test_a_second_spelling_lands_under_the_flags_own_name() -> None:
    args = parse(["--memory_size", "20"])
    assert args.replay_memory_size == 20 and args.given == {"replay_memory_size"}


def test_lists_are_not_shared() -> None:
    parse([]).hue.append(0.3)
    assert parse([]).hue == [0.1]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("--batch_siz 8", ["unknown flag --batch_siz", "--batch_size"]),
        ("--max_epoch 8", ["unknown flag --max_epoch ", "--max_epochs"]),
        ("--max_epoch=8", ["unknown flag --max_epoch ", "--max_epochs"]),
        ("--max-epochs 8", ["unknown flag --max-epochs", "--max_epochs"]),
        ("--zzzzqqq 8", ["unknown flag --zzzzqqq", "--help"]),
        ("8 --lars", ["8", "value without a flag"]),
        ("--lr 1 2", ["2", "value without a flag"]),
        ("-lr 1", ["-lr"]),
        ("--lr", ["--lr", "expected one argument"]),
        ("--lr --lars", ["--lr", "expected one argument"]),
        ("--hue", ["--hue", "expected at least one argument"]),
        ("--lr fast", ["--lr", "'fast'", "number"]),
        ("--lr nan", ["--lr", "'nan'", "finite"]),
        ("--lr inf", ["--lr", "'inf'", "finite"]),
        ("--lr -1", ["--lr -1", "at least 0"]),
        ("--lr=-1", ["--lr -1", "at least 0"]),
        ("--batch_size 8.5", ["--batch_size", "'8.5'", "whole number"]),
        ("--batch_size 1", ["--batch_size 1", "at least 2"]),
        ("--batch_size 0x10", ["--batch_size", "'0x10'"]),
        ("--lars maybe", ["--lars", "'maybe'", "True", "False"]),
        ("--precision 17", ["--precision 17", "16, bf16, 32"]),
        ("--scheduler warmup_cosin", ["--scheduler warmup_cosin", "did you mean warmup_cosine?"]),
        ("--hue 0.1 0.7", ["--hue 0.7", "at most 0.5"]),
        ("--replay_proportion 0", ["--replay_proportion 0", "above 0", "at most 1"]),
        ("--max_scale 1.01", ["--max_scale 1.01", "at most 1"]),
        ("--std 0 0.5 0.5", ["--std 0", "above 0"]),
        ("--num_tasks 0", ["--num_tasks 0", "at least 1"]),
        ("--task_idx -1", ["--task_idx -1", "at least 0"]),
        ("--seed 5000000000", ["--seed 5000000000", "at most 1e+09"]),
        ("--split_seed -1", ["--split_seed -1", "at least 0"]),
        ("--encoder_width 0.2", ["--encoder_width 0.2", "at least 0.25"]),
        ("--memory_size 0", ["--replay_memory_size 0", "at least 1"]),
        ("--num_workers -1", ["--num_workers -1", "at least 0"]),
    ],
)
def test_bad_values_are_one_line_with_flag_value_and_cure(argv: str, words: list[str]) -> None:
    message = refusal(*argv.split())
    assert all(word in f"{message} " for word in words), message


def test_an_unknown_flag_is_told_though_a_known_one_is_wrong_too() -> None:
    assert "--batch_siz" in refusal("--batch_siz", "8", "--lr", "-1")


def test_help_lists_every_flag_and_leaves_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert [item.name for item in core_flags() if f"--{item.name} " not in text.replace("\n", " ")] == []


def test_every_default_is_a_good_value_and_every_flag_has_a_text() -> None:
    for item in core_flags():
        assert item.help and item.theme
        if item.default != "":
            check_value(item, item.default)


def method(
    encoder: object,
    *,
    depth: Annotated[int, "layers", Range(1, 4), Alias("layers")] = 2,
    rates: Annotated[list[float], "one each"] = [0.5],  # noqa: B006
    on: bool = False,
) -> None:
    """Take some flags."""


def test_the_flags_of_a_signature() -> None:
    depth, rates, on = flags_of_signature(method, "theme", ("m_", "old_"))
    assert (depth.name, depth.kind, depth.many, depth.default, depth.help) == ("m_depth", int, False, 2, "layers")
    assert depth.bounds == Range(1, 4)
    assert depth.aliases == ("m_layers", "old_depth", "old_layers")
    assert (rates.name, rates.kind, rates.many) == ("m_rates", float, True)
    assert (on.name, on.kind, on.help, on.bounds) == ("m_on", bool, "", None)


def test_flags_of_a_signature_land_in_method_flags() -> None:
    extra = flags_of_signature(method, "theme", ("m_", "old_"))
    args = parse(["--old_layers", "3", "--m_on"], extra)
    assert args.method_flags == {"m_depth": 3, "m_on": True}
    assert args.given == {"m_depth", "m_on"}
    assert "--m_depth 5: must be at least 1 and at most 4" in refusal("--old_layers", "5", extra=extra)
    assert "did you mean --m_rates?" in refusal("--m_rate", "5", extra=extra)


def test_free_flags_are_places_devices_and_logging() -> None:
    free = {item.name for item in core_flags() if item.free}
    assert {"data_dir", "image_cache", "num_workers", "wandb", "gpus", "experiment_dir"} <= free
    assert not free & {"dataset", "method", "lr", "seed", "split_seed", "num_tasks", "max_epochs", "encoder", "replay"}


def test_a_range_in_words() -> None:
    assert str(Range(0)) == "at least 0"
    assert str(Range(0, open_low=True)) == "above 0"
    assert str(Range(0, 1)) == "at least 0 and at most 1"


@given(st.floats(allow_nan=True), st.floats(-5, 5), st.floats(-5, 5), st.booleans())
def test_a_range_holds_what_lies_between(value: float, low: float, high: float, open_low: bool) -> None:
    inside = low < value <= high or (value == low <= high and not open_low)
    assert (value in Range(low, high, open_low)) is inside


def test_the_nearest_word() -> None:
    assert nearest("simclt", ["byol", "simclr"]) == " (did you mean simclr?)"
    assert nearest("simclt", ["byol", "simclr"], "--") == " (did you mean --simclr?)"
    assert nearest("xyz", ["byol", "simclr"]) == ""
    assert nearest("", ["byol"]) == ""


def test_args_know_their_fields_as_flags() -> None:
    fields = {entry.name for entry in dataclasses.fields(Args)}
    assert fields - {item.name for item in core_flags()} == {"method_flags", "given", "devices"}
