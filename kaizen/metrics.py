"""Continual-learning metrics: pure functions on an accuracy matrix.

``A[i][j]`` is the accuracy (a fraction in 0-1) on the test images of task ``j`` after training on task ``i``;
``R[j]`` is the accuracy of the untrained network on task ``j``. Indices start at 0.

Every row of ``A`` has one column per task of the experiment. A run in progress has fewer rows: with ``n``
rows, the metrics speak of the first ``n`` tasks alone, as if the experiment ended there; ``T`` is then ``n``.

To add a metric, write one function ``(matrix, baseline) -> float | None`` and name it in `METRICS`: results
file, CSV and terminal tables follow. `summarize` has checked what the function receives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from statistics import fmean

Row = Sequence[float]
Matrix = Sequence[Row]


def seen_accuracy(row: Row, task_idx: int) -> float:
    """Mean accuracy over the tasks seen so far: ``mean_{j<=i} A[i][j]``, with ``i`` the task just trained.

    Args:
        row: accuracies in 0-1 after it, ``A[i]``, (T,).
        task_idx: ``i``.

    Returns:
        A fraction in 0-1.
    """
    return fmean(row[: task_idx + 1])


def final_accuracy(matrix: Matrix, baseline: Row | None = None) -> float:
    """Mean accuracy over all seen tasks after the last one: ``mean_j A[T-1][j]``.

    Source: "average accuracy" (ACC) in Lopez-Paz & Ranzato, *Gradient Episodic Memory for Continual Learning*
    (GEM), NeurIPS 2017, arXiv 1706.08840.

    Args:
        matrix: accuracies in 0-1, (n, T).
        baseline: not used.

    Returns:
        A fraction in 0-1.
    """
    return seen_accuracy(matrix[-1], len(matrix) - 1)


def continual_accuracy(matrix: Matrix, baseline: Row | None = None) -> float:
    """Mean over the whole run of the accuracy on what was seen so far: ``mean_i mean_{j<=i} A[i][j]``.

    It asks how good the model was at any time, not only at the end.

    Source: Tang et al., *Kaizen: Practical Self-Supervised Continual Learning with Continual Fine-Tuning*,
    WACV 2024, which extends the evaluation of Fini et al., *Self-Supervised Models are Continual Learners*
    (CaSSLe), CVPR 2022.

    Args:
        matrix: accuracies in 0-1, (n, T).
        baseline: not used.

    Returns:
        A fraction in 0-1.
    """
    return fmean(seen_accuracy(row, i) for i, row in enumerate(matrix))


def forgetting(matrix: Matrix, baseline: Row | None = None) -> float | None:
    """What the last training took from each earlier task: ``mean_{j<T-1} (max_{i<T-1} A[i][j] - A[T-1][j])``.

    Lower is better, below 0 means that old tasks improved. None with a single task.

    Source: Chaudhry et al., *Riemannian Walk for Incremental Learning*, ECCV 2018, arXiv 1801.10112.

    Args:
        matrix: accuracies in 0-1, (n, T).
        baseline: not used.

    Returns:
        A number from -1 to 1, or None.
    """
    *earlier, last = matrix
    if not earlier:
        return None
    return fmean(max(row[j] for row in earlier) - last[j] for j in range(len(earlier)))


def backward_transfer(matrix: Matrix, baseline: Row | None = None) -> float | None:
    """How later training changed each task since it was learned: ``mean_{j<T-1} (A[T-1][j] - A[j][j])``.

    Higher is better, below 0 means forgetting. None with a single task.

    Source: "backward transfer" (BWT) in Lopez-Paz & Ranzato, NeurIPS 2017.

    Args:
        matrix: accuracies in 0-1, (n, T).
        baseline: not used.

    Returns:
        A number from -1 to 1, or None.
    """
    *earlier, last = matrix
    if not earlier:
        return None
    return fmean(last[j] - row[j] for j, row in enumerate(earlier))


def forward_transfer(matrix: Matrix, baseline: Row | None = None) -> float | None:
    """What earlier tasks gave to each task before its own training: ``mean_{j>=1} (A[j-1][j] - R[j])``.

    Higher is better. None with a single task or without a baseline.

    Source: "forward transfer" (FWT) in Lopez-Paz & Ranzato, NeurIPS 2017.

    Args:
        matrix: accuracies in 0-1, (n, T).
        baseline: accuracies of the untrained network, (T,), or None.

    Returns:
        A number from -1 to 1, or None.
    """
    if baseline is None or len(matrix) == 1:
        return None
    return fmean(matrix[j - 1][j] - baseline[j] for j in range(1, len(matrix)))


def has_baseline(head: str, labels: str) -> bool:
    """Can the untrained network be judged as later ones are, so that forward transfer compares the two.

    A probe would be as untrained as the network; and what judges by labels needs, from the start, those of all tasks.

    Args:
        head: its name, or that of the protocol.
        labels: whose labels k nearest neighbours and linear evaluation see.
    """
    return head == "classifier" or (head in ("knn", "linear") and labels == "all_tasks")


METRICS: dict[str, Callable[[Matrix, Row | None], float | None]] = {
    "final_accuracy": final_accuracy,
    "continual_accuracy": continual_accuracy,
    "forgetting": forgetting,
    "backward_transfer": backward_transfer,
    "forward_transfer": forward_transfer,
}
HEADLINE = ("final_accuracy", "continual_accuracy", "forgetting")  # to see first; 80 columns have room for them


def summarize(matrix: Matrix, baseline: Row | None) -> dict[str, float | None]:
    """Compute every metric of `METRICS`.

    Args:
        matrix: accuracies in 0-1, shape (n, T), 1 <= n <= T: a row per finished task, a column per task.
        baseline: accuracies of the untrained network, shape (T,), or None when it was not measured.

    Returns:
        Metric name -> value, in the order of `METRICS`; None where a metric is undefined.

    Raises:
        ValueError: naming the place, if a shape is wrong or a value is not a finite number in 0-1.
    """
    check_matrix(matrix)
    if baseline is not None:
        check_row(baseline, len(matrix[0]), "baseline")
    return {name: metric(matrix, baseline) for name, metric in METRICS.items()}


def check_matrix(matrix: Matrix) -> None:
    """Raise ValueError, naming the place, unless ``matrix`` holds accuracies, shape (n, T), 1 <= n <= T."""
    if not matrix:
        raise ValueError("matrix is empty: at least one task must be finished")
    num_tasks = len(matrix[0])
    for i, row in enumerate(matrix):
        check_row(row, num_tasks, f"matrix[{i}]")
    if len(matrix) > num_tasks:
        raise ValueError(f"matrix has {len(matrix)} rows but {num_tasks} columns: one row per trained task at most")


def check_row(row: Row, num_tasks: int, name: str) -> None:
    """Raise ValueError, beginning with ``name``, unless ``row`` holds ``num_tasks`` accuracies in 0-1."""
    if len(row) != num_tasks:
        raise ValueError(f"{name} has {len(row)} values, expected {num_tasks}: one per task")
    for j, value in enumerate(row):
        if not (isinstance(value, Real) and 0 <= value <= 1):  # also refuses NaN, which compares false
            raise ValueError(f"{name}[{j}] is {value!r}: an accuracy is a finite fraction in 0-1")
