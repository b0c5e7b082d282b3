"""Where logged values go: a CSV file beside the checkpoint, and WandB when asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaizen.args import Args
from kaizen.wandb_run import in_sweep

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger


def build_loggers(args: Args, folder: Path, group: str, task_idx: int, keep: int | None) -> list[Logger]:
    """The loggers of one task: `metrics.csv` in its folder, and one WandB run in the experiment's group.

    Args:
        args: the experiment's flags.
        folder: of the task.
        group: the experiment's name.
        task_idx: the task.
        keep: rows of `metrics.csv` that stay; None for all.
    """
    from kaizen.metrics_file import MetricsFile

    rows = MetricsFile(folder / "metrics.csv", keep)
    if not args.wandb or in_sweep():  # the one run that a sweep has for all tasks is that of the experiment
        return [rows]
    from kaizen.dashboards import config_of
    from kaizen.wandb_rows import WandbRows
    from kaizen.wandb_run import Job, tags_of

    config = config_of(folder.parent, task=task_idx)
    return [rows, WandbRows(rows, Job(args, folder, group, f"task{task_idx}", tags_of(args), config), task_idx)]


def log_task(loggers: list[Logger], args: Args, folder: Path, results: dict[str, Any], task_idx: int) -> None:
    """With --wandb, close the run of a task that is through, and show the results in that of the experiment.

    Args:
        loggers: of the task.
        args: the experiment's flags.
        folder: the experiment's.
        results: from `kaizen.report.collect`.
        task_idx: the task.
    """
    if not args.wandb:
        return
    from kaizen.dashboards import log_experiment, task_end
    from kaizen.wandb_rows import WandbRows

    for logger in loggers:
        if isinstance(logger, WandbRows):
            logger.end(lambda run: task_end(run, folder, task_idx))
    log_experiment(args, folder, results)
