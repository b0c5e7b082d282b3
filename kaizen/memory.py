"""The replay memory of an experiment: what each task keeps of the ones before."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kaizen.args import Args, UsageError
from kaizen.cli import image_size
from kaizen.data.loaders import EVALUATION_BATCH, evaluation_loader
from kaizen.data.replay import Counts, Memory, flatten, groups_of, herd, select_replay
from kaizen.experiment import Experiment
from kaizen.features import extract_features
from kaizen.files import read_json, write_json
from kaizen.learner import ContinualLearner
from kaizen.plan import Data, replayed
from kaizen.precision import evaluation_precision


def remember(experiment: Experiment, learner: ContinualLearner, data: Data, task_idx: int) -> Tensor:
    """Choose what task `task_idx` replays and write it down as `task<k>/replay.json`.

    Args:
        experiment: where the memory of the task before lies.
        learner: as the task before left it; `herding` looks at its features.
        data: of the experiment.
        task_idx: the task about to be trained.

    Returns:
        int64 indices into the training images; none without --replay and in the first task.
    """
    args = learner.args
    if not args.replay or task_idx == 0:
        return torch.empty(0, dtype=torch.int64)
    counts = replayed(args, data, task_idx)
    if args.replay_selection == "herding":
        memory = _herding(experiment, learner, data, counts)
    else:
        memory = select_replay(data.split, data.train.targets, counts, args.replay_selection, args.seed)
    content = {"selection": args.replay_selection, "tasks": [[g.tolist() for g in groups] for groups in memory]}
    experiment.make_task_folder(task_idx)
    write_json(experiment.replay(task_idx), content)
    return flatten(memory)


def remembered(experiment: Experiment, args: Args, data: Data, task_idx: int) -> Tensor:
    """What `remember` has chosen in another process. Raises UsageError where replay.json is not there to be read."""
    if not args.replay or task_idx == 0:
        return torch.empty(0, dtype=torch.int64)
    return flatten(kept_before(experiment, task_idx, replayed(args, data, task_idx)))


def _herding(experiment: Experiment, learner: ContinualLearner, data: Data, counts: Counts) -> Memory:
    """Older tasks keep the first of what they kept; the images of the task before are ranked by its own features."""
    last = len(counts) - 1  # the task that was just learned
    groups = groups_of(data.split, data.train.targets, last)
    newest = [_rank(learner, data, group, count) for group, count in zip(groups, counts[-1], strict=True)]
    memory: Memory = []
    if last > 0:
        memory = kept_before(experiment, last, counts[:-1])
    return [*memory, newest]


def kept_before(experiment: Experiment, task_idx: int, counts: Counts) -> Memory:
    """The first of what a task replayed.

    Args:
        experiment: where its memory lies.
        task_idx: the task.
        counts: how many of each group.

    Raises:
        UsageError: replay.json is missing, damaged, or of other groups.
    """
    path = experiment.replay(task_idx)
    try:
        kept = read_json(path)["tasks"]
        return [
            [_indices(group)[:count] for group, count in zip(task, numbers, strict=True)]
            for task, numbers in zip(kept, counts, strict=True)
        ]
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        raise UsageError(
            f"--experiment_dir {experiment.folder}: {path} is missing or damaged; restore it, or start from task 0 anew"
        ) from None


def _indices(group: list[int]) -> Tensor:
    if not all(type(index) is int and 0 <= index < 2**63 for index in group):
        raise ValueError("not indices")
    return torch.tensor(group, dtype=torch.int64)


def _rank(learner: ContinualLearner, data: Data, group: Tensor, count: int) -> Tensor:
    if count == 0:
        return group[:0]
    args = learner.args
    loader = evaluation_loader(data.train, group, image_size(args), EVALUATION_BATCH, args.num_workers)
    with evaluation_precision(args.precision, learner.device):
        found = extract_features(learner.method.encoder, learner.eval_view, loader, learner.device)
    return found.indices[herd(F.normalize(found.feats, dim=1), count)].cpu()
