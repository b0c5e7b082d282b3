from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from helpers import args_of, method_of, views_of
from torch import Tensor

from kaizen.args import UsageError
from kaizen.losses import whiten
from kaizen.methods import Output
from kaizen.methods.wmse import WMSE

pytestmark = pytest.mark.usefixtures("tiny")


def wmse(**flags: object) -> WMSE:
    method = method_of("wmse", **{"whitening_eps": 0.0, **flags})
    assert isinstance(method, WMSE)
    return method


def projections(count: int, dim: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, dim, generator=generator, requires_grad=True) for _ in range(2)]


def loss_of(method: WMSE, z: list[Tensor]) -> Tensor:
    torch.manual_seed(0)
    return method.loss(Output([], z), torch.empty(0))


def test_whitened_batches_have_mean_zero_and_the_identity_as_covariance() -> None:
    x = projections(40)[0] @ torch.randn(6, 6) + 5
    white = whiten(x, 0.0)
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(white.T.cov(), torch.eye(6), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(whiten(x, 1.0), x - x.mean(dim=0))


@pytest.mark.parametrize("both", [False, True])
def test_the_loss_compares_the_views_after_whitening(both: bool) -> None:
    z = projections(16)
    loss = loss_of(wmse(whitening_size=16, whitening_both=both), z)
    expected = 2 - 2 * F.cosine_similarity(whiten(z[0], 0.0), whiten(z[1], 0.0)).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert z[0].grad is not None and z[0].grad.any(dim=1).all()
    assert (z[1].grad is not None) is both


@pytest.mark.parametrize("count", [8, 16, 19, 23, 40])
def test_batches_of_any_length(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def watched(x: Tensor, eps: float) -> Tensor:
        sizes.append(len(x))
        return whiten(x, eps)

    monkeypatch.setattr("kaizen.methods.wmse.whiten", watched)
    assert torch.isfinite(loss_of(wmse(whitening_size=8), projections(count)))
    assert sum(sizes) == 2 * count and min(sizes) >= 8
    assert len(sizes) == 2 * (count // 8)


def test_several_partitions_are_averaged() -> None:
    z, method = projections(16), wmse(whitening_size=8, whitening_iters=2)
    loss = loss_of(method, z)
    torch.manual_seed(0)
    parts = torch.stack([method.partition_loss(*z) for _ in range(2)])
    assert not torch.isclose(parts[0], parts[1])
    torch.testing.assert_close(loss, parts.mean())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--whitening_size 65", ["--whitening_size 65", "--batch_size 64"]),
        ("--whitening_size 6", ["--whitening_size 6", "--output_dim 6", "--whitening_eps"]),
        ("--output_dim 9 --whitening_size 32", ["--proj_hidden_dim 8", "--output_dim 9", "--whitening_eps"]),
        ("--whitening_size 1 --whitening_eps 0.1", ["--whitening_size 1", "at least 2"]),
        ("--whitening_eps 1.5", ["--whitening_eps 1.5", "at most 1"]),
    ],
)
def test_where_whitening_is_singular(flags: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        args_of("--whitening_eps", "0", *flags.split(), method="wmse")
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_share_of_the_identity_makes_it_regular() -> None:
    args_of("--whitening_size", "2", "--output_dim", "9", "--whitening_eps", "0.1", method="wmse")
    method = wmse(whitening_size=2, whitening_eps=0.1)
    loss = method.loss(method(views_of()), torch.empty(0))
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in method.encoder.parameters())


def test_projections_that_fill_too_few_dimensions_give_no_number_and_a_hint() -> None:
    method = wmse()
    assert not torch.isfinite(loss_of(method, [torch.zeros(16, 6), torch.randn(16, 6)]))
    assert re.search(r"fewer than 6 dimensions, .* --whitening_eps 0: use a larger one", method.not_finite_cure())
