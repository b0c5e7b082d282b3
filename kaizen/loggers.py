"""Where logged values go: a CSV file beside the checkpoint, and WandB when asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaizen.args import Args, UsageError
from kaizen.cli import flags_of

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
    return [rows, *_wandb_run(args, folder, group, f"task{task_idx}", flags_of(args))]


def evaluation_logger(args: Args, folder: Path, group: str, protocol: dict[str, Any]) -> list[Logger]:
    """For --wandb, one run of its own in the experiment's group.

    Args:
        args: flags of the evaluation.
        folder: for what WandB writes.
        group: the experiment's name, or that of the evaluation.
        protocol: the configuration that WandB shows.
    """
    return _wandb_run(args, folder, group, "evaluation", protocol)


def _wandb_run(args: Args, folder: Path, group: str, job: str, config: dict[str, Any]) -> list[Logger]:
    """One run of a group, which is also named after its job; none without --wandb."""
    if not args.wandb:
        return []
    from pytorch_lightning.loggers import WandbLogger

    run = WandbLogger(
        project=args.project,
        entity=args.entity,
        offline=is_offline(args),
        group=group,
        job_type=job,
        name=f"{args.name}-{job}",
        save_dir=folder,
        config=config,
    )
    return [run]


def log_results(loggers: list[Logger], results: dict[str, Any], folder: Path) -> None:
    """To WandB: accuracies after this task, and once all tasks are through the matrix, the metrics and the plots."""
    from pytorch_lightning.loggers import WandbLogger

    for logger in loggers:
        if not isinstance(logger, WandbLogger):
            continue
        import wandb

        run, names = logger.experiment, results["task_names"]
        finished = results["tasks_done"] == results["num_tasks"]
        for head, found in results["heads"].items():
            last = found["accuracy_matrix"][-1]
            run.log({f"accuracy/{head}/task{j}": value for j, value in enumerate(last)})
            if finished:
                rows = [[f"after task {i}", *row] for i, row in enumerate(found["accuracy_matrix"])]
                run.log({f"matrix/{head}": wandb.Table(columns=["", *names], data=rows)})
                metrics = {k: v for k, v in found.items() if isinstance(v, float)}
                run.summary.update({f"{head}/{name}": value for name, value in metrics.items()})
        pattern = "*.png" if finished else f"embedding_task{results['tasks_done'] - 1}.png"
        pictures = sorted((folder / "plots").glob(pattern))
        run.log({f"plots/{path.stem}": wandb.Image(str(path)) for path in pictures})
        run.finish()


def log_one(loggers: list[Logger], results: dict[str, dict[str, Any]]) -> None:
    """To WandB: the accuracies of one checkpoint, by head."""
    from pytorch_lightning.loggers import WandbLogger

    for logger in loggers:
        assert isinstance(logger, WandbLogger)
        for head, found in results.items():
            by_task = {f"accuracy/{head}/task{j}": value for j, value in enumerate(found["accuracy_by_task"])}
            overall = {f"{head}/{name}": value for name, value in found.items() if isinstance(value, float)}
            logger.experiment.summary.update({**by_task, **overall})
        logger.experiment.finish()


def is_offline(args: Args) -> bool:
    """By --offline, or by WandB's own variable."""
    return args.offline or os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled")


def check_wandb(args: Args) -> None:
    """Raises UsageError where WandB is asked for online without a key."""
    if not args.wandb or is_offline(args):
        return
    import wandb

    try:
        known = wandb.login(prompt=False, verify=False)
    except TypeError:  # an older WandB, which cannot be asked without a prompt
        known = wandb.api.api_key is not None
    if not known:
        raise UsageError(
            "--wandb: no WandB key on this machine; run `wandb login`, set WANDB_API_KEY, or add --offline"
        )
