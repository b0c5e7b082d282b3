"""The programs of the study on CIFAR-10: what they run, what they keep, and what they choose flags by."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers import command_line
from studies import make_run
from torch import nn

from kaizen.bash_script import Script, parse_script
from kaizen.cli import read_args
from kaizen.relay import Child, Relay
from kaizen.runs_csv import read_rows
from main_continual import ROOT

FOLDER = ROOT / "bash_files" / "study_cifar10_cpu"


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


study, tune_classifier = program("study"), program("tune_classifier")


@pytest.mark.parametrize("method", ["mocov2plus", "simclr", "byol", "vicreg"])
def test_each_arm_changes_what_it_says(method: str) -> None:
    text = (FOLDER / f"{method}.sh").read_text()
    flags, _ = parse_script(Script(f"{method}.sh", text), {"DATA_DIR": "cifar10"})
    arms = {}
    for arm, changes in (study.ARMS | study.OTHERS).items():
        words = [word for change in changes for word in ("--" + change.split("=")[0], change.split("=")[1])]
        arms[arm] = read_args([*flags, *words])
    assert all(args.method == method and args.num_tasks == 5 for arm, args in arms.items() if arm != "joint")
    assert {arm: args.replay for arm, args in arms.items() if arm in study.ARMS} == {
        **dict.fromkeys(["Kaizen", "CaSSLe + replay", "no distillation + replay"], True),
        **dict.fromkeys(["CaSSLe", "no distillation", "joint"], False),
    }
    weights = {arm: args.method_flags["classifier_distill_lamb"] for arm, args in arms.items() if not args.no_distill}
    assert {arm for arm, weight in weights.items() if weight == 0} == {arm for arm in weights if "CaSSLe" in arm}
    assert {arms[arm].max_epochs for arm in arms if "epochs" in arm} == {3, 30}


def test_what_is_done_is_kept_and_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[tuple[str, str, int]] = []

    def start(relay: Relay, piece: tuple[str, str, int], base: Path) -> Child:
        method, arm, seed = piece
        begun.append(piece)
        make_run(base / f"{study.folder_of(piece)}-seed{seed}", method, seed, name=arm, no_distill=arm != "Kaizen")
        return relay.start([sys.executable, "-c", f"raise SystemExit({3 if seed == 7 else 0})"], {})

    for split in ("train", "val"):
        (tmp_path / split).mkdir()
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setattr(study, "HERE", tmp_path)
    monkeypatch.setattr(study, "start", start)
    options = ["--folder", str(tmp_path / "runs"), "--only", "^simclr (Kaizen|no distillation) [57]$"]
    assert study.main([*options, "--slots", "1"]) == 1  # those of seed 7 fail
    assert begun == [("simclr", arm, seed) for seed in (5, 7) for arm in ("Kaizen", "no distillation")]
    assert "simclr, Kaizen, 7: exit status 3 after" in capsys.readouterr().out
    assert [(run.method, run.name, run.seeds) for run in read_rows(tmp_path / "runs.csv")] == [
        ("simclr", "Kaizen", (5, 5)),
        ("simclr", "no distillation", (5, 5)),
    ]
    assert study.main([*options[:-1], "^simclr Kaizen 5$"]) == 0
    assert len(begun) == 4


def test_fewer_images_are_links_to_the_first_of_each_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, count in (("train", 5), ("val", 4)):
        (tmp_path / "data" / split / "cat").mkdir(parents=True)
        for image in range(count):
            (tmp_path / "data" / split / "cat" / f"{image}.png").touch()
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(study, "FEWER", 3)
    whole = study.data_of(("simclr", "Kaizen", 5), tmp_path)
    assert whole["DATA_DIR"] == str(tmp_path / "data")
    fewer = Path(study.data_of(("simclr", "Kaizen, 3 images a class", 5), tmp_path)["DATA_DIR"])
    for split, count in (("train", 3), ("val", 4)):
        names = sorted(path.name for path in (fewer / split / "cat").iterdir())
        assert names == [f"{image}.png" for image in range(count)]


@pytest.mark.usefixtures("tiny")
def test_many_classifiers_are_tried_on_one_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, out = tmp_path / "X.sh", tmp_path / "tuning.csv"
    words = " ".join(command_line("--classifier_layers", "8", "--distiller", "contrastive", "--num_tasks", "2",
                                  "--distiller_classifier", "soft_label", "--scheduler", "none"))  # fmt: skip
    script.write_text(f"python3 main_continual.py {words}\n")
    argv = ["--script", str(script), "--arm", "Kaizen", "--out", str(out)]
    argv += ["--rates", "0.01", "0.1", "--weights", "0", "2"]
    assert tune_classifier.main(argv) == 2
    assert capsys.readouterr().err.startswith("error: --held_back is missing")
    assert tune_classifier.main([*argv, "--held_back", "0.2"]) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [f"{row['rate']} {row['weight']}" for row in rows] == ["0.01 0.0", "0.01 2.0", "0.1 0.0", "0.1 2.0"]
    assert all(0 <= float(row["final"]) <= 1 and len(row["last_row"].split()) == 2 for row in rows)
    assert len({row["last_row"] for row in rows}) > 1


def test_each_of_many_classifiers_learns_as_it_would_alone() -> None:
    """Rates as factors on the gradient, under momentum."""
    rates = (0.1, 0.3)
    many = tune_classifier.Classifiers(2, [4, 5, 3])
    linear = [nn.Linear(4, 5), nn.Linear(5, 3)]
    for layer, weight, bias in zip(linear, many.weights, many.biases, strict=True):
        layer.weight.data, layer.bias.data = weight[1].T.clone(), bias[1, 0].clone()
    alone = nn.Sequential(linear[0], nn.ReLU(), linear[1])
    together = torch.optim.SGD(many.parameters(), lr=1.0, momentum=0.9)
    own = torch.optim.SGD(alone.parameters(), lr=rates[1], momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        feats = torch.randn(6, 4, generator=generator)
        soft = torch.randn(6, 3, generator=generator).softmax(dim=-1)
        losses = tune_classifier.ManyClassifiers.cross_entropy(many(feats), soft)
        together.zero_grad()
        (losses * torch.tensor(rates)).sum().backward()
        together.step()
        loss = nn.functional.cross_entropy(alone(feats), soft)
        own.zero_grad()
        loss.backward()
        own.step()
        torch.testing.assert_close(losses[1], loss)
    torch.testing.assert_close(many(feats)[1], alone(feats))
    assert not torch.allclose(many(feats)[0], many(feats)[1])
