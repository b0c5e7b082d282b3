"""Features as a picture: each test image a point, neighbours in feature space neighbours on paper."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from kaizen import plots
from kaizen.features import Features
from kaizen.notices import embedding_method
from kaizen.plan import Data
from kaizen.plots import save_figure

LARGEST = 5000  # points; more take minutes and cover each other
FEWEST = 4  # of which each has neighbours that are not all the others


def draw_embedding(found: Features, data: Data, seed: int, folder: Path, task_idx: int) -> None:
    """Draw the test images' features after a task into `plots/embedding_task<k>.png`, coloured by class.

    Args:
        found: features of all test images.
        data: of the experiment.
        seed: of the choice of images, where they are many, and of the drawing.
        folder: of the experiment.
        task_idx: the task that was just trained.
    """
    if len(found.feats) < FEWEST:
        print(f"--auto_umap: {len(found.feats)} test images are too few to draw")
        return
    found = found.to(torch.device("cpu"))
    rows = sample(len(found.feats), seed)
    points = embed(F.normalize(found.feats[rows], dim=1), seed)
    seen = sorted({c for classes in data.split.classes[: task_idx + 1] for c in classes})
    title = f"{embedding_method()} of the features after task {task_idx}"
    figure = plots.embedding(points.numpy(), found.targets[rows].tolist(), data.test.class_names, seen, title)
    (folder / "plots").mkdir(exist_ok=True)
    save_figure(figure, folder / "plots" / f"embedding_task{task_idx}.png")


def embed(feats: Tensor, seed: int) -> Tensor:
    """Features (N, D) -> points (N, 2) by UMAP (McInnes et al., 2018), or t-SNE (van der Maaten & Hinton, 2008).

    Args:
        feats: normalised, on the CPU.
        seed: the same seed draws the same picture.
    """
    values = feats.numpy()
    if embedding_method() == "UMAP":
        from umap import UMAP

        reducer = UMAP(n_neighbors=min(15, len(values) - 1), random_state=seed, n_jobs=1)
    else:
        from sklearn.manifold import TSNE

        reducer = TSNE(perplexity=min(30.0, (len(values) - 1) / 3), init="pca", random_state=seed)
    return torch.as_tensor(reducer.fit_transform(values))


def sample(count: int, seed: int) -> Tensor:
    """At most LARGEST of `count` positions, in order, the same for a seed."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[:LARGEST].sort().values
