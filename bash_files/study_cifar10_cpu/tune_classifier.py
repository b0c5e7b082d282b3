"""Choose the classifier's rates for the study: many classifiers on one encoder, judged on held-back training images.

    DATA_DIR=cifar10 python bash_files/study_cifar10_cpu/tune_classifier.py \
        --script bash_files/study_cifar10_cpu/mocov2plus.sh --arm Kaizen --out tuning.csv \
        --rates .03 .1 .3 --weights 0 1 2 4 --held_back 0.1

With the stop-gradient the encoder learns nothing from the classifier, so one run of an arm tells what every classifier
would have come to: each pair of a rate (`--classifier_lr`) and a weight of the soft labels
(`--classifier_distill_lamb`; 0 is the arm without classifier distillation) is a classifier of its own, trained on the
features of the same steps and taught by its own copy of the task before.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from kaizen.args import UsageError  # noqa: E402
from kaizen.bash_script import Script, parse_script  # noqa: E402
from kaizen.building import build_learner, build_trainer, training_loaders  # noqa: E402
from kaizen.checkpoint import save_task  # noqa: E402
from kaizen.cli import flags_of, image_size, read_args  # noqa: E402
from kaizen.commands import status_of  # noqa: E402
from kaizen.data.loaders import EVALUATION_BATCH, evaluation_loader, join  # noqa: E402
from kaizen.experiment import Experiment  # noqa: E402
from kaizen.features import extract_features  # noqa: E402
from kaizen.learner import ContinualLearner  # noqa: E402
from kaizen.logs import mean_by_task  # noqa: E402
from kaizen.memory import remember  # noqa: E402
from kaizen.metrics import continual_accuracy, final_accuracy, forgetting  # noqa: E402
from kaizen.optim import build_scheduler  # noqa: E402
from kaizen.plan import open_data  # noqa: E402
from kaizen.task import take_up  # noqa: E402


class Classifiers(nn.Module):
    """K classifiers of one shape, as one batch of matrix products: features (B, D) -> logits (K, B, C)."""

    def __init__(self, number: int, widths: list[int]) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Linear(before, after) for before, after in zip(widths[:-1], widths[1:], strict=True)]
        self.weights = nn.ParameterList(layer.weight.detach().T.repeat(number, 1, 1) for layer in layers)
        self.biases = nn.ParameterList(layer.bias.detach().repeat(number, 1, 1) for layer in layers)

    def forward(self, feats: Tensor) -> Tensor:
        """Linear layers with ReLUs between them."""
        out = feats.expand(len(self.weights[0]), -1, -1)
        for place, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            out = torch.baddbmm(bias, F.relu(out) if place else out, weight)
        return out


class ManyClassifiers(pl.Callback):
    """Trains the classifiers after each step, on the features that it made.

    Args:
        pairs: rate and weight of the soft labels of each.
        widths: of their layers.
    """

    def __init__(self, pairs: list[tuple[float, float]], widths: list[int]) -> None:
        self.pairs = pairs
        self.now, self.past = Classifiers(len(pairs), widths), None
        self.lambs = torch.tensor([lamb for _, lamb in pairs])
        self.taught: list[Tensor] = []

    def start_task(self, learner: ContinualLearner) -> None:
        """A new optimiser, as for every task; a copy as the teacher, and its features."""
        # A gradient of the sum over classifiers is each one's own. Its rate enters as a factor on its gradient: with
        # momentum that is a rate of its own, but for the steps after the rate has changed.
        self.optimizer = torch.optim.SGD(self.now.parameters(), lr=1.0, momentum=0.9)
        groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate, _ in self.pairs]
        self.rates = torch.optim.SGD(groups)
        self.scheduler = build_scheduler(learner.args, self.rates)
        self.past = None
        if learner.frozen is not None:
            self.past = Classifiers(len(self.pairs), [1, 1])
            self.past.weights = nn.ParameterList(w.detach().clone() for w in self.now.weights)
            self.past.biases = nn.ParameterList(b.detach().clone() for b in self.now.biases)
            learner.frozen.encoder.register_forward_hook(lambda _module, _images, feats: self.taught.append(feats))

    def on_train_batch_end(self, trainer: Any, learner: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Cross-entropy summed over the views, soft labels meaned, as in the learner."""
        _, targets, _ = join(batch)
        views = [feats.detach() for feats in outputs["out"].feats]
        loss = torch.zeros(len(self.pairs))
        for place, feats in enumerate(views):
            logits = self.now(feats)
            loss = loss + self.cross_entropy(logits, F.one_hot(targets, logits.shape[-1]).float())
            if self.past is not None:
                with torch.no_grad():
                    soft = self.past(self.taught[place]).softmax(dim=-1)
                loss = loss + self.lambs * self.cross_entropy(logits, soft) / len(views)
        self.taught.clear()
        self.optimizer.zero_grad()
        (loss * torch.tensor([group["lr"] for group in self.rates.param_groups])).sum().backward()
        self.optimizer.step()

    @staticmethod
    def cross_entropy(logits: Tensor, soft: Tensor) -> Tensor:
        """(K, B, C) and labels of that shape or (B, C) -> (K,)."""
        return -(soft * logits.log_softmax(dim=-1)).sum(dim=-1).mean(dim=-1)

    def on_train_epoch_end(self, trainer: Any, learner: Any) -> None:
        """The schedule moves once an epoch."""
        self.rates.step()
        if self.scheduler is not None:
            self.scheduler.step()


def main(argv: list[str]) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    return status_of(run, argv)


def run(argv: list[str]) -> None:
    """Run one arm and append a row per classifier."""
    parser = argparse.ArgumentParser(description="many classifiers on one encoder, on held-back training images")
    parser.add_argument("--script", required=True, help="the recipe; flags that are none of these replace its own")
    parser.add_argument("--arm", required=True, help="name of the arm, for the rows")
    parser.add_argument("--out", type=Path, required=True, help="CSV file; rows are appended")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.03, 0.1, 0.3], help="of the classifier")
    parser.add_argument("--weights", type=float, nargs="+", default=[0, 2], help="of the soft labels")
    options, others = parser.parse_known_args(argv)
    text = Path(options.script).read_text(encoding="utf-8")
    flags, _ = parse_script(Script(options.script, text), os.environ)
    args = read_args([*flags, *others])
    if args.held_back is None:
        raise UsageError("--held_back is missing: flags are chosen on training images; give --held_back 0.1")
    data = open_data(args)
    pairs = list(product(options.rates, options.weights))
    learner = build_learner(args, data.num_classes, 0)
    assert learner.classifier is not None
    widths = [layer.in_features for layer in learner.classifier if isinstance(layer, nn.Linear)] + [data.num_classes]
    classifiers = ManyClassifiers(pairs, widths)
    matrices: list[list[list[float]]] = [[] for _ in pairs]
    with tempfile.TemporaryDirectory() as place:
        experiment = Experiment.start(Path(place) / "run", flags_of(args), data.split.classes, data.task_names)
        for task in range(args.num_tasks):
            for found, row in zip(matrices, train(args, data, experiment, task, classifiers), strict=True):
                found.append(row)
            done = max(zip(matrices, pairs, strict=True), key=lambda found: sum(found[0][-1][: task + 1]))
            print(f"task {task}: best so far {done[1]} {[round(value, 3) for value in done[0][-1]]}", flush=True)
    new = not options.out.exists()
    with options.out.open("a", newline="") as stream:
        rows = csv.writer(stream)
        if new:
            names = ["final", "continual", "forgetting", "last_row"]
            rows.writerow(["method", "arm", "epochs", "seed", "rate", "weight", *names])
        for (rate, weight), matrix in zip(pairs, matrices, strict=True):
            metrics = (final_accuracy(matrix), continual_accuracy(matrix), forgetting(matrix))
            numbers = ["" if value is None else f"{value:.4f}" for value in metrics]
            last = " ".join(f"{value:.3f}" for value in matrix[-1])
            rows.writerow([args.method, options.arm, args.max_epochs, args.seed, rate, weight, *numbers, last])


def train(args: Any, data: Any, experiment: Experiment, task: int, classifiers: ManyClassifiers) -> list[list[float]]:
    """One task of the chain; accuracies (K, T) of the classifiers after it."""
    pl.seed_everything(args.seed + task, workers=True, verbose=False)
    learner = build_learner(args, data.num_classes, task)
    learner.task_idx, learner.num_images, learner.test_tasks = task, len(data.train), data.split.test
    take_up(learner, args, experiment, task)
    classifiers.start_task(learner)
    trainer = build_trainer(args, experiment.make_task_folder(task), experiment.name, task)
    trainer.callbacks.append(classifiers)  # type: ignore[attr-defined]
    trainer.fit(learner, training_loaders(args, data, task, remember(experiment, learner, data, task)))
    save_task(learner, experiment.checkpoint(task), task, experiment.flags)
    test = evaluation_loader(data.test, torch.arange(len(data.test)), image_size(args), EVALUATION_BATCH, 0)
    features = extract_features(learner.method.encoder, learner.eval_view, test, learner.device)
    with torch.no_grad():
        correct = classifiers.now(features.feats).argmax(dim=-1) == features.targets
    return [mean_by_task(row, data.split.test) for row in correct]


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:]))
