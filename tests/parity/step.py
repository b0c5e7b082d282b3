"""One full training step from a recorded state, by the product's own code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from kaizen.args import Args
from kaizen.cli import read_args
from kaizen.compiling import compile_networks
from kaizen.data.images import Images
from kaizen.data.loaders import Batch
from kaizen.learner import ContinualLearner
from kaizen.methods import Output
from kaizen.models.frozen import FrozenOutput
from kaizen.optim import Groups, build_optimizer
from kaizen.published import our_names

from .golden import arrays, below, gradients_of, records, require
from .tiny import tiny_learner

RECORDS, BATCH = records("steps.json"), arrays("step_batch.npz")


@dataclass(frozen=True)
class Step:
    """What one training step made.

    Attributes:
        args: the recorded flags.
        names: recorded name -> ours, for the whole state.
        total: the weighted sum of all terms.
        logged: our logged values by our names.
        outputs: our outputs by their recorded names.
        untaught: the keys, and what the frozen model says.
        gradients: name of a parameter -> its gradient.
        groups: of the optimiser, with the "names" of their parameters.
        after: our state after the step.
    """

    args: Args
    names: dict[str, str]
    total: Tensor
    logged: dict[str, float]
    outputs: dict[str, Tensor]
    untaught: list[Tensor]
    gradients: dict[str, Tensor]
    groups: Groups
    after: dict[str, Tensor]


@cache
def take_step(case: str, compiled: bool = False) -> Step:
    """Restore the recorded state and take the step, with --compile if wanted."""
    require(f"step_{case}.npz", "step_batch.npz")
    record = RECORDS[case]
    args = read_args(record["args"])
    learner = tiny_learner(args, record["task_idx"])
    if record["task_idx"] > 0:
        learner.keep_teacher()
    names = restore(learner, below(arrays(f"step_{case}.npz"), "state"))
    if compiled:
        compile_networks(learner)
    watch = Watch(learner)
    optimizer = build_optimizer(args, learner.parameter_groups())

    result = learner.training_step(recorded_batch(args, record["task_idx"]), 0)
    result["loss"].backward()
    gradients = gradients_of({name: p for name, p in learner.named_parameters() if p.requires_grad})
    optimizer.step()
    learner.method.after_batch(result["out"])
    learner.update_momentum(0, args.max_epochs)

    name_of = {id(p): name for name, p in learner.named_parameters()}
    groups = [{**group, "names": [name_of[id(p)] for p in group["params"]]} for group in optimizer.param_groups]
    return Step(
        args=args,
        names=names,
        total=result["loss"].detach(),
        logged=learner.meter.flush(),
        outputs=watch.outputs(result["out"]),
        untaught=[*result["out"].keys, *watch.teacher.z, *watch.teacher.logits],
        gradients=gradients,
        groups=groups,
        after=learner.state_dict(),
    )


def restore(learner: ContinualLearner, state: dict[str, Tensor]) -> dict[str, str]:
    """Load a recorded state: every name of ours is in it, and every name of it is one of ours."""
    names = our_names(state)
    assert names.keys() == state.keys()
    assert len(set(names.values())) == len(names)
    learner.load_state_dict({names[name]: value for name, value in state.items()}, strict=True)
    return names


def recorded_batch(args: Args, task_idx: int) -> dict[str, Batch]:
    """The shared images: a (B, 3, H, W) for each view, which is ready; for the probes (B, 3, H, W)."""
    batch: dict[str, Batch] = {"task": _batch([BATCH["x1"].float(), BATCH["x2"].float()], BATCH["y"])}
    if args.replay and task_idx > 0:
        batch["replay"] = _batch([BATCH["xr1"].float(), BATCH["xr2"].float()], BATCH["yr"])
    if args.online_evaluation:
        batch["online"] = _batch(BATCH["xo"].float(), BATCH["yo"])
    return batch


def _batch(images: Images, targets: Tensor) -> Batch:
    return images, targets, torch.arange(len(targets))


class Watch:
    """Looks over the learner's shoulder at outputs that it does not hand out."""

    def __init__(self, learner: ContinualLearner) -> None:
        self.seen: dict[str, list[Tensor]] = {}
        self.teacher = FrozenOutput([], [])
        self._listen("classifier_logits", learner.classifier)
        if learner.method.momentum is not None:
            self._listen("momentum_feats", learner.method.momentum.encoder)
        if learner.frozen is not None:
            self._listen("frozen_feats", learner.frozen.encoder)
            learner.frozen.register_forward_hook(self._keep_teacher)

    def _listen(self, name: str, module: nn.Module | None) -> None:
        if module is not None:
            module.register_forward_hook(lambda _, __, output: self.seen.setdefault(name, []).append(output))

    def _keep_teacher(self, module: nn.Module, inputs: Any, output: FrozenOutput) -> None:
        self.teacher = output

    def outputs(self, out: Output) -> dict[str, Tensor]:
        """Everything seen by its recorded name, which ends in the number of the view."""
        teacher = {"frozen_z": self.teacher.z, "frozen_logits": self.teacher.logits}
        by_view = {"feats": out.feats, "z": out.z, "p": out.p, **teacher, **self.seen}
        return {f"{name}{i}": value for name, values in by_view.items() for i, value in enumerate(values, start=1)}
