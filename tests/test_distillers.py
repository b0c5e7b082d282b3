"""Every distiller with every method, through the learner's own step."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import PAIRS, batch_of, learner_of, state_of
from torch import nn

from kaizen.distillers import (
    CLASSIFIER,
    CLASSIFIER_DISTILLERS,
    FEATURE_DISTILLERS,
    FEATURES,
    Knowledge,
    Predictive,
    SoftLabel,
    build_distiller,
    distiller_flags,
)
from kaizen.learner import ContinualLearner
from kaizen.methods import METHODS

pytestmark = pytest.mark.usefixtures("tiny")

NARROW = ("--feature_extractor_distill_proj_hidden_dim", "8", "--classifier_distill_proj_hidden_dim", "8")


def second_task(*flags: str, method: str = "simclr") -> ContinualLearner:
    return learner_of(*NARROW, *flags, method=method, task_idx=1)


def terms_of(learner: ContinualLearner, seed: int = 0) -> dict[str, float]:
    """The terms of one step, whose gradients stay in the learner."""
    images, _, indices = batch_of()
    learner.method.start_task(((learner.views(each), indices) for each in [images]), num_images=8)
    torch.manual_seed(seed)
    learner.zero_grad()
    learner.training_step({"task": batch_of()}, 0)["loss"].backward()
    return learner.meter.flush()


def touched(module: nn.Module | None) -> bool:
    """Does the gradient of a step reach a module."""
    assert module is not None
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


@pytest.mark.parametrize(("method", "distiller"), PAIRS)
def test_the_feature_term_is_finite_and_part_of_the_loss(method: str, distiller: str) -> None:
    learner = second_task("--distiller", distiller, method=method)
    terms = terms_of(learner)
    assert math.isfinite(terms["distill_features"]) and terms["distill_features"] != 0
    parts = sum(learner.weights[name] * terms[name] for name in ("ssl", "classifier", "distill_features"))
    assert terms["loss"] == pytest.approx(parts, rel=1e-4)


@pytest.mark.parametrize(("method", "distiller"), PAIRS)
def test_the_feature_term_teaches_encoder_projector_and_its_predictor(method: str, distiller: str) -> None:
    learner = second_task("--distiller", distiller, method=method)
    learner.weights |= {"ssl": 0.0, "classifier": 0.0}
    terms_of(learner)
    for module in (learner.method.encoder, learner.method.projector, learner.distill_features):
        assert touched(module)
    assert not touched(learner.classifier)
    if learner.method.momentum is not None:
        assert not touched(learner.method.momentum)
    assert not touched(learner.frozen)


@pytest.mark.parametrize("classifier_loss", [0.0, 1.0])
@pytest.mark.parametrize("method", METHODS)
def test_with_the_stop_gradient_the_classifiers_terms_leave_the_encoder_alone(
    method: str, classifier_loss: float
) -> None:
    learner = second_task("--distiller_classifier", "soft_label", method=method)
    learner.weights |= {"ssl": 0.0, "classifier": classifier_loss}
    assert terms_of(learner)["distill_classifier"] > 0
    assert touched(learner.classifier) and touched(learner.distill_classifier)
    assert not touched(learner.method)


@pytest.mark.parametrize("method", METHODS)
def test_the_classifiers_terms_change_no_gradient_of_the_features(method: str) -> None:
    learner = second_task("--distiller", "contrastive", "--distiller_classifier", "soft_label", method=method)
    state = state_of(learner)
    gradients = []
    for weight in (1.0, 0.0):
        learner.load_state_dict(state)
        learner.weights |= {"classifier": weight, "distill_classifier": weight}
        terms_of(learner)
        gradients.append({name: p.grad for name, p in learner.method.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() != set()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_without_the_stop_gradient_they_reach_the_encoder() -> None:
    flags = ("--classifier_stop_gradient", "False", "--distiller_classifier", "soft_label")
    for name in ("classifier", "distill_classifier"):
        learner = second_task(*flags)
        learner.weights = {key: float(key == name) for key in learner.weights}
        terms_of(learner)
        assert touched(learner.method.encoder) and not touched(learner.method.projector)


@pytest.mark.parametrize(
    ("kind", "flag", "term"),
    [
        (("--distiller", "contrastive"), "--feature_extractor_distill_lamb", "distill_features"),
        (("--distiller", "predictive"), "--feature_extractor_distill_lamb", "distill_features"),
        (("--distiller_classifier", "soft_label"), "--classifier_distill_lamb", "distill_classifier"),
    ],
)
def test_a_weight_scales_a_term_and_0_switches_it_off(kind: tuple[str, str], flag: str, term: str) -> None:
    plain, half, off = (second_task(*kind, flag, weight) for weight in ("1", "0.5", "0"))
    assert terms_of(plain)[term] == pytest.approx(terms_of(half)[term])
    assert plain.weights[term] == 1 and half.weights[term] == 0.5
    assert term not in terms_of(off)
    assert getattr(off, term) is None and off.frozen is None
    groups = {group["name"]: group["lr"] for group in off.parameter_groups()}
    assert term not in groups


@pytest.mark.parametrize("task_idx", [0, 1])
@pytest.mark.parametrize("off", [True, False])
def test_the_first_task_and_no_distill_have_no_teacher(task_idx: int, off: bool) -> None:
    flags = ("--distiller", "contrastive", "--distiller_classifier", "soft_label", *(["--no_distill"] if off else []))
    learner = learner_of(*flags, task_idx=task_idx)
    names = {"distill_features", "distill_classifier"}
    expected = names if task_idx == 1 and not off else set()
    assert terms_of(learner).keys() & names == expected
    assert (learner.frozen is not None) is bool(expected)


def test_a_model_that_has_not_moved_is_at_the_least_of_its_feature_terms() -> None:
    for distiller, least in (("predictive", 0.0), ("predictive_mse", 0.0)):
        learner = second_task("--distiller", distiller, "--feature_extractor_distill_no_predictor")
        assert terms_of(learner)["distill_features"] == pytest.approx(least, abs=1e-5)
        with torch.no_grad():
            for p in learner.method.projector.parameters():
                p.add_(torch.randn_like(p))
        assert terms_of(learner)["distill_features"] > 1e-3


def test_without_a_predictor_nothing_is_added_to_train() -> None:
    learner = second_task("--distiller", "contrastive", "--distill_no_predictior", "True")
    assert learner.distill_features is not None
    assert list(learner.distill_features.parameters()) == []
    assert "distill_features" not in {group["name"] for group in learner.parameter_groups()}
    assert math.isfinite(terms_of(learner)["distill_features"])


def test_the_predictor_is_linear_batchnorm_relu_linear() -> None:
    learner = second_task("--distiller", "contrastive")
    assert learner.distill_features is not None
    predictor = learner.distill_features.predictor
    assert isinstance(predictor, nn.Sequential)
    assert [type(layer) for layer in predictor] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert (predictor[0].in_features, predictor[0].out_features, predictor[3].out_features) == (6, 8, 6)


@pytest.mark.parametrize(("kind", "lamb", "factor"), [(Predictive, 0.5, 2), (SoftLabel, 0.25, 4), (Predictive, 2, 1)])
def test_a_weight_below_1_leaves_the_predictor_at_full_speed(
    kind: type[Predictive], lamb: float, factor: float
) -> None:
    assert kind(4, lamb=lamb).lr_factor == factor


def test_the_predictors_rate_reaches_the_optimizer() -> None:
    learner = second_task("--distiller", "predictive", "--feature_extractor_distill_lamb", "0.5", "--lr", "1")
    rates = {group["name"]: group["lr"] for group in learner.parameter_groups()}
    assert rates["encoder"] == pytest.approx(64 / 256)
    assert rates["distill_features"] == pytest.approx(2 * rates["encoder"])


# Values


def views(*shape: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return tuple([torch.randn(shape, generator=generator) for _ in range(2)] for _ in range(2))  # type: ignore[return-value]


def bare(name: str, **options: object) -> nn.Module:
    return CLASSIFIER_DISTILLERS[name](4, no_predictor=True, **options)  # type: ignore[arg-type]


def test_contrastive_finds_each_row_among_all_frozen_rows_and_the_other_way_round() -> None:
    current, frozen = views(5, 4)
    z, q = (F.normalize(torch.cat(each), dim=1) for each in (current, frozen))
    rows = [(a[i] @ b.T / 0.5).log_softmax(0)[i] for a, b in ((z, q), (q, z)) for i in range(10)]
    torch.testing.assert_close(bare("contrastive", temperature=0.5)(current, frozen), -torch.stack(rows).mean())


def test_predictive_mse_is_the_mean_square_and_predictive_2_minus_2_cos() -> None:
    current, frozen = views(5, 4)
    z, q = torch.cat(current), torch.cat(frozen)
    torch.testing.assert_close(bare("predictive_mse")(current, frozen), ((z - q) ** 2).mean())
    cosines = F.cosine_similarity(z, q, dim=1)
    torch.testing.assert_close(bare("predictive")(current, frozen), 2 - 2 * cosines.mean())


def test_soft_label_is_cross_entropy_at_temperature_1_and_least_for_equal_logits() -> None:
    current, frozen = views(5, 4)
    expected = -(torch.cat(frozen).softmax(1) * torch.cat(current).log_softmax(1)).sum(1).mean()
    term = bare("soft_label")
    torch.testing.assert_close(term(current, frozen), expected)
    assert term(frozen, frozen) < term(current, frozen)


def test_knowledge_is_cross_entropy_between_assignments_to_new_and_to_frozen_prototypes() -> None:
    current, frozen = views(5, 4)
    prototypes, later = nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False)
    term = Knowledge(4, prototypes, no_predictor=True, temperature=0.5)
    term.keep_teacher(later)
    assert not any(p.requires_grad for p in term.frozen_prototypes.parameters())
    scores = F.normalize(torch.cat(current), dim=1) @ term.prototypes.weight.T / 0.5
    target = (F.normalize(torch.cat(frozen), dim=1) @ later.weight.T / 0.5).softmax(1)
    torch.testing.assert_close(term(current, frozen), -(target * scores.log_softmax(1)).sum(1).mean())


def test_decorrelative_is_barlow_twins_between_current_and_frozen() -> None:
    current, frozen = views(5, 4)
    losses = []
    for z, q in zip(current, frozen, strict=True):
        z, q = ((t - t.mean(0)) / (t.var(0, unbiased=False) + 1e-5).sqrt() for t in (z, q))
        square = (z.T @ q / 5 - torch.eye(4)) ** 2
        losses.append(0.3 * (square.diagonal().sum() + 0.5 * (square.sum() - square.diagonal().sum())))
    term = bare("decorrelative", barlow_lamb=0.5, scale_loss=0.3)
    torch.testing.assert_close(term(current, frozen), torch.stack(losses).mean())


def test_flags_carry_the_prefix_and_cassles_spelling_as_an_alias() -> None:
    flags = {item.name: item for item in distiller_flags(FEATURE_DISTILLERS["contrastive"], FEATURES)}
    assert flags["feature_extractor_distill_temperature"].aliases == ("distill_temperature",)
    assert "distill_no_predictior" in flags["feature_extractor_distill_no_predictor"].aliases
    assert all(item.help for item in flags.values())
    built = build_distiller(
        SoftLabel, CLASSIFIER, 4, {"classifier_distill_lamb": 0.3, "feature_extractor_distill_lamb": 7.0, "lr": 1}
    )
    assert built.lamb == 0.3
