"""What is said before training starts; it costs no more imports than reading the flags."""

from __future__ import annotations

import importlib.util

import torch

from kaizen.args import Args
from kaizen.data.datasets import dataset_info
from kaizen.devices import device_count, gpu_indices, uses_cuda


def notices(args: Args) -> list[str]:
    """What a user should know before training starts."""
    lines = []
    cuda = uses_cuda(args)
    here, sharing = len(gpu_indices(args)), device_count(args)
    if args.gpus is not None and not torch.cuda.is_available():
        processes = f" in {here} processes" if here > 1 else ""
        lines.append(f"--gpus {args.gpus}: no CUDA here, training on the CPU{processes}")
    if sharing != args.devices:
        lines.append(
            f"{sharing} devices share the batches of {args.devices} x {args.batch_size} images that the experiment "
            "began with; its learning rate stays"
        )
    elif sharing > 1:
        lines.append(f"{sharing} devices share each step of {sharing} x {args.batch_size} images")
    if args.precision == "16" and not cuda:
        lines.append("--precision 16: fp16 needs CUDA, training in fp32")
    if args.compile:
        lines.append("--compile: kernels are made during the first steps of each task, which takes a minute or two")
    if args.dali:
        lines.append(
            "--dali: not needed; images are decoded in loader processes, views are made where --augment_on says"
        )
    if args.online_evaluation and args.online_eval_batchnorm == "update":
        lines.append(
            "--online_eval_batchnorm update: probe images, also those of past tasks, enter the encoder's BatchNorm "
            "statistics, as published; `frozen` keeps them out"
        )
    if args.held_back is not None:
        lines.append(held_back_notice(args.held_back))
    if args.auto_umap and embedding_method() != "UMAP":
        lines.append("--auto_umap: umap-learn is not installed, drawing t-SNE; pip install umap-learn for UMAP")
    if args.split_strategy == "class" and dataset_info(args.dataset).unlabelled:
        lines.append(
            f"--split_strategy class: the unlabelled images of {args.dataset} belong to no class and are shared out "
            "equally at random over the tasks"
        )
    return lines


def held_back_notice(share: float) -> str:
    """What the accuracies are of where training images are held back."""
    return f"--held_back {share:g}: judged on training images that training does not see, not on test images"


def embedding_method() -> str:
    """UMAP where umap-learn is installed, else t-SNE."""
    return "UMAP" if importlib.util.find_spec("umap") is not None else "t-SNE"
