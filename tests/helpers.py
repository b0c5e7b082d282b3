"""Small things to test with: a tiny encoder, flags, batches, image folders and experiments."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from kaizen.args import Args
from kaizen.building import build_learner
from kaizen.cli import flags_of, read_args
from kaizen.data.loaders import Batch
from kaizen.distillers import FEATURE_DISTILLERS
from kaizen.experiment import Experiment
from kaizen.learner import ContinualLearner
from kaizen.methods import METHODS, Output, SSLMethod, build_method, method_flags
from kaizen.plan import Data, open_data
from kaizen.task import run_task

FEATURES = 8
# Every method with every feature distiller; `knowledge` compares prototypes, which not every method has.
PAIRS = [
    (method, distiller)
    for method, kind in METHODS.items()
    for distiller, teacher in FEATURE_DISTILLERS.items()
    if kind.has_prototypes or not teacher.needs_prototypes
]
# Narrow heads and short queues; what a method does not have, it leaves aside.
SMALL: dict[str, float] = {"proj_hidden_dim": 8, "output_dim": 6, "pred_hidden_dim": 8, "queue_size": 16}
SMALL |= {"num_prototypes": 5, "whitening_size": 8}
SMALL |= {"whitening_eps": 0.01}  # 8 projections of 8 hidden units may fill fewer than 6 dimensions
# A training without labels.
NO_LABELS = ("--no_labels", "--split_strategy", "data", "--classifier_training", "False", "--disable_knn_eval")


def tiny_encoder(size: int, stem_padding: int, width: float, recompute: bool = True) -> tuple[nn.Module, int]:
    """Images (B, 3, H, W) -> features (B, 8)."""
    layers = (nn.Conv2d(3, FEATURES, 3, stride=2), nn.BatchNorm2d(FEATURES), nn.ReLU())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), FEATURES


def small_heads(method: str) -> list[str]:
    """The method's own flags for narrow heads and a short queue."""
    known = {item.name for item in method_flags(method)}
    return [word for name, width in SMALL.items() if name in known for word in (f"--{name}", str(width))]


def method_of(name: str, **flags: object) -> SSLMethod:
    """A method with narrow heads on a tiny encoder; `flags` are its own."""
    torch.manual_seed(0)
    encoder, dim = tiny_encoder(8, 0, 1.0, recompute=False)
    many = {item.name for item in method_flags(name) if item.many}
    small = {flag: [value] if flag in many else value for flag, value in SMALL.items()}
    return build_method(name, encoder, dim, {**small, **flags})


def output_of(method: SSLMethod, views: list[Tensor], first: int = 0) -> Output:
    """What the method makes of views of images `first`, `first` + 1, ..."""
    out = method(views)
    out.indices = torch.arange(first, first + len(views[0]))
    return out


def begin_task(method: SSLMethod, views: list[Tensor], first: int = 0, num_images: int = 80) -> None:
    """Up to the first epoch of a task of one batch."""
    method.start_task(iter([(views, torch.arange(first, first + len(views[0])))]), num_images)
    method.start_epoch(0)


def views_of(count: int = 8, seed: int = 1, small: int = 0) -> list[Tensor]:
    """Two random full views (count, 3, 8, 8) and some small ones of 6 pixels."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, 3, size, size, generator=generator) for size in [8] * 2 + [6] * small]


def command_line(*flags: str, method: str = "simclr", dataset: str = "digits") -> list[str]:
    """Flags of a tiny experiment; those given come last and count."""
    base = ["--dataset", dataset, "--method", method, "--encoder", "tiny", "--size", "8", "--max_epochs", "1"]
    base += ["--knn_k", "3", *(small_heads(method) if method in METHODS else [])]
    return [*base, *(["--batch_size", "8"] if dataset == "custom" else ["--batch_size", "64"]), *flags]


def args_of(*flags: str, method: str = "simclr", dataset: str = "digits") -> Args:
    """The same, read and checked."""
    return read_args(command_line(*flags, method=method, dataset=dataset))


def learner_of(*flags: str, method: str = "simclr", task_idx: int = 0, classes: int = 10) -> ContinualLearner:
    """A learner from flags; in later tasks with its teacher."""
    torch.manual_seed(0)
    learner = build_learner(args_of("--scheduler", "none", *flags, method=method), classes, task_idx)
    if task_idx > 0:
        learner.keep_teacher()
    return learner


def batch_of(count: int = 8, classes: int = 10, seed: int = 0) -> Batch:
    """Random uint8 images (count, 3, 8, 8), their targets and indices."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return images, torch.randint(0, classes, (count,), generator=generator), torch.arange(count)


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of everything that is saved of a module."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """Names of what is no longer as it was."""
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def plan_of(*flags: str) -> tuple[Args, Data]:
    """Checked flags and the data they open."""
    args = args_of(*flags)
    return args, open_data(args)


def domain_plan(tmp_path: Path, *flags: str) -> tuple[Args, Data]:
    """The same for DomainNet's lists, as `domain_lists` writes them."""
    args = args_of("--data_dir", str(tmp_path), "--batch_size", "4", *flags, dataset="domainnet")
    return args, open_data(args)


def class_folders(
    root: Path,
    counts: Sequence[int] = (12, 12, 12, 12),
    *,
    sizes: Sequence[tuple[int, int]] = ((8, 8),),
    mode: str = "RGB",
    suffix: str = "png",
) -> Path:
    """A custom data set, `root`/{train,val}/<class>/<number>.<suffix>, whose classes differ in brightness.

    Args:
        root: made if need be.
        counts: training images of each class; there are 4 test images of each.
        sizes: (width, height) of the images, in turn.
        mode: of PIL.
        suffix: file format.
    """
    noise = np.random.default_rng(0)
    channels = len(Image.new(mode, (1, 1)).getbands())
    for split in ("train", "val"):
        for label, count in enumerate(counts):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count if split == "train" else 4):
                width, height = sizes[i % len(sizes)]
                levels = noise.integers(0, 60, (height, width, channels)) + 190 * label // max(1, len(counts) - 1)
                Image.fromarray(levels.astype(np.uint8).squeeze(), mode).save(folder / f"{i:02d}.{suffix}")
    return root


def domain_lists(root: Path, domains: Sequence[str], counts: Sequence[int] = (8, 8)) -> Path:
    """A small DomainNet, `root`/<domain>_{train,test}.txt and <domain>/thing<class>/<number>.png.

    Args:
        root: made if need be.
        domains: each gets images of its own brightness.
        counts: training images of each class in each domain; there are 2 test images of each.
    """
    noise = np.random.default_rng(0)
    for place, domain in enumerate(domains):
        lines: dict[str, list[str]] = {"train": [], "test": []}
        for label, count in enumerate(counts):
            folder = root / domain / f"thing{label}"
            folder.mkdir(parents=True)
            for i in range(count + 2):
                levels = noise.integers(0, 60, (8, 8, 3)) + 40 * place
                Image.fromarray(levels.astype(np.uint8)).save(folder / f"{i:02d}.png")
                line = f"{domain}/thing{label}/{i:02d}.png {label}\n"
                lines["train" if i < count else "test"].append(line)
        for split, rows in lines.items():
            (root / f"{domain}_{split}.txt").write_text("".join(rows))
    return root


def run_experiment(argv: Sequence[str], folder: Path) -> Experiment:
    """All tasks of an experiment, one after the other in this process."""
    args = read_args(list(argv))
    data = open_data(args)
    experiment = Experiment.start(folder, flags_of(args), data.split.classes, data.task_names, data.skipped.names)
    for task in range(args.task_idx, args.num_tasks):
        run_task(experiment, task)
    return experiment


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Until it holds; fails where it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
