"""The continual learner: one method, one classifier, one teacher from the task before, and their terms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer

from kaizen.args import Args
from kaizen.data.loaders import Batch, join, one_epoch
from kaizen.distillers import Distiller
from kaizen.guard import FiniteGuard, StepCount
from kaizen.logs import Meter, accuracies, mean_by_task
from kaizen.losses import labelled_cross_entropy
from kaizen.methods import Output, SSLMethod, full_crops
from kaizen.models.frozen import FrozenModel, evaluating
from kaizen.optim import Groups, build_optimizer, build_scheduler, parameter_group, scaled_lr
from kaizen.ranks import Share, united
from kaizen.seeds import EPOCH, START, STEP, draw_from


class ContinualLearner(pl.LightningModule):
    """Kaizen (arXiv 2303.17235): L = L_FE^KD + L_C^KD + L_C^CT + L_FE^CT on task and replay images.

    Args:
        args: the experiment's flags.
        method: encoder, projector and the self-supervised loss, L_FE^CT.
        classifier: features -> logits over the classes of all tasks, or None.
        probes: "online" on the encoder and "momentum_online" on the momentum encoder; they judge features and
            teach nothing.
        distill_features: L_FE^KD, from the second task on, or None.
        distill_classifier: L_C^KD, from the second task on, or None.
        views: uint8 images (B, 3, H, W) -> list of augmented views, float (B, 3, size, size) in channels_last; with
            --augment_on workers it passes on views that come ready.
        probe_view: the same -> the one view that the probes train on.
        eval_view: the same -> the images as they are judged.
    """

    def __init__(
        self,
        args: Args,
        method: SSLMethod,
        classifier: nn.Module | None,
        probes: nn.ModuleDict,
        distill_features: Distiller | None,
        distill_classifier: Distiller | None,
        views: nn.Module,
        probe_view: nn.Module,
        eval_view: nn.Module,
    ) -> None:
        super().__init__()
        self.args = args
        self.method = method.to(memory_format=torch.channels_last)
        self.classifier, self.probes = classifier, probes
        self.distill_features, self.distill_classifier = distill_features, distill_classifier
        self.frozen: FrozenModel | None = None
        self.views, self.probe_view, self.eval_view = views, probe_view, eval_view
        self.weights = {
            "ssl": 1.0,
            "classifier": args.classifier_loss_weight,
            "distill_features": distill_features.lamb if distill_features is not None else 0.0,
            "distill_classifier": distill_classifier.lamb if distill_classifier is not None else 0.0,
            **dict.fromkeys(probes, 1.0),
        }
        self.meter, self.epoch_loss = Meter(), Meter()
        self.guard, self.steps = FiniteGuard(args), StepCount()
        self.shares: dict[str, Share] = defaultdict(Share)  # what this process has of each batch
        self.task_idx, self.num_images, self.optimizer_steps = 0, 0, 0  # images of the set that trains
        self.strict_loading = False  # inside a task the teacher is in no checkpoint: see kaizen.saving
        self.test_tasks: list[Tensor] = []  # for each task, the indices of its test images
        self.correct: dict[str, Tensor] = {}  # head -> one bool per test image
        self.test_feats: list[Tensor] = []  # of the encoder, batch by batch, as it gives them
        self.looked_after = -1  # the optimiser step after which the test images were last looked at

    def keep_teacher(self) -> None:
        """Keep the model as it is now as the teacher of the task that begins."""
        if self.distill_features is not None or self.distill_classifier is not None:
            self.frozen = FrozenModel(
                self.method.encoder, self.method.projector, self.classifier, self.args.frozen_batchnorm
            )
        if self.distill_features is not None:
            self.distill_features.keep_teacher(self.method.teaching_prototypes)

    # One batch.

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> dict[str, Any]:
        """A batch's way from images to the weighted sum of its terms: a scalar `loss`, beside the method's `out`."""
        images, targets, indices = join(batch)
        share = self.shares["training"]
        with share.drawing():
            views = self.views(images)
        full = slice(full_crops(views))  # small crops are the method's alone

        past = self.frozen(views[full]).shared(share) if self.frozen is not None else None
        out = self.method(views).shared(share)
        targets, out.indices = share.whole(targets), share.whole(indices)
        terms = {"ssl": self.method.loss(out, targets)}

        logits = share.whole_views(self.classify(out.feats[full]))
        if self.classifier is not None:
            terms["classifier"] = torch.stack([labelled_cross_entropy(view, targets) for view in logits]).sum()

        if past is not None and self.distill_features is not None:
            terms["distill_features"] = self.distill_features(out.z[full], past.z)
        if past is not None and self.distill_classifier is not None:
            terms["distill_classifier"] = self.distill_classifier(logits, past.logits)

        if "online" in batch:
            terms |= self.probe_terms(batch["online"])

        loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        self.guard.look({"loss": loss, **terms}, self.optimizer_steps + 1)
        self.meter.add({"loss": loss, **terms, **self.statistics(out, logits, targets)})
        if self.args.scheduler == "reduce":
            self.epoch_loss.add({"loss": loss})
        return {"loss": loss, "out": out}

    def classify(self, feats: list[Tensor]) -> list[Tensor]:
        """Logits (B, num_classes) per view; with the stop-gradient on, the encoder learns nothing from them."""
        if self.classifier is None:
            return []
        return [self.classifier(f.detach() if self.args.classifier_stop_gradient else f) for f in feats]

    def probe_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of each probe on detached features of labelled images."""
        images, targets, _ = batch
        share = self.shares["online"]
        with share.drawing():
            view = self.probe_view(images)
        targets = share.whole(targets)
        terms = {}
        for name, encoder in self.probed_encoders().items():
            with torch.no_grad(), evaluating(encoder, self.args.online_eval_batchnorm == "frozen"):
                feats = encoder(view)
            logits = share.whole(self.probes[name](feats))
            terms[name] = labelled_cross_entropy(logits, targets)
            self.meter.add(accuracies(name, logits, targets))
        return terms

    def probed_encoders(self) -> dict[str, nn.Module]:
        """Probe name -> the encoder that it looks at."""
        encoders = {"online": self.method.encoder}
        if self.method.momentum is not None:
            encoders["momentum_online"] = self.method.momentum.encoder
        return {name: encoder for name, encoder in encoders.items() if name in self.probes}

    @torch.no_grad()
    def statistics(self, out: Output, logits: list[Tensor], targets: Tensor) -> dict[str, Tensor]:
        """What is logged beside the terms: training accuracy, and the spread of z, which collapse brings to 0."""
        spread = F.normalize(torch.stack(out.z[:2]), dim=-1).std(dim=1).mean()
        if not logits:
            return {"z_std": spread}
        return {"z_std": spread, **accuracies("classifier", torch.cat(logits), targets.repeat(len(logits)))}

    def on_train_start(self) -> None:
        """Begin to count where the trainer stands; let the method look at the task's images, unless it has before."""
        self.optimizer_steps = self.trainer.global_step
        if self.optimizer_steps == 0:
            draw_from(self.args.seed, self.task_idx, START)
            self.method.start_task(self.batches_of_views(), self.num_images)

    def batches_of_views(self) -> Iterator[tuple[list[Tensor], Tensor]]:
        """One epoch of the task's batches, made ready as in a training step: views, and indices into the image set."""
        loaders = self.trainer.train_dataloader.items()  # type: ignore[union-attr]
        for batch in one_epoch({name: loader for name, loader in loaders if name != "online"}):
            images, _, indices = join(self.trainer.strategy.batch_to_device(batch, self.device))
            with self.shares["training"].drawing():
                views = self.views(images)
            yield views, indices

    def on_train_epoch_start(self) -> None:
        """Tell the method how far the task is."""
        draw_from(self.args.seed, self.task_idx, EPOCH, self.trainer.current_epoch)
        self.method.start_epoch(self.trainer.current_epoch)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """What a step draws at random follows from where it stands in the task, whatever was drawn before."""
        draw_from(self.args.seed, self.task_idx, STEP, self.trainer.current_epoch, batch_idx)

    def on_train_epoch_end(self) -> None:
        """For a schedule that waits for the loss, its mean over the epoch."""
        if self.args.scheduler == "reduce":
            self.log("loss", self.epoch_loss.flush()["loss"], logger=False)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Let the method change gradients; at this point they are free of the factor that fp16 needs."""
        self.guard.rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
        self.method.after_backward()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After the gradients: the method's queue; after an optimiser step: the momentum network."""
        self.method.after_batch(outputs["out"])
        self.shares["training"].settle(self)
        if self.trainer.global_step > self.optimizer_steps:
            self.optimizer_steps = self.trainer.global_step
            if self.steps.took_place():
                step = self.optimizer_steps - self.steps.skipped - 1
                self.update_momentum(step, int(self.trainer.estimated_stepping_batches))
            self.trainer.optimizers[0].zero_grad()  # not only after the next forward, which needs the memory
        if (batch_idx + 1) % self.args.log_every_n_steps == 0 or self.trainer.is_last_batch:
            self.log_values()

    def update_momentum(self, step: int, total_steps: int) -> None:
        """Move the momentum network, if the method has one, after optimiser step `step` (0-based) of the task."""
        momentum = self.method.momentum
        if momentum is not None:
            tau = momentum.tau(step, total_steps)
            self.method.update_momentum(tau)
            self.meter.add({"tau": tau})

    def log_values(self) -> None:
        """Means since the last time, to every logger; the only place where training waits for numbers."""
        rates = {f"lr/{g['name']}": g["lr"] for g in self.trainer.optimizers[0].param_groups}
        self.guard.check_terms(self.trainer.current_epoch, self.method.not_finite_cure())
        values = {f"train/{name}": value for name, value in self.meter.flush().items()}
        if self.trainer.scaler is not None:
            values["train/skipped_steps"] = self.steps.skipped
        for logger in self.loggers:
            logger.log_metrics({**values, **rates}, step=self.trainer.global_step)

    def check_finite(self) -> None:
        """Called before anything is saved: raises UsageError where the loss or a weight is not finite."""
        self.guard.check_terms(self.trainer.current_epoch, self.method.not_finite_cure())
        self.guard.check_weights(self.state_dict())

    # Looking at the test images.

    def on_validation_epoch_start(self) -> None:
        """Forget the last look."""
        self.correct, self.test_feats, self.looked_after = {}, [], self.trainer.global_step

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Each network sees each image once; every head judges those features, which are kept for other judges."""
        images, targets, indices = batch
        total = self.trainer.val_dataloaders.dataset.images.targets  # type: ignore[union-attr]
        feats, heads = self.look(self.eval_view(images))
        self.test_feats += [feats] if self.args.auto_umap or not self.args.disable_knn_eval else []
        for head, logits in heads.items():
            correct = self.correct.setdefault(head, torch.zeros(len(total), dtype=torch.bool, device=self.device))
            correct[indices] = logits.argmax(dim=1) == targets

    def on_validation_epoch_end(self) -> None:
        """During training, log how every head does on every task."""
        self.correct = {head: united(correct) for head, correct in self.correct.items()}
        if self.trainer.state.fn == TrainerFn.FITTING:
            accuracy = self.accuracy_by_task()
            values = {f"val/{head}/task{j}": v for head, row in accuracy.items() for j, v in enumerate(row)}
            for logger in self.loggers:
                logger.log_metrics(values, step=self.trainer.global_step)

    def look(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Normalised images (B, 3, size, size) -> the encoder's features (B, feature_dim); the logits of each head."""
        encoders = {"online": self.method.encoder, **self.probed_encoders()}
        feats = {name: encoder(images) for name, encoder in encoders.items()}
        logits = {name: probe(feats[name]) for name, probe in self.probes.items()}
        if self.classifier is not None:
            logits = {"classifier": self.classifier(feats["online"]), **logits}
        return feats["online"], logits

    def accuracy_by_task(self) -> dict[str, list[float]]:
        """Accuracy in 0-1 of each head on the test images of each task, from the last look at them."""
        return {head: mean_by_task(correct.cpu(), self.test_tasks) for head, correct in self.correct.items()}

    # Optimisation.

    def parameter_groups(self) -> Groups:
        """Encoder, method heads and distillation predictors at the scaled rate; classifiers at rates of their own."""
        args = self.args
        lr, decay = scaled_lr(args), args.weight_decay
        groups = parameter_group("encoder", self.method.encoder.parameters(), lr, decay)
        if self.classifier is not None:
            groups += parameter_group("classifier", self.classifier.parameters(), args.classifier_lr, 0.0)
        for name, probe in self.probes.items():
            groups += parameter_group(name, probe.parameters(), args.online_eval_classifier_lr, 0.0)
        for name, parameters in self.method.heads():
            groups += parameter_group(name, parameters, lr, decay, static_lr=name in self.method.static_lr)
        for name in ("distill_features", "distill_classifier"):
            distiller = getattr(self, name)
            if distiller is not None:
                groups += parameter_group(name, distiller.parameters(), lr * distiller.lr_factor, decay)
        return groups

    def configure_optimizers(self) -> Any:
        """For Lightning: the optimiser, and the schedule stepped once an epoch."""
        optimizer = self.steps.watch(build_optimizer(self.args, self.parameter_groups()))
        scheduler = build_scheduler(self.args, optimizer)
        if scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "epoch", "monitor": "loss"},
        }
