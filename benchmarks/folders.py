"""How long does a large folder of images take to open, the first time and from its index, and how much memory.

    python benchmarks/folders.py [--json] [--classes 1000] [--images 1281] [--folder DIR]

The folder is made for this, of empty files that are named as ImageNet's: opening looks at names alone.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.command import answer

LONG_AGO = 1_000_000_000  # an index is not made of a folder that changed just now


def main(argv: list[str]) -> int:
    """Print a few lines, or with --json one object."""
    parser = argparse.ArgumentParser(description="opening a large folder of images")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--classes", type=int, default=1000, help="class folders [1000]")
    parser.add_argument("--images", type=int, default=1281, help="images in each [1281]")
    parser.add_argument("--folder", help="where the folder is made [a temporary folder]")
    return answer(parser.parse_args(argv), measure, show)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of both openings, and bytes of memory for each image; each opening is a process of its own."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        root, cache = Path(folder) / "train", Path(folder) / "cache"
        make(root, options.classes, options.images)
        first, again = (opened_apart(root, cache) for _ in range(2))
    return {
        "images": options.classes * options.images,
        "seconds": {"first": first["seconds"], "from_index": again["seconds"]},
        "bytes_per_image": again["bytes"] / (options.classes * options.images),
        "peak_bytes": {"first": first["peak"], "from_index": again["peak"]},
    }


def make(root: Path, classes: int, images: int) -> None:
    """Class folders of empty files."""
    for c in range(classes):
        name = f"n{c:08d}"
        (root / name).mkdir(parents=True)
        for i in range(images):
            (root / name / f"{name}_{i}.JPEG").touch()
        os.utime(root / name, (LONG_AGO, LONG_AGO))
    os.utime(root, (LONG_AGO, LONG_AGO))


def opened_apart(root: Path, cache: Path) -> dict[str, float]:
    """Open in a new process, and say how long it took and how much memory is held and was, beyond the libraries'."""
    from multiprocessing import get_context

    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=open_and_tell, args=(root, cache, sender))
    process.start()
    found: dict[str, float] = receiver.recv()
    process.join()
    return found


def open_and_tell(root: Path, cache: Path, sender: Any) -> None:
    """In the new process."""
    from kaizen.data.images import image_folder

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    data = image_folder(root, "--train_dir", cache)
    seconds = time.perf_counter() - start
    paths = data.paths
    held = sum(array.nbytes for array in (paths.text, paths.starts, paths.ends)) + data.targets.nbytes
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    sender.send({"seconds": seconds, "bytes": held, "peak": peak})


def show(result: dict[str, Any]) -> None:
    """A few lines."""
    print(f"{result['images']:,} images")
    for name, seconds in result["seconds"].items():
        print(f"{name:<11} {seconds:6.2f} s, at most {result['peak_bytes'][name] / 1e6:5.0f} MB more")
    print(f"held        {result['bytes_per_image']:6.1f} bytes an image")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
