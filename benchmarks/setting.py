"""What is measured: the flags of one step, random images, and the learner that the product makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kaizen.args import Args
from kaizen.building import build_learner
from kaizen.cli import read_args
from kaizen.data.images import MemoryImages
from kaizen.data.tasks import make_split
from kaizen.learner import ContinualLearner
from kaizen.methods import method_flags
from kaizen.plan import Data

CLASSES = 10
TEST_IMAGES_PER_CLASS = 25
SIDE = 32  # of the stored images, in pixels, and of the views by default
# Heads and queue by encoder: as in the published scripts, narrower for the small network.
WIDE = {"proj_hidden_dim": 2048, "output_dim": 256, "queue_size": 65536}
NARROW = {"proj_hidden_dim": 512, "output_dim": 128, "queue_size": 4096}
RECIPE = {
    "dataset": "cifar10",
    "max_epochs": 1,
    "warmup_epochs": 0,
    "scheduler": "warmup_cosine",
    "lars": True,
    "grad_clip_lars": True,
    "eta_lars": 0.02,
    "exclude_bias_n_norm": True,
    "weight_decay": 1e-5,
    "classifier_lr": 0.1,
    "classifier_layers": 1000,
    "distiller": "contrastive",
    "distiller_classifier": "soft_label",
    "classifier_distill_lamb": 2,
    "classifier_distill_no_predictor": True,
    "gaussian_prob": 0,
    "solarization_prob": "0 0.2",
    "online_evaluation": True,
    "replay": True,
}


@dataclass(frozen=True)
class Setting:
    """One kind of step.

    Attributes:
        encoder, width, method: the networks; `width` is of resnet9.
        batch_size, replay_batch_size: images per step.
        task_idx, num_tasks: which task of how many.
        batchnorm: of --online_eval_batchnorm.
        size: side of the views in pixels.
        momentum_probe: does the momentum encoder have a probe too (--momentum_classifier).
        compile: does our side compile its encoders and views (--compile).
    """

    encoder: str = "resnet9"
    width: float = 0.25
    method: str = "mocov2plus"
    batch_size: int = 256
    replay_batch_size: int = 32
    task_idx: int = 1
    num_tasks: int = 5
    batchnorm: str = "frozen"
    size: int = SIDE
    momentum_probe: bool = False
    compile: bool = False

    @property
    def args(self) -> Args:
        """The flags, checked."""
        known = {item.name for item in method_flags(self.method)}
        heads = NARROW if self.encoder == "resnet9" else WIDE
        own = {"temperature": 0.2, "final_tau_momentum": 0.999, **heads}
        flags = {
            **RECIPE,
            "encoder": self.encoder,
            "encoder_width": self.width,
            "method": self.method,
            "batch_size": self.batch_size,
            "replay_batch_size": self.replay_batch_size,
            "num_tasks": self.num_tasks,
            "online_eval_batchnorm": self.batchnorm,
            "size": self.size,
            "momentum_classifier": self.momentum_probe,
            "compile": self.compile,
            "feature_extractor_distill_proj_hidden_dim": heads["proj_hidden_dim"],
            **{name: value for name, value in own.items() if name in known},
        }
        return read_args([word for name, value in flags.items() for word in f"--{name} {value}".split()])

    def data(self, steps: int) -> Data:
        """Random images, as many as make each task `steps` steps long."""
        count = -(-self.batch_size * steps * self.num_tasks // CLASSES)
        train, test = random_images(count), random_images(TEST_IMAGES_PER_CLASS)
        split = make_split("class", train.targets, test.targets, CLASSES, self.num_tasks, 5, None, None)
        return Data(train, test, CLASSES, split, train.targets)

    def replay(self, data: Data) -> Tensor:
        """Indices of the images that are replayed, one batch that is cycled; none in the first task."""
        past = torch.cat([torch.empty(0, dtype=torch.int64), *data.split.train[: self.task_idx]])
        return past[: self.replay_batch_size]

    def learner(self) -> ContinualLearner:
        """The product's learner with fresh weights, and from the second task on with a teacher."""
        torch.manual_seed(0)
        learner = build_learner(self.args, CLASSES, self.task_idx)
        if self.task_idx > 0:
            learner.keep_teacher()
        return learner


def random_images(per_class: int) -> MemoryImages:
    """uint8 noise with labels, class after class."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (CLASSES * per_class, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    targets = torch.arange(CLASSES).repeat_interleave(per_class)
    return MemoryImages(images, targets, [str(c) for c in range(CLASSES)])
