"""Write a trained model as an ONNX file, and make sure that the file computes the same.

python -m kaizen.export --checkpoint experiments/NAME --out model.onnx
"""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kaizen.args import NETS, RUN, Range, UsageError, flag, one_line, shorten
from kaizen.commands import ask, status_of
from kaizen.data.images import CentreCrop
from kaizen.disk import check_writable, disk_told
from kaizen.files import atomic_path
from kaizen.networks import HEADS
from kaizen.trained import CLASSES, TrainedModel, load_trained

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

USAGE = "python -m kaizen.export --checkpoint CKPT --out model.onnx [--head NAME | --features]"
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
OUTPUTS = ("probabilities", "logits", "features")
BATCHES = (1, 2, 5)  # sizes with which the file is checked
RELATIVE, ABSOLUTE = 1e-4, 1e-5  # how far its outputs may be off


@dataclass
class ExportFlags:
    """The flags."""

    checkpoint: str = flag("", "a task*/final.ckpt, or an experiment, whose newest finished task is taken", RUN)
    out: str = flag("", "the file to write", RUN)
    head: str = flag("classifier", "what predicts", NETS, choices=tuple(HEADS))
    classes: str = flag("seen", "probabilities of those learnt so far, or of those of all tasks", NETS, choices=CLASSES)
    features: bool = flag(False, "the encoder alone", NETS)
    opset: int = flag(18, "version of the ONNX operators", RUN, bounds=Range(18))


class Graph(nn.Module):
    """What the file holds: images (N, 3, size, size) in 0-1 -> probabilities, logits, features; or features alone."""

    mean: Tensor
    std: Tensor
    left_out: Tensor

    def __init__(self, model: TrainedModel, features: bool, classes: str) -> None:
        super().__init__()
        self.encoder, self.classifier = model.encoder, None if features else model.classifier
        self.register_buffer("mean", model.view.mean.view(3, 1, 1))
        self.register_buffer("std", model.view.std.view(3, 1, 1))
        self.register_buffer("left_out", model.allowed(torch.zeros(1, len(model.classes)), classes))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """In the order of OUTPUTS."""
        feats = self.encoder((images - self.mean) / self.std)
        if self.classifier is None:
            return (feats,)
        logits = self.classifier(feats)
        return (logits + self.left_out).softmax(dim=1), logits, feats


def main(argv: list[str]) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    return status_of(run, argv)


def run(argv: list[str]) -> None:
    """Read the flags, make the graph, compare it with the model, write it."""
    asked = ask(ExportFlags, argv, USAGE)
    out = Path(asked.out)
    check_libraries(asked.opset)
    check_writable("--out", out)
    model = load_trained(asked.checkpoint, asked.head, "--checkpoint")
    if model.notice:
        print(f"note: {model.notice}")
    if model.head is None and not asked.features:
        raise UsageError(f"--checkpoint {asked.checkpoint}: has no classifier; use --features")
    graph = Graph(model, asked.features, asked.classes).eval().float()
    proto = to_onnx(graph, model.image_size, asked.opset)
    describe(proto, model, asked)
    content = proto.SerializeToString()
    off = differences(graph, content, model.image_size, out)
    with disk_told(f"--out {out}", out.parent), atomic_path(out) as temporary:
        temporary.write_bytes(content)
    told = ", ".join(f"{name} {value:.1e}" for name, value in off.items())
    print(f"{out}: {len(content) / 1e6:.1f} MB; largest difference to torch on {sum(BATCHES)} random images: {told}")


def check_libraries(opset: int) -> None:
    """Raises UsageError where a library is missing, or too old for the operators asked for."""
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"kaizen.export needs {', '.join(missing)}; pip install {' '.join(LIBRARIES)}")
    from onnx.defs import onnx_opset_version

    if opset > onnx_opset_version():
        raise UsageError(f"--opset {opset}: the installed onnx has {onnx_opset_version()}; give that or less")


def to_onnx(graph: Graph, size: int, opset: int) -> ModelProto:
    """The graph for any number of images at once."""
    names = OUTPUTS if graph.classifier is not None else OUTPUTS[-1:]
    program = torch.onnx.export(
        graph,
        (torch.rand(2, 3, size, size),),
        input_names=["images"],
        output_names=names,
        opset_version=opset,
        dynamo=True,
        dynamic_shapes={"images": {0: torch.export.Dim("N")}},
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def describe(proto: ModelProto, model: TrainedModel, asked: ExportFlags) -> None:
    """Put into the file what its users need to know, as JSON values."""
    from onnx.helper import set_model_props

    cropped = model.reader.cropped
    about = {
        "image_size": model.image_size,
        "shorter_side_before_central_crop": CentreCrop(model.image_size).shorter_side if cropped else model.image_size,
        "task_idx": model.task_idx,
    }
    if not asked.features:
        about |= {"head": model.head, "classes": model.classes, "seen_classes": model.seen}  # type: ignore[dict-item]
    set_model_props(proto, {name: json.dumps(value) for name, value in about.items()})


@torch.no_grad()
def differences(graph: Graph, content: bytes, size: int, out: Path) -> dict[str, float]:
    """Run the file and the model on the same random images.

    Returns:
        Output -> largest absolute difference.

    Raises:
        UsageError: they are not the same.
    """
    session = opened(content, out)
    names = [output.name for output in session.get_outputs()]
    off = dict.fromkeys(names, 0.0)
    generator = torch.Generator().manual_seed(0)
    for count in BATCHES:
        images = torch.rand(count, 3, size, size, generator=generator)
        found = map(torch.from_numpy, session.run(names, {"images": images.numpy()}))
        for name, ours, theirs in zip(names, graph(images), found, strict=True):
            off[name] = max(off[name], float((theirs - ours).abs().max()))
            if not torch.allclose(theirs, ours, rtol=RELATIVE, atol=ABSOLUTE):
                raise UsageError(
                    f"--out {out}: is not written, as onnxruntime computes other {name} than torch (off by "
                    f"{off[name]:.1e}); try another --opset, or other versions of {', '.join(LIBRARIES)}"
                )
    return off


def opened(content: bytes, out: Path) -> InferenceSession:
    """The file, ready to run on the CPU. Raises UsageError where onnxruntime does not take it."""
    from onnxruntime import InferenceSession

    try:
        return InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # operators of a newer version, for one
        reason = shorten(one_line(error))
        raise UsageError(
            f"--out {out}: is not written, as onnxruntime refuses it ({reason}); try a lower --opset"
        ) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
