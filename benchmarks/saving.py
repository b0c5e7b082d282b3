"""How much does the checkpoint at the end of each epoch add to an epoch of the small CIFAR-10 recipe.

    python benchmarks/saving.py [--json] [--repeats 7]

An epoch is 10,000 images: steps of 256 + 32, measured, and one checkpoint, measured on the disk of --folder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.command import answer, as_tasks_run


def main(argv: list[str]) -> int:
    """Print a line, or with --json one object."""
    parser = argparse.ArgumentParser(description="the share of an epoch that a checkpoint takes")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--repeats", type=int, default=7, help="steps, and checkpoints [7]")
    parser.add_argument("--folder", help="where checkpoints are written [a temporary folder]")
    return answer(parser.parse_args(argv), measure, show)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step and of a checkpoint, and the ratio."""
    import pytorch_lightning as pl
    import torch

    from benchmarks.measure import EPOCH_IMAGES, quieten
    from benchmarks.setting import Setting
    from kaizen.building import build_trainer, training_loaders
    from kaizen.saving import Saved, Saving, Stop

    class Clock(pl.Callback):
        """Notes when each step begins."""

        def on_train_batch_start(self, *args: Any) -> None:
            """A step begins."""
            ticks.append(time.monotonic())

    quieten()
    torch.set_num_threads(1)
    ticks: list[float] = []
    setting = Setting(size=16)
    data, learner = setting.data(options.repeats + 2), setting.learner()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        saved = Saved(Path(folder) / "progress")
        trainer = build_trainer(
            learner.args, Path(folder), "benchmark", setting.task_idx, saving=Saving(saved, Stop(), None, None)
        )
        trainer.callbacks.append(Clock())  # type: ignore[attr-defined]
        trainer.fit(learner, training_loaders(learner.args, data, setting.task_idx, setting.replay(data)))
        writes = []
        for _ in range(options.repeats):
            began = time.monotonic()
            learner.check_finite()
            saved.write(trainer)
            writes.append(time.monotonic() - began)
        size = saved.paths()[0].stat().st_size
    step = median(later - earlier for earlier, later in zip(ticks[1:], ticks[2:], strict=False))
    epoch = EPOCH_IMAGES // setting.batch_size * step
    details = {"step_seconds": step, "checkpoint_seconds": median(writes), "checkpoint_bytes": size}
    return {"ratios": {"checkpoint_small": median(writes) / epoch}, "details": details}


def show(result: dict[str, Any]) -> None:
    """One line for people."""
    details = result["details"]
    print(
        f"a checkpoint of {details['checkpoint_bytes'] / 1e6:.1f} MB takes {details['checkpoint_seconds']:.3f} s, "
        f"{100 * result['ratios']['checkpoint_small']:.2f} % of an epoch (step {details['step_seconds']:.3f} s)"
    )


if __name__ == "__main__":
    as_tasks_run()
    sys.exit(main(sys.argv[1:]))
