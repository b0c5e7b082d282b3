"""The equations of docs/methods.md, sum by sum as they stand there, give what the code gives."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log, sqrt
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import method_of
from torch import Tensor

from kaizen.distillers import FEATURE_DISTILLERS, Knowledge
from kaizen.methods import METHODS, Output, SSLMethod

B, D, K = 4, 6, 5  # images, width of the projections, prototypes


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(rows: Tensor) -> Tensor:
    return F.normalize(rows, dim=-1)


def dot(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum())


def cos(a: Tensor, b: Tensor) -> float:
    return dot(unit(a), unit(b))


def softmax(scores: Tensor) -> list[float]:
    powers = [exp(float(score)) for score in scores]
    return [power / sum(powers) for power in powers]


def cross_entropy(target: list[float], scores: Tensor) -> float:
    return -sum(share * log(other) for share, other in zip(target, softmax(scores), strict=True))


def info_nce(a: Tensor, b: Tensor, tau: float) -> float:
    """The l of NNCLR and of the contrastive distiller."""
    terms = [
        log(exp(cos(a[i], b[i]) / tau) / sum(exp(cos(a[i], b[j]) / tau) for j in range(len(b)))) for i in range(len(a))
    ]
    return -sum(terms) / len(a)


def barlow(z1: Tensor, z2: Tensor, lamb: float, scale: float) -> float:
    z1, z2 = ((z - z.mean(dim=0)) / z.std(dim=0, unbiased=False) for z in (z1, z2))
    c = [[sum(float(z1[i, d] * z2[i, e]) for i in range(len(z1))) / len(z1) for e in range(D)] for d in range(D)]
    on = sum((1 - c[d][d]) ** 2 for d in range(D))
    off = sum(c[d][e] ** 2 for d in range(D) for e in range(D) if d != e)
    return scale * (on + lamb * off)


def whitened(z: Tensor, eps: float) -> Tensor:
    m = z.mean(dim=0)
    factor = torch.linalg.cholesky((1 - eps) * torch.cov(z.T) + eps * torch.eye(D))
    return torch.stack([torch.linalg.inv(factor) @ (row - m) for row in z])


def assigned(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Sinkhorn-Knopp: (images, prototypes)."""
    shares = (scores / epsilon).exp()
    for _ in range(iterations):
        shares = shares / shares.sum(dim=0, keepdim=True)
        shares = shares / shares.sum(dim=1, keepdim=True)
    return shares


# What each equation gives, of an output.


def barlow_twins(m: Any, out: Output) -> float:
    return barlow(*out.z, lamb=5e-3, scale=0.025)


def byol(m: Any, out: Output) -> float:
    return sum((2 - 2 * cos(out.p[u][i], out.keys[v][i])) / B for u, v in ((0, 1), (1, 0)) for i in range(B))


def deepclusterv2(m: Any, out: Output) -> float:
    total = 0.0
    for weights, clusters in zip(m.prototypes.parameters(), m.assignments, strict=True):
        for z in out.z:
            total += sum(-log(softmax(z[i] @ weights.T / 0.1)[int(clusters[i])]) for i in range(B))
    return total / (len(m.prototypes) * len(out.z) * B)


def dino(m: Any, out: Output) -> float:
    centre, temperature = m.criterion.center.flatten(), 0.04 + (0.07 - 0.04) * m.epoch / 49
    pairs = [(u, v) for u in range(2) for v in range(len(out.p)) if u != v]
    sums = [
        cross_entropy(softmax((out.keys[u][i] - centre) / temperature), out.p[v][i] / 0.1)
        for u, v in pairs
        for i in range(B)
    ]
    return sum(sums) / (len(pairs) * B)


def mocov2plus(m: Any, out: Output) -> float:
    def loss(q: Tensor, k: Tensor, queue: Tensor) -> float:
        total = 0.0
        for i in range(B):
            positive = exp(dot(q[i], k[i]) / 0.1)
            total -= log(positive / (positive + sum(exp(dot(q[i], n) / 0.1) for n in queue.T))) / B
        return total

    (z1, z2), (k1, k2) = map(unit, out.z), map(unit, out.keys)
    return (loss(z1, k2, m.queue[1]) + loss(z2, k1, m.queue[0])) / 2


def nnclr(m: Any, out: Output) -> float:
    n1, n2 = (torch.stack([max(m.queue, key=lambda q: dot(unit(row), q)) for row in z]) for z in out.z)
    return (info_nce(n1, out.p[1], 0.2) + info_nce(n2, out.p[0], 0.2)) / 2


def ressl(m: Any, out: Output) -> float:
    k, z = unit(out.keys[0]), unit(out.z[0])
    return sum(cross_entropy(softmax(m.queue @ k[i] / 0.04), m.queue @ z[i] / 0.1) for i in range(B)) / B


def simclr(m: Any, out: Output) -> float:
    rows = unit(torch.cat(out.z))
    total = 0.0
    for a in range(2 * B):
        others = sum(exp(dot(rows[a], rows[b]) / 0.1) for b in range(2 * B) if b != a)
        total -= log(exp(dot(rows[a], rows[(a + B) % (2 * B)]) / 0.1) / others)
    return total / (2 * B)


def simclr_of_more_crops(m: Any, out: Output) -> float:
    rows, crops, total = unit(torch.cat(out.z)), len(out.z), 0.0
    for a in range(crops * B):
        attracted = [b for b in range(crops * B) if b != a and b % B == a % B]
        repelled = sum(exp(dot(rows[a], rows[c]) / 0.1) for c in range(crops * B) if c % B != a % B)
        for b in attracted:
            pair = exp(dot(rows[a], rows[b]) / 0.1)
            total -= log(pair / (pair + repelled)) / len(attracted)
    return total / (crops * B)


def simsiam(m: Any, out: Output) -> float:
    (p1, p2), (z1, z2) = out.p, out.z
    return -sum(cos(p1[i], z2[i]) + cos(p2[i], z1[i]) for i in range(B)) / (2 * B)


def swav(m: Any, out: Output) -> float:
    total = 0.0
    for u in range(out.full):
        remembered = m.prototypes(m.queue[u, : m.filled]).detach() if m.uses_queue else out.p[u][:0]
        shares = assigned(torch.cat([out.p[u], remembered]), 0.05, 3)
        others = [v for v in range(len(out.p)) if v != u]
        total += sum(cross_entropy(shares[i].tolist(), out.p[v][i] / 0.1) for v in others for i in range(B))
    return total / (out.full * (len(out.p) - 1) * B)


def vicreg(m: Any, out: Output) -> float:
    z1, z2 = out.z
    total = 25 * sum(float((z1[i] - z2[i]).square().sum()) for i in range(B)) / (B * D)
    for z in (z1, z2):
        covariance = torch.cov(z.T)
        total += 25 * sum(max(0.0, 1 - sqrt(float(covariance[d, d]) + 1e-4)) for d in range(D)) / D
        total += sum(float(covariance[d, e]) ** 2 for d in range(D) for e in range(D) if d != e) / D
    return total


def wmse(m: Any, out: Output) -> float:
    w1, w2 = (whitened(z, 0.01) for z in out.z)
    return 2 - 2 * sum(cos(w1[i], w2[i]) for i in range(B)) / B


EQUATIONS: dict[str, Callable[[Any, Output], float]] = {
    "barlow_twins": barlow_twins,
    "byol": byol,
    "deepclusterv2": deepclusterv2,
    "dino": dino,
    "mocov2plus": mocov2plus,
    "nnclr": nnclr,
    "ressl": ressl,
    "simclr": simclr,
    "simsiam": simsiam,
    "swav": swav,
    "vicreg": vicreg,
    "wmse": wmse,
}


def output(crops: int = 2) -> Output:
    """Random projections, predictions and keys; the latter two as wide as the scores where there are prototypes."""
    z, p = ([some(B, D, seed=10 * part + v) for v in range(crops)] for part in (1, 2))
    keys = [some(B, D, seed=30 + v) for v in range(2)]
    return Output(z, z, p, keys, indices=torch.arange(B))


def prepared(name: str, out: Output) -> SSLMethod:
    """A method, and what its forward makes of the random tensors."""
    method = method_of(name)
    assert method.output_dim == D
    if name in ("mocov2plus", "deepclusterv2"):
        out.z, out.keys = [unit(z) for z in out.z], [unit(key) for key in out.keys]
    if name == "ressl":
        out.keys = [unit(out.keys[1])]
    if name in ("swav", "dino"):
        out.p = [some(B, K, seed=40 + v) for v in range(len(out.z))]
        out.keys = [some(B, K, seed=50 + v) for v in range(2)]
    if isinstance(method, METHODS["nnclr"]):
        out.keys = [method.neighbours(z) for z in out.z]  # type: ignore[operator]
    if name == "deepclusterv2":
        method.assignments = torch.tensor([[0, 2, 4, 1]])
    if name == "dino":
        method.criterion.center.copy_(some(1, 1, K, seed=60))  # type: ignore[union-attr, operator]
    method.epoch = 20
    return method


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-3)


def test_every_method_has_an_equation() -> None:
    assert EQUATIONS.keys() == METHODS.keys()


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_what_the_equation_says(name: str) -> None:
    out = output()
    method = prepared(name, out)
    if name == "swav":
        method.queue[:, :3] = unit(some(2, 3, D, seed=70))  # type: ignore[index, operator]
        method.start_epoch(20)
    expected = EQUATIONS[name](method, out)
    with torch.no_grad():
        assert float(method.loss(out, torch.full((B,), -1))) == close(expected)


@pytest.mark.parametrize(
    ("name", "equation"),
    [("dino", dino), ("swav", swav), ("simclr", simclr_of_more_crops), ("deepclusterv2", deepclusterv2)],
)
def test_the_loss_of_more_crops(name: str, equation: Callable[[Any, Output], float]) -> None:
    out = output(crops=4)
    method = prepared(name, out)
    expected = equation(method, out)
    with torch.no_grad():
        assert float(method.loss(out, torch.full((B,), -1))) == close(expected)


def test_the_centre_of_dino() -> None:
    out = output()
    method: Any = prepared("dino", out)
    before = method.criterion.center.flatten().clone()
    method.loss(out, torch.full((B,), -1))
    torch.testing.assert_close(method.criterion.center.flatten(), 0.9 * before + 0.1 * torch.cat(out.keys).mean(dim=0))


DISTILLED: dict[str, Callable[[list[Tensor], list[Tensor]], float]] = {
    "contrastive": lambda z, q: (
        (info_nce(torch.cat(z), torch.cat(q), 0.2) + info_nce(torch.cat(q), torch.cat(z), 0.2)) / 2
    ),
    "predictive": lambda z, q: sum(2 - 2 * cos(z[v][i], q[v][i]) for v in range(2) for i in range(B)) / (2 * B),
    "predictive_mse": lambda z, q: sum(float((z[v] - q[v]).square().sum()) for v in range(2)) / (2 * B * D),
    "decorrelative": lambda z, q: sum(barlow(z[v], q[v], 5e-3, 0.1) for v in range(2)) / 2,
    "soft_label": lambda z, q: (
        sum(cross_entropy(softmax(q[v][i]), z[v][i]) for v in range(2) for i in range(B)) / (2 * B)
    ),
}


@pytest.mark.parametrize("name", DISTILLED)
def test_a_distiller_is_what_the_equation_says(name: str) -> None:
    z, q = ([some(B, D, seed=10 * part + v) for v in range(2)] for part in (1, 2))
    term = FEATURE_DISTILLERS[name](D, no_predictor=True)(z, q)
    assert float(term) == close(DISTILLED[name](z, q))


def test_knowledge_is_what_the_equation_says() -> None:
    z, q = ([some(B, D, seed=10 * part + v) for v in range(2)] for part in (1, 2))
    distiller = Knowledge(D, torch.nn.Linear(D, K, bias=False), no_predictor=True)
    old, new = (each.weight.detach() for each in (distiller.frozen_prototypes, distiller.prototypes))
    terms = [
        cross_entropy(softmax(old @ unit(q[v][i]) / 0.1), new @ unit(z[v][i]) / 0.1) for v in range(2) for i in range(B)
    ]
    assert FEATURE_DISTILLERS.keys() == DISTILLED.keys() | {"knowledge"}
    assert float(distiller(z, q).detach()) == close(sum(terms) / (2 * B))
