"""How fast are the views: batches of tensors against one PIL image after the other, on one core.

    python benchmarks/views.py [--json] [--batch 256] [--repeats 15] [--no_compile]

Both sides make two views of CIFAR-sized images as the published recipes do, in one process, in turns; medians of the
CPU time. The compiled side treats crop and colour apart, each with torch.compile. Beside it, how far our operations are
from PIL's on the same images with the same parameters: mean absolute differences, in levels of 0 to 255.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.command import as_tasks_run

SIZE = 32
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
SOLARIZE = (0.0, 0.2)  # of the two views


def main(argv: list[str]) -> int:
    """Print a table, or with --json one object."""
    options = read_options(argv)
    seconds = measure(options)
    images = 2 * options.batch
    ratios = {f"views_{name}": seconds["pil"] / value for name, value in seconds.items() if name != "pil"}
    rates = {name: images / value for name, value in seconds.items()}
    apart = difference_from_pil(options.batch)
    if options.json:
        found = {"ratios": ratios, "views_per_second": rates, "difference_from_pil": apart, "batch": options.batch}
        print(json.dumps(found))
        return 0
    for name, rate in rates.items():
        ratio = ratios.get(f"views_{name}", 1.0)
        print(f"{name:<9} {rate:>8.0f} views/s a core   {ratio:5.1f} x PIL")
    print("difference from PIL:", ", ".join(f"{name} {value:.4f}" for name, value in apart.items()))
    return 0


def read_options(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="views: batches of tensors against PIL")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--batch", type=int, default=256, help="images per batch [256]")
    parser.add_argument("--repeats", type=int, default=15, help="turns [15]")
    parser.add_argument("--no_compile", action="store_true", help="leave the compiled side out")
    return parser.parse_args(argv)


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Side -> CPU seconds for two views of a batch."""
    import torch

    from kaizen.compiling import compile_view

    torch.set_num_threads(1)
    images = torch.randint(0, 256, (options.batch, 3, SIZE, SIZE), dtype=torch.uint8)
    transforms = our_transforms()
    sides: dict[str, Callable[[], Any]] = {
        "pil": pil_side(images),
        "eager": lambda: [transform(images) for transform in transforms],
    }
    if not options.no_compile:
        compiled = our_transforms()
        for transform in compiled:
            compile_view(transform)
        sides["compiled"] = lambda: [transform(images) for transform in compiled]
    for side in sides.values():
        side()
        side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.repeats):
        for name, side in sides.items():
            start = time.process_time()
            side()
            times[name].append(time.process_time() - start)
    return {name: median(values) for name, values in times.items()}


def difference_from_pil(count: int) -> dict[str, float]:
    """Operation -> mean absolute difference, on smooth images with noise, as photos are."""
    import torch
    import torch.nn.functional as F

    from benchmarks.differences import differences

    torch.manual_seed(0)
    smooth = F.interpolate(torch.rand(count, 3, 5, 5), (SIZE, SIZE), mode="bicubic")
    images = (smooth * 300 - 20 + 10 * torch.randn(count, 3, SIZE, SIZE)).clamp(0, 255).byte()
    return differences(images, SIZE)


def our_transforms() -> list[Any]:
    """The product's two views."""
    from kaizen.data.views import ViewOptions, ViewTransform

    return [ViewTransform(ViewOptions(SIZE, 0.4, 0.4, 0.2, 0.1, MEAN, STD, solarize_prob=p)) for p in SOLARIZE]


def pil_side(images: Any) -> Callable[[], Any]:
    """The same two views with torchvision's PIL transforms, image after image."""
    import torch
    from PIL import Image, ImageOps
    from torchvision import transforms as tv

    def pipeline(solarize: float) -> Callable[[Image.Image], Any]:
        return tv.Compose(
            [
                tv.RandomResizedCrop(SIZE, scale=(0.08, 1.0), interpolation=tv.InterpolationMode.BICUBIC),
                tv.RandomApply([tv.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
                tv.RandomGrayscale(p=0.2),
                tv.RandomApply([tv.Lambda(ImageOps.solarize)], p=solarize),
                tv.RandomHorizontalFlip(p=0.5),
                tv.ToTensor(),
                tv.Normalize(MEAN, STD),
            ]
        )

    pipelines = [pipeline(p) for p in SOLARIZE]
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    return lambda: [torch.stack([transform(picture) for picture in pictures]) for transform in pipelines]


if __name__ == "__main__":
    as_tasks_run()
    sys.exit(main(sys.argv[1:]))
