from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kaizen.args import Args, UsageError, parse
from kaizen.features import Features
from kaizen.linear import PUBLISHED_LR, train_linear, with_published_defaults


def clouds(classes: int = 3, each: int = 20, width: int = 5) -> Features:
    """Features around one corner for each class."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(classes).repeat(each)
    feats = 3 * torch.eye(classes, width)[targets] + torch.randn(len(targets), width, generator=generator) / 4
    return Features(feats, targets, torch.arange(len(targets)))


def flags(*given: str, method: str = "vicreg") -> Args:
    return with_published_defaults(parse(list(given)), method)


def weights(head: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in head.parameters()])


def test_the_published_settings_are_the_defaults() -> None:
    args = flags()
    assert (args.optimizer, args.scheduler, args.lr_decay_steps) == ("sgd", "step", [60, 80])
    assert (args.max_epochs, args.batch_size, args.weight_decay, args.lr) == (100, 256, 0.0, 0.3)
    assert flags(method="mocov2plus").lr == 3.0 and flags(method="").lr == 0.3
    assert set(PUBLISHED_LR.values()) == {0.1, 0.15, 0.3, 1.0, 3.0, 30.0}


def test_what_is_given_counts() -> None:
    given = flags("--lr", "2", "--max_epochs", "10", "--scheduler", "cosine", "--weight_decay", "0.1", method="byol")
    assert (given.lr, given.max_epochs, given.scheduler, given.weight_decay) == (2, 10, "cosine", 0.1)
    assert given.lr_decay_steps == [6, 8]  # the same share of the epochs
    assert flags("--lr_decay_steps", "1", "2").lr_decay_steps == [1, 2]
    assert [flags("--max_epochs", str(n)).lr_decay_steps for n in (1, 2, 3)] == [[1], [1], [1, 2]]


@pytest.mark.parametrize("scheduler", ["none", "step", "cosine", "warmup_cosine", "exponential", "reduce"])
@pytest.mark.parametrize("optimizer", [["sgd"], ["sgd", "--lars"], ["adam", "--lr", "0.05"]])
def test_every_optimiser_and_schedule_learns(scheduler: str, optimizer: list[str]) -> None:
    train = clouds()
    given = ("--max_epochs", "30", "--batch_size", "16", "--scheduler", scheduler, "--optimizer", *optimizer)
    head = train_linear(train, 3, flags(*given, method="byol"), "x")
    assert (head(train.feats).argmax(dim=1) == train.targets).float().mean() == 1


def test_one_seed_one_result_and_no_other_chance_is_touched() -> None:
    train, before = clouds(), torch.get_rng_state()
    first = train_linear(train, 3, flags("--max_epochs", "2"), "x")
    torch.rand(3)
    state = torch.get_rng_state()
    again = train_linear(train, 3, flags("--max_epochs", "2"), "x")
    other = train_linear(train, 3, flags("--max_epochs", "2", "--seed", "6"), "x")
    assert torch.equal(weights(first), weights(again)) and not torch.equal(weights(first), weights(other))
    assert torch.equal(torch.get_rng_state(), state) and not torch.equal(before, state)


def test_the_schedule_goes_by_epochs() -> None:
    def after(epochs: int) -> Tensor:
        stopped = ("--scheduler", "step", "--lr_decay_steps", "2", "--lr_gamma", "1e-12", "--batch_size", "20")
        return weights(train_linear(clouds(), 3, flags("--max_epochs", str(epochs), *stopped), "x"))

    assert not torch.allclose(after(1), after(2), atol=1e-3)
    assert torch.allclose(after(2), after(5), atol=1e-3)  # momentum dies away at once with such a rate


def test_hidden_layers_on_request() -> None:
    head = train_linear(clouds(), 3, flags("--max_epochs", "1", "--classifier_layers", "7"), "x")
    assert [tuple(p.shape) for p in head.parameters()] == [(7, 5), (7,), (3, 7), (3,)]


def test_a_rate_too_large_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"--lr 1e\+38: the loss of the linear classifier is (nan|inf)"):
        train_linear(clouds(), 3, flags("--lr", "1e38", "--batch_size", "16"), "x")


def test_progress_is_one_line_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    train_linear(clouds(), 3, flags("--max_epochs", "3"), "task 1: linear layer trained")
    assert capsys.readouterr().out == "task 1: linear layer trained, 0:00\n"
