from __future__ import annotations

import math
from typing import Any

import pytest

from kaizen import metrics
from kaizen.metrics import METRICS, summarize

MATRIX = [
    [0.8, 0.1, 0.2],
    [0.6, 0.9, 0.3],
    [0.5, 0.7, 0.6],
]
BASELINE = [0.2, 0.05, 0.1]


def test_final_accuracy() -> None:
    assert metrics.final_accuracy(MATRIX) == pytest.approx((0.5 + 0.7 + 0.6) / 3)


def test_continual_accuracy_counts_seen_tasks_only() -> None:
    assert metrics.continual_accuracy(MATRIX) == pytest.approx((0.8 + (0.6 + 0.9) / 2 + 1.8 / 3) / 3)


def test_forgetting_is_measured_from_the_best_earlier_accuracy() -> None:
    assert metrics.forgetting(MATRIX) == pytest.approx(((0.8 - 0.5) + (0.9 - 0.7)) / 2)


def test_forgetting_differs_from_backward_transfer_when_a_task_improves_later() -> None:
    matrix = [[0.4, 0.0, 0.0], [0.7, 0.9, 0.0], [0.5, 0.9, 0.6]]
    assert metrics.forgetting(matrix) == pytest.approx(((0.7 - 0.5) + (0.9 - 0.9)) / 2)
    assert metrics.backward_transfer(matrix) == pytest.approx(((0.5 - 0.4) + (0.9 - 0.9)) / 2)


def test_forgetting_may_be_negative_and_looks_at_tasks_before_their_training() -> None:
    improved = [[0.4, 0.1], [0.6, 0.9]]
    assert metrics.forgetting(improved) == pytest.approx(-0.2)
    best_before_training = [[0.5, 0.8, 0.0], [0.5, 0.6, 0.0], [0.5, 0.6, 0.9]]
    assert metrics.forgetting(best_before_training) == pytest.approx((0.0 + (0.8 - 0.6)) / 2)


def test_backward_transfer() -> None:
    assert metrics.backward_transfer(MATRIX) == pytest.approx(((0.5 - 0.8) + (0.7 - 0.9)) / 2)


def test_forward_transfer_compares_with_the_untrained_network() -> None:
    assert metrics.forward_transfer(MATRIX, BASELINE) == pytest.approx(((0.1 - 0.05) + (0.3 - 0.1)) / 2)


def test_summarize_has_every_metric_under_its_name() -> None:
    summary = summarize(MATRIX, BASELINE)
    assert list(summary) == [
        "final_accuracy",
        "continual_accuracy",
        "forgetting",
        "backward_transfer",
        "forward_transfer",
    ]
    assert summary == {name: metric(MATRIX, BASELINE) for name, metric in METRICS.items()}


def test_a_run_in_progress_equals_a_shorter_run() -> None:
    square = [row[:2] for row in MATRIX[:2]]
    assert summarize(MATRIX[:2], BASELINE) == summarize(square, BASELINE[:2])


def test_a_single_task_leaves_the_comparisons_undefined() -> None:
    assert summarize(MATRIX[:1], BASELINE) == {
        "final_accuracy": 0.8,
        "continual_accuracy": 0.8,
        "forgetting": None,
        "backward_transfer": None,
        "forward_transfer": None,
    }


def test_without_baseline_only_forward_transfer_is_undefined() -> None:
    summary = summarize(MATRIX, None)
    assert [name for name, value in summary.items() if value is None] == ["forward_transfer"]


def test_perfect_memory() -> None:
    summary = summarize([[1, 0, 0], [1, 1, 0], [1, 1, 1]], [0, 0, 0])
    assert summary == {
        "final_accuracy": 1,
        "continual_accuracy": 1,
        "forgetting": 0,
        "backward_transfer": 0,
        "forward_transfer": 0,
    }


def test_a_new_metric_needs_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "worst_task", lambda matrix, baseline: min(matrix[-1][: len(matrix)]))
    assert summarize(MATRIX[:2], None)["worst_task"] == 0.6


@pytest.mark.parametrize(
    ("matrix", "baseline", "message"),
    [
        ([], None, "matrix is empty"),
        ([[0.5, 0.5], [0.5]], None, r"matrix\[1\] has 1 values, expected 2"),
        ([[0.5], [0.5]], None, "matrix has 2 rows but 1 columns"),
        ([[0.5, 1.2]], None, r"matrix\[0\]\[1\] is 1.2"),
        ([[0.5, 0.5], [-0.1, 0.5]], None, r"matrix\[1\]\[0\] is -0.1"),
        ([[math.nan, 0.5]], None, r"matrix\[0\]\[0\] is nan"),
        ([[0.5, math.inf]], None, r"matrix\[0\]\[1\] is inf"),
        ([[0.5, None]], None, r"matrix\[0\]\[1\] is None"),
        ([[0.5, 0.5]], [0.1], r"baseline has 1 values, expected 2"),
        ([[0.5, 0.5]], [0.1, math.nan], r"baseline\[1\] is nan"),
    ],
)
def test_bad_input_is_refused_with_its_place(matrix: list[Any], baseline: list[float] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        summarize(matrix, baseline)
