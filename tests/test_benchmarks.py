from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import folders
from benchmarks.clock import Clock, Lap, typical
from benchmarks.cost import START, Costs, Line, Plan, faster, fit_exchange, fit_line, read_costs
from benchmarks.cost import main as cost_command
from benchmarks.differences import differences
from benchmarks.product import Product
from benchmarks.reference import Reference
from benchmarks.setting import Setting
from kaizen.data.loaders import Batch, join
from kaizen.learner import ContinualLearner

ROOT = Path(__file__).resolve().parent.parent
TINY = Setting(batch_size=8, replay_batch_size=4, size=16, batchnorm="update")
MEMORY = {f"memory_resnet18{mode}{kind}" for mode in ("", "_frozen") for kind in ("", "_without_libraries")}
QUICK = ("--json", "--quick", "--repeats", "1", "--warmup", "1")


class Fixed(nn.Module):
    """The same views, whatever the images."""

    def __init__(self, views: Any) -> None:
        super().__init__()
        self.views = views

    def forward(self, images: Tensor) -> Any:
        return self.views


def run(script: str, *flags: str) -> dict[str, Any]:
    command = [sys.executable, f"benchmarks/{script}.py", *QUICK, *flags]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)  # nothing else is printed


def modes(part: str) -> list[str]:
    return [f"{kind}_{part}_{mode}" for kind in ("step", "epoch") for mode in ("frozen", "update")]


def on_fixed_views(reference: Reference, learner: ContinualLearner) -> tuple[dict[str, Batch], list[Tensor], Tensor]:
    """A batch for the product, and the views that both sides make of it."""
    views, targets = reference.read(reference.chosen(), reference.transforms)
    views = [view.double() for view in views]
    (probe,), probe_targets = reference.read(reference.probed(), [reference.probe_transform])
    probe = probe.double()
    learner.views, learner.probe_view = Fixed(views), Fixed(probe)
    nothing = torch.zeros(len(targets), 3, 1, 1, dtype=torch.uint8)
    batch: dict[str, Batch] = {
        "task": (nothing, targets, torch.arange(len(targets))),
        "online": (nothing, probe_targets, torch.arange(len(probe_targets))),
    }
    return batch, views, probe


@pytest.mark.parametrize("momentum_probe", [False, True])
def test_both_sides_have_the_same_loss_and_gradients(momentum_probe: bool) -> None:
    setting = replace(TINY, momentum_probe=momentum_probe)
    data = setting.data(2)
    reference, learner = Reference(setting, data), setting.learner()
    learner.double()  # exact enough to compare what went through different orders of summation
    reference.model.double()
    batch, views, probe = on_fixed_views(reference, learner)
    ours = learner.training_step(batch, 0)["loss"]
    theirs, _ = reference.loss(views, join(batch)[1], (probe, batch["online"][1]))
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)

    ours.backward()
    theirs.backward()
    pairs = list(zip(learner.method.encoder.parameters(), reference.method.encoder.parameters(), strict=True))
    assert pairs
    for mine, other in pairs:
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_both_sides_take_the_same_step() -> None:
    """From the same gradients: LARS, weight decay and momentum average."""
    reference, learner = Reference(TINY, TINY.data(2)), TINY.learner()
    optimizer = learner.configure_optimizers()["optimizer"]
    for group, other in zip(optimizer.param_groups, reference.optimizer.param_groups, strict=True):
        other["lr"] = group["lr"]
        for mine, its in zip(group["params"], other["params"], strict=True):
            mine.grad = torch.full_like(mine, 0.01)
            its.grad = mine.grad.clone()
    optimizer.step()
    learner.method.update_momentum(0.99)
    reference.lars()
    reference.optimizer.step()
    reference.average(0.99)
    theirs = reference.model.state_dict()
    for name, value in learner.state_dict().items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_the_product_takes_the_steps_it_is_asked_for() -> None:
    side = Product(TINY, TINY.data(2))
    laps = [side.step(), side.step()]
    assert side.learner.trainer.global_step == 2
    side.close()
    assert {"views", "student", "momentum", "frozen", "probe", "backward", "optimizer", "logging"} <= set(laps[1].parts)
    assert sum(laps[1].parts.values()) == pytest.approx(laps[1].seconds)


def test_what_fails_in_the_trainer_reaches_the_caller() -> None:
    side = Product(TINY, TINY.data(1))
    side.learner.views = nn.Module()  # has no forward
    with pytest.raises(NotImplementedError):
        side.step()


def test_the_reference_reads_as_many_images_as_published() -> None:
    setting = replace(TINY, momentum_probe=True)
    reference = Reference(setting, setting.data(2))
    assert len(reference.chosen()) == 8 + 4
    assert len(reference.probed()) == 2 * 8
    reference.step()
    assert len(reference.logged[0]) == 16


def test_an_inner_part_is_not_charged_to_the_outer_one() -> None:
    clock = Clock()
    with clock.part("outer"), clock.part("inner"):
        time.sleep(0.02)
    parts = clock.lap().parts
    assert parts["inner"] >= 0.02 > parts["outer"]


def test_each_operation_is_close_to_pil() -> None:
    torch.manual_seed(0)
    found = differences(torch.randint(0, 256, (64, 3, 24, 24), dtype=torch.uint8), 24)
    assert found.keys() == {"crop", "brightness", "contrast", "saturation", "hue"}
    assert found["crop"] <= 0.01 and found["hue"] <= 0.01
    assert found["brightness"] == found["contrast"] == found["saturation"] == 0


def test_medians_of_laps() -> None:
    lap = typical([Lap(1, 2, {"a": 1}), Lap(3, 4, {"a": 2, "b": 1}), Lap(9, 9, {"a": 7, "b": 2})])
    assert (lap.seconds, lap.cpu_seconds, lap.parts) == (3, 4, {"a": 2, "b": 1})


@pytest.mark.parametrize(
    ("part", "ratios"),
    [
        ("small", {*modes("small"), "bookkeeping"}),
        pytest.param("resnet18", {*modes("resnet18")}, marks=pytest.mark.long),
        pytest.param("memory", MEMORY, marks=pytest.mark.long),
    ],
)
def test_step_prints_its_ratios(part: str, ratios: set[str]) -> None:
    found = run("step", "--only", part)["ratios"]
    assert set(found) == ratios
    assert all(value > 0 for value in found.values())


@pytest.mark.long
def test_a_step_of_ones_own() -> None:
    flags = ("--method", "simclr", "--encoder", "resnet9", "--task_idx", "0", "--batch_size", "8", "--size", "16")
    result = run("step", *flags, "--online_eval_batchnorm", "frozen")
    assert result["ratios"] == {}  # no reference for this method
    assert set(result["details"]["own"]) == {"frozen"}


@pytest.mark.long
def test_scaling_prints_its_ratios() -> None:
    result = run("scaling")
    assert set(result["ratios"]) == {"late_task", "late_task_update"}
    assert set(result["details"]) == {"task, frozen", "task, update", "replay, frozen", "batch, frozen"}


def test_folders_are_opened_from_the_index_the_second_time(tmp_path: Path) -> None:
    folders.make(tmp_path / "train", classes=3, images=4)
    told: list[dict[str, float]] = []
    for _ in range(2):
        folders.open_and_tell(tmp_path / "train", tmp_path / "cache", SimpleNamespace(send=told.append))
    assert len(list((tmp_path / "cache").glob("index-*.npz"))) == 1
    letters = len("n00000000/n00000000_0.JPEG")
    assert [each["bytes"] for each in told] == [12 * (letters + 16 + 8)] * 2 and told[0]["seconds"] > 0


def costs() -> Costs:
    parts = {"student": Line(0.1, 0.01), "frozen": Line(0.05, 0.002), "loop": Line(0.02, 0.0)}
    return Costs(parts, look=0.001, sums=10, bytes=1e6, per_sum=1e-3, per_byte=1e-8, crowding=1.5)


def test_a_line_is_found_in_points_that_lie_on_it() -> None:
    line = fit_line({n: 0.25 + 0.004 * n for n in (96, 160, 288)})
    assert (line.fixed, line.slope) == pytest.approx((0.25, 0.004))
    through_zero = fit_line({100: 1.0, 200: 2.2})
    assert through_zero.fixed == 0 and through_zero.slope == pytest.approx((100 + 440) / 50_000)


def test_what_an_exchange_takes_is_found_in_two_kinds_of_step() -> None:
    def step(sums: float, size: float) -> dict[str, Any]:
        exchange = {"sums": sums, "bytes": size}
        return {"seconds": {"apart": 0.5, "together": 0.5 + sums * 2e-4 + size * 3e-9}, "exchange": exchange}

    assert fit_exchange(step(90, 5e6), step(8, 4e6)) == pytest.approx((2e-4, 3e-9))
    per_sum, per_byte = fit_exchange(step(90, 5e6), {**step(8, 4e6), "seconds": {"apart": 0.5, "together": 0.4}})
    assert per_byte == 0 and per_sum > 0  # faster together than alone: no time is left for bytes


def test_what_a_step_and_an_experiment_take() -> None:
    assert costs().step(100, task=0) == pytest.approx(0.1 + 1.0 + 0.02)
    assert costs().step(100) == pytest.approx(0.1 + 1.0 + 0.05 + 0.2 + 0.02)
    assert costs().step(100, devices=2) == pytest.approx(1.5 * 1.37 + 0.02)
    assert costs().exchange(2) == pytest.approx(0.01 + 0.01) and costs().exchange(1) == 0
    assert costs().exchange(5) == pytest.approx(3 * 0.01 + 1.6 * 0.01)
    plan = Plan(images=1000, test_images=200, tasks=2, epochs=4, batch=50, replay=10, look_every=2)
    spent = costs().experiment(plan, devices=2)
    steps = 4 * (500 // 100)
    assert spent["training"] == pytest.approx(steps * (costs().step(50, 0, 2) + costs().step(60, 1, 2)))
    assert spent["looks"] == pytest.approx(2 * 2 * 200 / 2 * 0.001)
    assert spent["judging"] == pytest.approx((2 * 200 + 500 + 1000) * 0.001)
    assert spent["starts"] == 2 * START


def test_another_device_is_so_many_times_as_fast() -> None:
    other = faster(costs(), 10, per_sum=1e-5, per_byte=None, crowding=1.0)
    assert other.step(100, devices=2) == pytest.approx(costs().step(100) / 10 + 10 * 1e-5 + 0.01)


def test_a_fitted_model_is_read_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "costs.json").write_text(json.dumps({"costs": asdict(costs()), "checks": {}}))
    assert read_costs(str(tmp_path / "costs.json")) == costs()
    cost_command(["--costs", str(tmp_path / "costs.json"), "--tasks", "5", "--devices", "1", "4"])
    rows = [row.split(" | ") for row in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1] for row in rows] == ["1", "4"] and rows[0][-1] == "1.0 x |"
    assert float(rows[1][3]) < float(rows[0][3])
