"""Name the class of each image in a folder.

python -m kaizen.predict --checkpoint experiments/NAME --images FOLDER --out predictions.csv --top 3
"""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kaizen.args import COUNT, DATA, NETS, RUN, UsageError, flag, printable
from kaizen.commands import ask, status_of
from kaizen.data.decoding import read_image
from kaizen.data.images import unlabelled_folder
from kaizen.data.loaders import EVALUATION_BATCH
from kaizen.data.readable import Skipped, find_bad
from kaizen.disk import check_writable, disk_told
from kaizen.files import atomic_path
from kaizen.networks import HEADS
from kaizen.trained import CLASSES, TrainedModel, load_trained

USAGE = "python -m kaizen.predict --checkpoint CKPT --images FOLDER [--out predictions.csv] [--top 3]"
FORMULA = tuple("=+-@\t\r\n")  # what a cell begins with that spreadsheets take for a formula
MOST_TOLD = 20  # classes in the line at the end


@dataclass
class PredictFlags:
    """The flags."""

    checkpoint: str = flag("", "a task*/final.ckpt, or an experiment, whose newest finished task is taken", RUN)
    images: str = flag("", "folder of the images, at any depth", DATA)
    out: str | None = flag(None, "CSV file of the predictions [predictions.csv, unless --features is given]", RUN)
    features: str | None = flag(None, "NPZ file: features (N, D) float32 and paths (N,)", RUN)
    top: int = flag(1, "classes told of each image, the most probable first", RUN, bounds=COUNT)
    head: str = flag("classifier", "what predicts", NETS, choices=tuple(HEADS))
    classes: str = flag("seen", "choose among those learnt so far, or among those of all tasks", NETS, choices=CLASSES)
    batch_size: int = flag(EVALUATION_BATCH, "images at once", DATA, bounds=COUNT)
    skip_bad_images: bool = flag(False, "leave out images that cannot be read; reads all once before", DATA)


def main(argv: list[str]) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    return status_of(run, argv)


def run(argv: list[str]) -> None:
    """Read the flags, look at the images, write down what they show."""
    asked = ask(PredictFlags, argv, USAGE)
    out = None if asked.features and not asked.out else Path(asked.out or "predictions.csv")
    npz = Path(asked.features) if asked.features else None
    for name, file in (("--out", out), ("--features", npz)):
        if file is not None:
            check_writable(name, file)
    if out is not None and npz is not None and out.resolve() == npz.resolve():
        raise UsageError(f"--features {npz}: --out has the same name; give them two")
    model = load_trained(asked.checkpoint, asked.head, "--checkpoint")
    if model.notice:
        print(f"note: {model.notice}")
    if out is not None:
        check_top(model, asked)
    paths = given_images(asked)
    feats, logits = look(model, paths, asked.batch_size)
    names = [path.relative_to(asked.images).as_posix() for path in paths]
    if npz is not None:
        with disk_told(f"--features {npz}", npz.parent):
            write_features(npz, feats, names)
        print(f"features of {len(paths)} images in {npz}")
    if out is not None and logits is not None:
        best = model.allowed(logits, asked.classes).softmax(dim=1).topk(asked.top)
        with disk_told(f"--out {out}", out.parent):
            write_table(out, names, best.indices, best.values, model.classes)
        print(f"{len(paths)} images in {out}: {counted(model.classes[label] for label in best.indices[:, 0].tolist())}")


def check_top(model: TrainedModel, asked: PredictFlags) -> None:
    """Raises UsageError where the model cannot predict, or not so many classes."""
    model.check_head()
    count = len(model.seen if asked.classes == "seen" else model.classes)
    if asked.top > count:
        raise UsageError(f"--top {asked.top}: there are {count} classes to choose from; give at most {count}")


def given_images(asked: PredictFlags) -> Sequence[Path]:
    """All images below the folder, sorted by path, without bad ones where these may be skipped."""
    paths = unlabelled_folder(Path(asked.images), "--images").paths
    if not asked.skip_bad_images:
        return paths
    bad = find_bad(paths, None, "given")
    if len(bad) == len(paths):
        raise UsageError(f"--images {asked.images}: no image can be read, e.g. {paths[0]} ({bad[0]}); repair some")
    if bad:
        print(Skipped(Path(asked.images), len(paths), {paths[i]: fault for i, fault in bad.items()}))
    return [path for i, path in enumerate(paths) if i not in bad]


def look(model: TrainedModel, paths: Sequence[Path], batch_size: int) -> tuple[Tensor, Tensor | None]:
    """Features and, with a head, logits of all images; on a GPU if there is one."""
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    parts = []
    with ThreadPoolExecutor() as pool:  # the decoder releases the interpreter's lock
        for start in range(0, len(paths), batch_size):
            images = pool.map(lambda path: model.reader.read(read_image(path)), paths[start : start + batch_size])
            parts.append(model.look(model.reader.stack([*images])))
    logits = [part for _, part in parts if part is not None]
    return torch.cat([feats for feats, _ in parts]), torch.cat(logits) if logits else None


def write_features(path: Path, feats: Tensor, names: list[str]) -> None:
    """Write a file for numpy.load, whole."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, features=feats.numpy(), paths=np.array(names))


def write_table(path: Path, names: list[str], labels: Tensor, probabilities: Tensor, classes: list[str]) -> None:
    """Write a CSV file, whole: path, label, probability, and the same of the second, third, ... class.

    Args:
        path: of the file.
        names: paths of N images.
        labels, probabilities: (N, k), the best first.
        classes: names of all classes.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    places = ["", *(f"_{place}" for place in range(2, labels.shape[1] + 1))]
    writer.writerow(["path", *(f"{column}{place}" for place in places for column in ("label", "probability"))])
    for name, row, shares in zip(names, labels.tolist(), probabilities.tolist(), strict=True):
        told = [[text_cell(classes[label]), f"{share:.6f}"] for label, share in zip(row, shares, strict=True)]
        writer.writerow([path_cell(name), *(cell for pair in told for cell in pair)])
    with atomic_path(path) as temporary:  # file names need not be UTF-8: they are written as they are on the disk
        temporary.write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))


def path_cell(path: str) -> str:
    """The same path in a form that no spreadsheet takes for a formula."""
    return f"./{path}" if path.startswith(FORMULA) else path


def text_cell(name: str) -> str:
    """A name, after an apostrophe where a spreadsheet would take it for a formula."""
    return f"'{name}" if name.startswith(FORMULA) else name


def counted(names: Iterable[str]) -> str:
    """How often each name comes, the most frequent first."""
    counts = Counter(map(printable, names)).most_common()
    told = ", ".join(f"{name} {count}" for name, count in counts[:MOST_TOLD])
    rest = counts[MOST_TOLD:]
    return told + (f", {len(rest)} other classes {sum(count for _, count in rest)}" if rest else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
