"""One process of three that share steps: `python tests/shared_steps.py RANK FOLDER`.

For every method and every feature distiller it takes one step of the second task on its part of the same batch, with
BatchNorm over the whole batch, and writes terms, mean gradients of the processes and buffers to FOLDER: with three
processes, then with two, then alone, these also in float64.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from helpers import PAIRS, batch_of, learner_of, tiny_encoder
from torch import Tensor, nn

from kaizen.building import build_judge, share_out
from kaizen.data.loaders import Batch, join
from kaizen.learner import ContinualLearner
from kaizen.models import encoders
from kaizen.ranks import share_of
from kaizen.seeds import draw_from

# Every method and every distiller once.
FEW = [pair for pair in PAIRS if pair[1] == "contrastive" or pair[0] == "swav"]
PRECISIONS = {1: ("32", "64"), 2: ("32", "64"), 3: ("32",)}  # by the number of processes
SIZES = {"task": 24, "replay": 12, "online": 18}
FLAGS = ("--online_evaluation", "--momentum_classifier", "--distiller_classifier", "soft_label", "--replay")


def taken(method: str, distiller: str, precision: str, rank: int, world: int) -> dict[str, Any]:
    """What one step gives: terms by name, gradients and buffers by name."""
    learner = learner_of(*FLAGS, "--distiller", distiller, "--precision", precision, method=method, task_idx=1)
    for parameter in learner.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))  # the teacher is another one now
    if precision == "32":
        smooth(learner)
    if world > 1:
        share_out(learner, SIZES, rank, world, sync_batchnorm=True)
    batch = {name: part(batch_of(size, seed=seed), rank, world) for seed, (name, size) in enumerate(SIZES.items())}
    draw_from(5, 1)
    with learner.shares["training"].drawing():
        images, _, indices = join(batch)
        views = learner.views(images)
    learner.method.start_task(iter([(views, indices)]), num_images=36)
    learner.method.start_epoch(0)
    draw_from(5, 1, 0)
    with build_judge(learner.args).precision_plugin.train_step_context():
        out = learner.training_step(batch, 0)
    out["loss"].backward()
    learner.method.after_batch(out["out"])
    return {"terms": learner.meter.flush(), "gradients": mean_gradients(learner, world), "buffers": buffers(learner)}


def smooth(module: nn.Module) -> None:
    """ReLUs become smooth: at a kink, the last bit of a number decides about a gradient."""
    for name, child in module.named_children():
        setattr(module, name, nn.GELU()) if isinstance(child, nn.ReLU) else smooth(child)


def part(batch: Batch, rank: int, world: int) -> Batch:
    """The rows of one process; image and index follow from the place in the whole."""
    images, targets, _ = batch
    rows = share_of(len(targets), rank, world)
    return images[rows], targets[rows], torch.arange(len(targets))[rows]  # type: ignore[index]


def mean_gradients(learner: ContinualLearner, world: int) -> dict[str, Tensor]:
    """As DDP takes them."""
    found = {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}
    for gradient in found.values():
        if world > 1:
            dist.all_reduce(gradient)
            gradient /= world
    return found


def buffers(learner: ContinualLearner) -> dict[str, Tensor]:
    """Queues, clusters, centres and statistics."""
    return {name: value.detach().clone() for name, value in learner.named_buffers()}


def main(rank: int, folder: Path) -> None:
    """Take all steps: three processes, then two of them, then one alone."""
    torch.set_num_threads(1)
    encoders.ENCODERS["tiny"] = tiny_encoder
    for world in (3, 2, 1):
        if rank >= world:
            break
        if world > 1:
            dist.init_process_group("gloo", f"file://{folder}/meet{world}", rank=rank, world_size=world)
        steps = {
            f"{method} {distiller} {precision}": taken(method, distiller, precision, rank, world)
            for method, distiller in FEW
            for precision in PRECISIONS[world]
        }
        torch.save(steps, folder / f"rank{rank}of{world}")
        if world > 1:
            dist.barrier()  # no one leaves while another still talks to it
            dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
