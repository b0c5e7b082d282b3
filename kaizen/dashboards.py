"""What the dashboards of WandB show: names, axes, pictures, tables and files. `docs/wandb.md` describes them."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaizen import plots
from kaizen.args import Args, shorten
from kaizen.files import read_json
from kaizen.folders import task_folder
from kaizen.metrics import METRICS, summarize
from kaizen.wandb_run import Job, attempt, lasting_token, open_run, tags_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from wandb import Image, Run

# WandB makes a section of what stands before the first "/". Steps go on from task to task, so that the runs of a group
# follow each other in a chart, and are one line where runs are grouped.
TASK_AXES = {f"{section}/*": "step" for section in ("train", "lr", "val", "samples")}
EXPERIMENT_AXES = {
    f"{section}/*": "task" for section in ("continual", "accuracy", "matrix", "plots", "tables", "report")
}


def define_axes(run: Run, axes: dict[str, str]) -> None:
    """Tell WandB the x axis of each section; the axes themselves get no chart."""
    for axis in ("step", "step_in_task", "task"):
        run.define_metric(axis, hidden=True)
    for section, axis in axes.items():
        run.define_metric(section, step_metric=axis)


def config_of(folder: Path, **more: Any) -> dict[str, Any]:
    """An experiment's flags, tasks, seeds and versions, and its name."""
    about = read_json(folder / "experiment.json")
    kept = {name: about[name] for name in ("tasks", "task_names", "seeds", "versions")}
    return {**about["flags"], **kept, "experiment": folder.name, **more}


# The end of a task.


def task_end(run: Run, folder: Path, task_idx: int) -> None:
    """To the run of a task: samples of its views, and where a server is there its model."""
    import wandb

    if (views := task_folder(folder, task_idx) / "views.png").exists():
        run.log({"samples/views": wandb.Image(str(views))})
    upload(run, "model", folder, [task_folder(folder, task_idx) / "final.ckpt"], task_idx)


def log_experiment(args: Args, folder: Path, results: dict[str, Any]) -> None:
    """To the run of the experiment, which goes on from task to task: what there is after this one.

    Args:
        args: the experiment's flags.
        folder: the experiment's.
        results: from `kaizen.report.collect`.
    """

    def action() -> None:
        run = open_run(Job(args, folder, folder.name, "experiment", tags_of(args), config_of(folder)))
        show_results(run, folder, results)
        files = [folder / name for name in ("experiment.json", "results.json", "results.csv")]
        upload(run, "results", folder, files, results["tasks_done"] - 1)
        run.finish()

    attempt(action)


def show_results(run: Run, folder: Path, results: dict[str, Any]) -> None:
    """One row for each finished task that the run does not have, and one for the last in any case, with pictures.

    The last may be there already: of a model that was deleted and trained anew.
    """
    define_axes(run, EXPERIMENT_AXES)
    done, there = results["tasks_done"], run.step
    for task in range(min(there, done - 1), done):
        media = pictures(results, folder) | tables(results) if task == done - 1 else {}
        run.log({**numbers(results, task + 1), **media}, step=max(task, there), commit=True)


def numbers(results: dict[str, Any], done: int) -> dict[str, float]:
    """By name, what was known when `done` tasks were through."""
    values: dict[str, float] = {"task": done}
    for head, found in results["heads"].items():
        matrix = found["accuracy_matrix"][:done]
        for name, value in summarize(matrix, found["baseline"]).items():
            if value is not None:
                values[f"continual/{head}/{name}"] = value
        values |= {f"accuracy/{head}/task{j}": value for j, value in enumerate(matrix[-1])}
    return values


def pictures(results: dict[str, Any], folder: Path) -> dict[str, Any]:
    """By name, the accuracy matrices and curves, and of the experiment's folder its embedding and report."""
    import wandb

    shown: dict[str, Any] = {}
    for head, found in results["heads"].items():
        shown[f"matrix/{head}"] = _image(plots.accuracy_matrix(head, found, results["task_names"]))
        shown[f"plots/accuracy_over_tasks_{head}"] = _image(
            plots.accuracy_over_tasks(head, found, results["task_names"])
        )
    embedding = folder / "plots" / f"embedding_task{results['tasks_done'] - 1}.png"
    if embedding.exists():
        shown["plots/embedding"] = wandb.Image(str(embedding))
    if (report := folder / "report.html").exists():
        shown["report/experiment"] = wandb.Html(str(report))
    return shown


def tables(results: dict[str, Any]) -> dict[str, Any]:
    """By name, the accuracy matrix of each head, and one table of all metrics."""
    import wandb

    names = [f"{j}: {shorten(name, 40)}" for j, name in enumerate(results["task_names"])]
    shown: dict[str, Any] = {}
    for head, found in results["heads"].items():
        rows = [[f"task {i}", *row] for i, row in enumerate(found["accuracy_matrix"])]
        shown[f"tables/matrix_{head}"] = wandb.Table(columns=["after training", *names], data=rows)
    if results["heads"]:
        rows = [[head, *(found[name] for name in METRICS)] for head, found in results["heads"].items()]
        shown["tables/metrics"] = wandb.Table(columns=["head", *METRICS], data=rows)
    return shown


def upload(run: Run, kind: str, folder: Path, files: list[Path], task_idx: int) -> None:
    """Files as a new version of the experiment's artifact of this kind; none where no server takes them.

    Args:
        run: that made them.
        kind: the artifact's type, and the start of its name.
        folder: the experiment's.
        files: which do not change any more.
        task_idx: the task after which, for the alias.
    """
    import wandb

    if run.offline or run.disabled:
        return
    artifact = wandb.Artifact(f"{kind}-{lasting_token(folder, folder.name)}", type=kind, metadata={"task": task_idx})
    for path in files:
        artifact.add_file(str(path), path.name, skip_cache=True)
    run.log_artifact(artifact, aliases=["latest", f"task{task_idx}"])


# Evaluations.


def log_evaluation(args: Args, model: Args, folder: Path, settings: dict[str, Any], results: dict[str, Any]) -> None:
    """To a run of its own in the experiment's group: the results with the heads that were evaluated.

    Args:
        args: flags of the evaluation; name, project and entity are the experiment's if they are not given.
        model: the experiment's.
        folder: the experiment's.
        settings: of the evaluation.
        results: from `kaizen.report.collect`.
    """
    same = {flag: getattr(model, flag) for flag in ("name", "project", "entity") if flag not in args.given}

    def action() -> None:
        place, config = replace(args, **same), config_of(folder, evaluation=settings)
        run = open_run(Job(place, folder, folder.name, "evaluation", tags_of(model), config, goes_on=False))
        show_results(run, folder, results)
        run.finish()

    if args.wandb:
        attempt(action)


def log_checkpoint(args: Args, model: Args, folder: Path, settings: dict[str, Any], results: dict[str, Any]) -> None:
    """To a run of its own: the accuracies of one checkpoint.

    Args:
        args: flags of the evaluation.
        model: flags of the checkpoint.
        folder: for what WandB writes.
        settings: of the evaluation.
        results: head -> accuracies, those by task and those that are one number.
    """

    def action() -> None:
        about = ("encoder", "dataset", "split_strategy", "num_tasks")
        config = {**{name: getattr(model, name) for name in about}, "evaluation": settings}
        tags = [model.encoder, model.dataset]
        run = open_run(Job(args, folder, args.name, "evaluation", tags, config, goes_on=False))
        for head, found in results.items():
            by_task = {f"accuracy/{head}/task{j}": value for j, value in enumerate(found["accuracy_by_task"])}
            overall = {f"continual/{head}/{name}": value for name, value in found.items() if isinstance(value, float)}
            run.summary.update({**by_task, **overall})
        run.finish()

    if args.wandb:
        attempt(action)


def _image(figure: Figure) -> Image:
    import wandb
    from PIL import Image as Pixels

    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=110, bbox_inches="tight", pad_inches=0.15)
    return wandb.Image(Pixels.open(stream))
