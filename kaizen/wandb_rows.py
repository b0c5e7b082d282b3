"""The logged values of a task in a run of WandB."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers.logger import Logger

from kaizen.dashboards import TASK_AXES, define_axes
from kaizen.folders import task_folder
from kaizen.metrics_file import MetricsFile, last_step
from kaizen.wandb_run import Job, attempt, open_run

if TYPE_CHECKING:
    from wandb import Run


class WandbRows(Logger):
    """The rows of `metrics.csv`, each once, also where a stopped task goes on.

    WandB's own step is the number of a row. A run that goes on knows how many it has and gets those that are new, so
    nothing is missing and nothing comes twice. An offline run cannot know, and gets all of them again: its last part
    is whole. A failure ends the logging to WandB and nothing else.

    Args:
        rows: the file, which has each row before this logger hears of it.
        job: what the run is called; its folder is that of the task.
        task_idx: the task.
    """

    name, version = "", ""

    def __init__(self, rows: MetricsFile, job: Job, task_idx: int) -> None:
        super().__init__()
        self.rows, self.job, self.task_idx = rows, job, task_idx
        self.run: Run | None = None
        self.sent, self.earlier_steps, self.works = 0, 0, True

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send what is new in the file."""
        self.use(self._catch_up)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """They are the run's configuration from its start."""

    def use(self, action: Callable[[Run], None]) -> None:
        """Do something with the run, which is opened when it is first needed; nothing once WandB has failed."""
        self.works = self.works and attempt(lambda: action(self._opened()))

    def end(self, more: Callable[[Run], None]) -> None:
        """Send what is left, then `more`, and close the run."""

        def action(run: Run) -> None:
            self._catch_up(run)
            more(run)
            run.finish()

        self.use(action)

    def _opened(self) -> Run:
        if self.run is None:
            tasks = range(self.task_idx)
            folder = self.job.folder.parent
            self.earlier_steps = sum(last_step(task_folder(folder, task) / "metrics.csv") for task in tasks)
            self.run = open_run(self.job)
            define_axes(self.run, TASK_AXES)
            self.sent = self.run.step
        return self.run

    def _catch_up(self, run: Run) -> None:
        while self.sent < len(self.rows.rows):
            row = self.rows.rows[self.sent]  # as text where an earlier process logged it, "" for no value
            values = {name: float(value) for name, value in row.items() if value not in ("", None)}
            step = int(values.pop("step"))
            axes = {"step": self.earlier_steps + step, "step_in_task": step}
            run.log({**values, **axes}, step=self.sent, commit=True)
            self.sent += 1
