"""What a run sends to WandB, read back from offline runs; docs/wandb.md has the names, and no others are sent."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import args_of, command_line, run_experiment, tiny_encoder
from PIL import Image
from wandb_files import OfflineRun, offline_runs

from kaizen import evaluate
from kaizen.dashboards import show_results, upload
from kaizen.files import read_json
from kaizen.metrics_file import MetricsFile
from kaizen.models.encoders import ENCODERS
from kaizen.wandb_rows import WandbRows
from kaizen.wandb_run import Job, is_offline, lasting_token, open_run, tags_of

pytestmark = [
    pytest.mark.usefixtures("tiny"),
    pytest.mark.filterwarnings("ignore"),  # of WandB's and Lightning's own
]

ROOT = Path(__file__).resolve().parent.parent
FLAGS = command_line(
    *("--wandb", "--offline", "--num_tasks", "2", "--name", "trial", "--project", "p", "--log_every_n_steps", "5"),
    *("--distiller", "contrastive", "--distiller_classifier", "soft_label"),
    method="mocov2plus",
)


@pytest.fixture(autouse=True)
def nobodys_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import wandb

    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()  # it reads the environment once
    yield
    wandb.teardown()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with everything that the dashboards can show."""
    folder = tmp_path_factory.mktemp("experiments") / "run"
    for path in ("task0/views.png", "task1/views.png", "plots/embedding_task1.png"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / path)
    (folder / "report.html").write_text("<p>all of it</p>")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "tiny", tiny_encoder)
        run_experiment(FLAGS, folder)
        evaluate.run(["--experiment", str(folder), "--protocol", "classifier", "--wandb", "--offline"])
    return folder


def runs_by_kind(folder: Path) -> dict[str, OfflineRun]:
    """The newest run of each job type."""
    runs = [run for place in (folder / "task0", folder / "task1", folder) for run in offline_runs(place)]
    return {run.about.job_type: run for run in runs}


def documented() -> list[tuple[re.Pattern[str], str, str]]:
    """(pattern of a name, axis, run) for each line of the table in docs/wandb.md."""
    text = (ROOT / "docs" / "wandb.md").read_text(encoding="utf-8").split("## Names and axes")[1]
    lines = re.findall(r"^\| `(\S+)` \| `(\w+)` \| (\w+) \|", text, re.MULTILINE)
    return [(re.compile(re.sub(r"<\w+>", "[^/]+", name)), axis, run) for name, axis, run in lines]


def test_names_and_axes_are_those_of_the_documentation(trained: Path) -> None:
    table, runs = documented(), runs_by_kind(trained)
    assert len(table) == 12 and set(runs) == {"task0", "task1", "experiment", "evaluation"}
    used = set()
    for kind, run in runs.items():
        assert run.hidden == {"step", "step_in_task", "task"}
        lines = [line for line in table if line[2] == ("task" if kind.startswith("task") else "experiment")]
        for name in run.names() - run.hidden:
            found = [line for line in lines if line[0].fullmatch(name)]
            assert len(found) == 1, f"{kind}: {name} is not in docs/wandb.md"
            assert run.axes[name.split("/")[0] + "/*"] == found[0][1], name
            used.add(found[0])
        axis = "step" if kind.startswith("task") else "task"
        assert all(axis in row for row in run.history if any("/" in name for name in row))
    assert used == set(table), "docs/wandb.md names what nobody sends"


def test_runs_find_their_place(trained: Path) -> None:
    runs = runs_by_kind(trained)
    for kind, run in runs.items():
        about = run.about
        assert (about.run_group, about.project, about.display_name) == ("run", "p", f"trial-{kind}")
        assert list(about.tags) == ["mocov2plus", "tiny", "digits", "kaizen"]
        assert kind == "evaluation" or about.run_id.endswith(f"-{kind}")
        known = read_json(trained / "experiment.json")
        for part in ("tasks", "task_names", "seeds", "versions"):
            assert run.config[part] == known[part]
        assert {name: run.config[name] for name in known["flags"]} == known["flags"]
        assert run.config["experiment"] == "run"
    assert [runs[kind].config["task"] for kind in ("task0", "task1")] == [0, 1]
    assert runs["evaluation"].config["evaluation"]["protocol"] == "classifier"
    assert len({run.about.run_id for run in runs.values()}) == 4


def test_steps_go_on_over_the_tasks(trained: Path) -> None:
    runs = runs_by_kind(trained)
    first, second = runs["task0"], runs["task1"]
    assert first.values("step")[0] == 5 and first.values("step_in_task") == first.values("step")[:-1]
    offset = max(first.values("step"))
    assert [step - offset for step in second.values("step")[:-1]] == second.values("step_in_task")
    assert len(second.values("train/loss")) == 3 and "val/classifier/task0" in second.names()


def test_the_experiment_shows_its_results_over_tasks(trained: Path) -> None:
    run, heads = runs_by_kind(trained)["experiment"], read_json(trained / "results.json")["heads"]
    assert run.values("task") == [1, 2]
    for head, found in heads.items():
        matrix = found["accuracy_matrix"]
        for j in range(2):
            assert run.values(f"accuracy/{head}/task{j}") == [row[j] for row in matrix]
        assert run.values(f"continual/{head}/forgetting") == [found["forgetting"]]
        assert run.values(f"continual/{head}/final_accuracy") == [matrix[0][0], found["final_accuracy"]]
        assert [picture["_type"] for picture in run.values(f"matrix/{head}")] == ["image-file"]
        (table,) = run.values(f"tables/matrix_{head}")
        assert (table["_type"], table["nrows"], table["ncols"]) == ("table-file", 2, 3)
    assert run.values("report/experiment")[0]["_type"] == "html-file"
    assert "model" not in run.artifacts  # a server would have to be there


def job(folder: Path, **more: Any) -> Job:
    return Job(args_of("--wandb", "--offline", "--name", "n"), folder, "group", "task0", ["a"], {}, **more)


def begin(folder: Path, keep: int) -> tuple[MetricsFile, WandbRows]:
    rows = MetricsFile(folder / "metrics.csv", keep)
    return rows, WandbRows(rows, job(folder), 0)


def log(rows: MetricsFile, logger: WandbRows, *steps: int) -> None:
    for step in steps:
        for one in (rows, logger):
            one.log_metrics({"train/loss": step / 8, **({"train/tau": 0.5} if step > 2 else {})}, step=step)


def test_a_stopped_task_goes_on_in_its_run_and_its_last_part_is_whole(tmp_path: Path) -> None:
    (tmp_path / "task0").mkdir()
    rows, logger = begin(tmp_path / "task0", 0)
    log(rows, logger, 1, 2, 3)
    logger.use(lambda run: run.finish())
    time.sleep(1)  # for another folder, whose name has the second in it
    rows, logger = begin(tmp_path / "task0", 2)  # it had been saved after the second
    log(rows, logger, 3, 4)
    logger.end(lambda run: None)
    first, second = offline_runs(tmp_path / "task0")
    assert first.about.run_id == second.about.run_id
    assert second.values("step") == [1, 2, 3, 4] and second.values("_step") == [0, 1, 2, 3]
    assert second.values("train/loss") == [0.125, 0.25, 0.375, 0.5] and second.values("train/tau") == [0.5, 0.5]


class Server:
    """A run of WandB of which the server has some rows already."""

    def __init__(self, there: int = 0) -> None:
        self.step, self.rows = there, list[tuple[int, dict[str, Any]]]()
        self.artifacts: list[tuple[Any, list[str]]] = []
        self.offline = self.disabled = False

    def log(self, values: dict[str, Any], step: int, commit: bool) -> None:
        assert commit and step >= self.step
        self.step = step + 1
        self.rows.append((step, values))

    def log_artifact(self, artifact: Any, aliases: list[str]) -> None:
        self.artifacts.append((artifact, aliases))

    def define_metric(self, *name: str, **options: Any) -> None:
        pass


def test_what_the_server_has_is_not_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(there=3)
    monkeypatch.setattr("kaizen.wandb_rows.open_run", lambda job: server)
    (tmp_path / "task0").mkdir()
    rows, logger = begin(tmp_path / "task0", 0)  # from the start: the killed process had saved nothing
    log(rows, logger, 1, 2, 3, 4)
    assert [(step, values["step"]) for step, values in server.rows] == [(3, 4)]


def test_what_a_killed_process_did_not_send_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(there=1)
    monkeypatch.setattr("kaizen.wandb_rows.open_run", lambda job: server)
    (tmp_path / "task0").mkdir()
    for step in (1, 2, 3):
        MetricsFile(tmp_path / "task0" / "metrics.csv", None).log_metrics({"train/loss": step / 8}, step=step)
    rows, logger = begin(tmp_path / "task0", 3)
    log(rows, logger, 4)
    assert [(step, values["train/loss"]) for step, values in server.rows] == [(1, 0.25), (2, 0.375), (3, 0.5)]


@pytest.mark.parametrize(("there", "sent"), [(0, [(0, 1), (1, 2)]), (1, [(1, 2)]), (2, [(2, 2)]), (5, [(5, 2)])])
def test_the_experiments_run_gets_what_it_lacks_and_the_last_task(
    there: int, sent: list[tuple[int, int]], trained: Path
) -> None:
    server = Server(there)
    results = read_json(trained / "results.json")
    results["heads"] = {"knn": results["heads"]["knn"]}
    show_results(server, trained, results)  # type: ignore[arg-type]
    assert [(step, values["task"]) for step, values in server.rows] == sent
    assert ["matrix/knn" in values for _, values in server.rows] == [False] * (len(sent) - 1) + [True]


def test_files_go_to_a_server_alone(tmp_path: Path) -> None:
    server, path = Server(), tmp_path / "final.ckpt"
    path.write_bytes(b"weights")
    upload(server, "model", tmp_path, [path], 3)  # type: ignore[arg-type]
    ((artifact, aliases),) = server.artifacts
    assert (artifact.type, aliases, artifact.metadata) == ("model", ["latest", "task3"], {"task": 3})
    assert list(artifact.manifest.entries) == ["final.ckpt"]
    server.offline = True
    upload(server, "model", tmp_path, [path], 3)  # type: ignore[arg-type]
    assert len(server.artifacts) == 1


def test_a_server_that_is_away_makes_an_offline_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    asked, real = [], wandb.init

    def init(**about: Any) -> Any:
        asked.append((about["mode"], about["resume"]))
        if about["mode"] != "offline":
            raise wandb.errors.CommError("nobody\nthere")
        return real(**about)

    monkeypatch.setattr(wandb, "init", init)
    online = Job(args_of("--wandb", "--name", "n"), tmp_path, "group", "experiment", ["a"], {})
    open_run(online).finish()
    assert asked == [(None, "allow"), ("offline", None)]
    assert "warning: --wandb: CommError: nobody there; this run is kept offline" in capsys.readouterr().out
    assert [run.about.job_type for run in offline_runs(tmp_path)] == ["experiment"]


def test_training_survives_whatever_wandb_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    def broken(**about: Any) -> None:
        raise RuntimeError("no space for logs")

    monkeypatch.setattr(wandb, "init", broken)
    flags = ("--wandb", "--offline", "--num_tasks", "1", "--split_strategy", "data")
    experiment = run_experiment(command_line(*flags), tmp_path / "run")
    assert experiment.done(0) and (tmp_path / "run" / "results.json").exists()
    assert capsys.readouterr().out.count("warning: --wandb: RuntimeError: no space for logs") == 2  # task, experiment


def test_a_sweeps_run_is_the_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_RUN_ID", "trial7")
    flags = ("--wandb", "--offline", "--num_tasks", "1", "--split_strategy", "data", "--disable_knn_eval")
    run_experiment(command_line(*flags), tmp_path / "run")
    (run,) = offline_runs(tmp_path / "run")
    assert (run.about.run_id, run.about.sweep_id, run.about.job_type) == ("trial7", "sweep", "experiment")
    assert "continual/classifier/final_accuracy" in run.names()
    assert offline_runs(tmp_path / "run" / "task0") == []


def test_ids_last_and_copies_get_their_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    token = lasting_token(tmp_path / "a", "a")
    assert re.fullmatch("[0-9a-f]{12}", token) and token == lasting_token(tmp_path / "a", "a")
    assert token != lasting_token(tmp_path / "a", "b") and token != lasting_token(tmp_path / "b", "a")
    assert (tmp_path / "a" / "wandb" / "id").read_text() not in token


def test_disabled_is_disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    args = args_of("--wandb", "--name", "n")
    assert is_offline(args)
    run = open_run(Job(args, tmp_path, "group", "task0", ["a"], {}))
    upload(run, "model", tmp_path, [tmp_path / "missing"], 0)
    run.finish()
    assert offline_runs(tmp_path) == []


KAIZEN = ("--distiller", "contrastive", "--distiller_classifier", "soft_label")


@pytest.mark.parametrize(
    ("flags", "arm"),
    [
        ((*KAIZEN, "--replay"), ["kaizen", "replay"]),
        (("--distiller", "contrastive"), ["cassle"]),
        ((*KAIZEN, "--classifier_distill_lamb", "0"), ["cassle"]),
        ((*KAIZEN, "--feature_extractor_distill_lamb", "0"), ["classifier-distill"]),
        (("--distiller_classifier", "soft_label"), ["classifier-distill"]),
        ((*KAIZEN, "--no_distill"), ["no-distill"]),
    ],
)
def test_tags_name_the_arm(flags: tuple[str, ...], arm: list[str]) -> None:
    assert tags_of(args_of(*flags)) == ["simclr", "tiny", "digits", *arm]


def test_a_checkpoint_by_itself(trained: Path, tmp_path: Path) -> None:
    model = str(trained / "task1" / "final.ckpt")
    flags = ("--protocol", "classifier", "--wandb", "--offline", "--name", "one", "--out", str(tmp_path))
    evaluate.run(["--pretrained_feature_extractor", model, *flags])
    (run,) = offline_runs(tmp_path)
    assert (run.about.display_name, run.about.run_group) == ("one-evaluation", "one")
    found = read_json(tmp_path / "classifier.json")
    assert run.summary["accuracy/classifier/task1"] == found["accuracy_by_task"][1]
    assert run.summary["continual/classifier/accuracy_over_images"] == found["accuracy_over_images"]
    assert run.config["evaluation"] == {"protocol": "classifier", "checkpoint": model}
