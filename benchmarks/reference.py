"""The other side: a MoCo v2+ step with the same maths, in the order of work of the published research code.

What that code does and this does too: views image by image with PIL; each view through each network by itself;
the online probe's images, a batch for each task seen, through the encoder in training mode and through the momentum
encoder, whether or not that has a probe; the queue cloned in each step; LARS, weight decay and the momentum average
parameter by parameter; up to sixteen numbers logged in each step, each fetched by itself; and at validation three
passes, for the classifier, the probe and the momentum encoder.

Where there was a choice, the faster one is taken, so that no ratio is too good: no trainer around the step, probe
features without gradient, test images decoded once for all heads. Networks, small losses and distillers are the
product's own modules (in torch's default memory format, with torch's own convolutions, as published): they are the same
maths on both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor, nn
from torch.optim import SGD
from torchvision import transforms as tv

from benchmarks.clock import Clock, Lap
from benchmarks.setting import Setting
from kaizen.building import view_options
from kaizen.data.views import BLUR_SIGMAS, ViewOptions
from kaizen.losses import labelled_cross_entropy, queue_contrastive
from kaizen.methods.mocov2plus import MoCoV2Plus
from kaizen.models.convolution import WideConv2d
from kaizen.models.resnet import ResNet
from kaizen.plan import Data

Transform = Callable[[Image.Image], Tensor]


class Reference:
    """A task in training, step by step.

    Args:
        setting: the kind of step; --online_eval_batchnorm is always `update` here, as published.
        data: of the task.
    """

    def __init__(self, setting: Setting, data: Data) -> None:
        self.model = setting.learner().to(memory_format=torch.contiguous_format)
        use_plain_layers(self.model)
        assert isinstance(self.model.method, MoCoV2Plus)
        self.method = self.model.method
        self.task_idx, self.data, self.args = setting.task_idx, data, self.model.args
        self.replay = setting.replay(data)
        self.steps = len(data.split.train[setting.task_idx]) // setting.batch_size
        full, probe = view_options(self.args)[:2], self.model.probe_view.options
        assert isinstance(probe, ViewOptions)
        self.transforms: list[Transform] = [pil_view(options) for options in full]
        self.probe_transform, self.eval_transform = pil_probe_view(probe), pil_eval_view(probe)
        self.optimizer = SGD(self.model.parameter_groups(), self.args.lr, momentum=0.9)
        self.decays = [group["weight_decay"] for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            group["weight_decay"] = 0.0  # `lars` brings it into the gradients
        self.clock = Clock()
        self.logged: list[dict[str, float]] = []

    def step(self) -> Lap:
        """Train one more step."""
        self.clock.start()
        with self.clock.part("views"):
            views, targets = self.read(self.chosen(), self.transforms)
            probe = self.read(self.probed(), [self.probe_transform])
        loss, metrics = self.loss(views, targets, (probe[0][0], probe[1]))
        with self.clock.part("optimizer"):
            self.optimizer.zero_grad()
        with self.clock.part("backward"):
            loss.backward()
        with self.clock.part("optimizer"):
            self.lars()
            self.optimizer.step()
        with self.clock.part("average"):
            self.average(self.args.method_flags["base_tau_momentum"])
        with self.clock.part("logging"):
            self.logged.append({name: float(value.detach()) for name, value in metrics.items()})
        return self.clock.lap()

    def chosen(self) -> Tensor:
        """Task and replay images of a step."""
        parts = [(self.data.split.train[self.task_idx], self.args.batch_size)]
        if len(self.replay):
            parts.append((self.replay, self.args.replay_batch_size))
        return torch.cat([indices[torch.randperm(len(indices))[:count]] for indices, count in parts])

    def probed(self) -> Tensor:
        """A batch of images for each task seen."""
        seen = torch.cat(self.data.split.train[: self.task_idx + 1])
        return seen[torch.randperm(len(seen))[: (self.task_idx + 1) * self.args.batch_size]]

    def read(self, indices: Tensor, transforms: list[Transform]) -> tuple[list[Tensor], Tensor]:
        """Views and targets, one image after the other."""
        images = self.data.train.read(indices.tolist(), ())
        assert isinstance(images, Tensor)
        rows = [[transform(picture) for transform in transforms] for picture in map(picture_of, images)]
        return [torch.stack(view) for view in zip(*rows, strict=True)], self.data.train.targets[indices]

    def loss(
        self, views: list[Tensor], targets: Tensor, probe: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the terms, and what is logged."""
        model, method, part = self.model, self.method, self.clock.part
        assert model.classifier is not None
        with part("student"):
            feats = [method.encoder(view) for view in views]
            z = [F.normalize(method.projector(f), dim=1) for f in feats]
        with part("momentum"), torch.no_grad():
            keys = [F.normalize(method.momentum(view), dim=1) for view in views]
        with part("losses"):
            queue = method.queue.clone()
            terms = {"ssl": self.contrast(z, keys, queue)}
            logits = [model.classifier(f.detach()) for f in feats]
            terms["classifier"] = torch.stack([labelled_cross_entropy(each, targets) for each in logits]).sum()
        with part("queue"):
            self.enqueue(keys)
        if model.frozen is not None:
            with part("frozen"):
                past = model.frozen(views)
            with part("losses"):
                assert model.distill_features is not None and model.distill_classifier is not None
                terms["distill_features"] = model.distill_features(z, past.z)
                terms["distill_classifier"] = model.distill_classifier(logits, past.logits)
        probe_logits = {}
        with part("probe"):
            for name, encoder in self.probed_encoders().items():
                with torch.no_grad():
                    seen = encoder(probe[0])
                if name in model.probes:
                    probe_logits[name] = model.probes[name](seen)
                    terms[name] = labelled_cross_entropy(probe_logits[name], probe[1])
        with part("losses"):
            loss = torch.stack([model.weights[name] * term for name, term in terms.items()]).sum()
        with part("logging"):
            metrics = {
                "loss": loss,
                **terms,
                "z_std": torch.stack([each.detach().std(dim=1).mean() for each in z]).mean(),
            }
            for i, each in enumerate(logits):
                metrics |= accuracy(f"view{i}", each, targets)
            for name, each in probe_logits.items():
                metrics |= accuracy(name, each, probe[1])
        return loss, metrics

    def probed_encoders(self) -> dict[str, nn.Module]:
        """Both of them: the momentum encoder sees these images even where it has no probe."""
        return {"online": self.method.encoder, "momentum_online": self.method.momentum.encoder}

    def contrast(self, z: list[Tensor], keys: list[Tensor], queue: Tensor) -> Tensor:
        """MoCo's loss in both directions."""
        temperature = self.method.temperature
        first = queue_contrastive(z[0], keys[1], queue[1], temperature)
        return (first + queue_contrastive(z[1], keys[0], queue[0], temperature)) / 2

    @torch.no_grad()
    def enqueue(self, keys: list[Tensor]) -> None:
        """Write the keys over the oldest of the queue; what does not fit before its end is dropped."""
        start, size = int(self.method.queue_ptr), self.method.queue.shape[2]
        count = min(len(keys[0]), size - start)
        self.method.queue[:, :, start : start + count] = torch.stack(keys)[:, :count].permute(0, 2, 1)
        self.method.queue_ptr[0] = (start + count) % size

    @torch.no_grad()
    def lars(self) -> None:
        """Adapt each gradient by itself, and bring the weight decay into it."""
        for group, decay in zip(self.optimizer.param_groups, self.decays, strict=True):
            for p in group["params"]:
                if p.grad is None or p.ndim == 1:
                    continue
                weight, gradient = p.norm(), p.grad.norm()
                if weight != 0 and gradient != 0:
                    rate = self.args.eta_lars * weight / (gradient + weight * decay + 1e-8)
                    p.grad.add_(p, alpha=decay)
                    p.grad.mul_(min(rate / group["lr"], 1))

    @torch.no_grad()
    def average(self, tau: float) -> None:
        """Move the momentum network, parameter by parameter."""
        momentum = self.method.momentum
        for slow, fast in ((momentum.encoder, self.method.encoder), (momentum.projector, self.method.projector)):
            for old, new in zip(slow.parameters(), fast.parameters(), strict=True):
                old.data = tau * old.data + (1 - tau) * new.data

    def validate(self, images: Tensor) -> Lap:
        """Judge uint8 test images (B, 3, H, W), with an encoder pass for each head."""
        self.model.eval()
        self.clock.start()
        views = torch.stack([self.eval_transform(picture_of(image)) for image in images])
        heads: list[tuple[nn.Module, Any]] = [(self.method.encoder, self.model.classifier)]
        for name, encoder in self.probed_encoders().items():
            heads.append((encoder, self.model.probes[name] if name in self.model.probes else nn.Identity()))
        with torch.no_grad():
            for encoder, head in heads:
                head(encoder(views))
        lap = self.clock.lap()
        self.model.train()
        return lap

    def run(self) -> None:
        """Train all steps."""
        for _ in range(self.steps):
            self.step()

    def close(self) -> None:
        """Nothing is left to do."""


def use_plain_layers(model: nn.Module) -> None:
    """Let the product's own layers do as torch's and torchvision's do."""
    for module in model.modules():
        if isinstance(module, WideConv2d):
            module.forward = partial(nn.Conv2d.forward, module)  # type: ignore[method-assign]
        elif isinstance(module, ResNet):
            module.recompute = False


def picture_of(image: Tensor) -> Image.Image:
    """uint8 (3, H, W) to PIL."""
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def accuracy(name: str, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Top-1 and top-5 in 0-1."""
    hits = logits.detach().topk(5, dim=1).indices == targets[:, None]
    return {f"{name}_acc1": hits[:, 0].float().mean(), f"{name}_acc5": hits.any(dim=1).float().mean()}


def pil_view(options: ViewOptions) -> Transform:
    """A random view, operation by operation as torchvision has them."""
    jitter = tv.ColorJitter(options.brightness, options.contrast, options.saturation, options.hue)
    return tv.Compose(
        [
            _crop(options),
            tv.RandomApply([jitter], p=options.jitter_prob),
            tv.RandomGrayscale(p=options.gray_prob),
            tv.RandomApply([tv.Lambda(_blur)], p=options.blur_prob),
            tv.RandomApply([tv.Lambda(ImageOps.solarize)], p=options.solarize_prob),
            tv.RandomHorizontalFlip(p=options.hflip_prob),
            *_tensor(options),
        ]
    )


def pil_probe_view(options: ViewOptions) -> Transform:
    """What the probes train on: crop and flip."""
    return tv.Compose([_crop(options), tv.RandomHorizontalFlip(p=options.hflip_prob), *_tensor(options)])


def pil_eval_view(options: ViewOptions) -> Transform:
    """The image as it is judged."""
    resize = tv.Resize((options.size, options.size), interpolation=tv.InterpolationMode.BICUBIC)
    return tv.Compose([resize, *_tensor(options)])


def _crop(options: ViewOptions) -> Any:
    scale = (options.min_scale, options.max_scale)
    return tv.RandomResizedCrop(options.size, scale=scale, interpolation=tv.InterpolationMode.BICUBIC)


def _blur(image: Image.Image) -> Image.Image:
    low, high = BLUR_SIGMAS
    return image.filter(ImageFilter.GaussianBlur(float(torch.empty(()).uniform_(low, high))))


def _tensor(options: ViewOptions) -> list[Any]:
    return [tv.ToTensor(), tv.Normalize(options.mean, options.std)]
