"""The encoders and heads inside a checkpoint, and what makes images ready for them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from kaizen.args import Args, UsageError
from kaizen.checkpoint import check_part, load_part
from kaizen.cli import image_size
from kaizen.data.views import EvalTransform
from kaizen.models.encoders import build_encoder
from kaizen.models.heads import mlp
from kaizen.plan import channel_statistics
from kaizen.precision import weight_type

# Heads of a checkpoint: name -> where its weights stand, and those of the encoder that it looks at.
HEADS = {
    "classifier": ("classifier.", "method.encoder."),
    "online": ("probes.online.", "method.encoder."),
    "momentum_online": ("probes.momentum_online.", "method.momentum.encoder."),
}


def heads_in(state: dict[str, Tensor]) -> list[str]:
    """The heads that a checkpoint has."""
    return [head for head, (prefix, _) in HEADS.items() if any(name.startswith(prefix) for name in state)]


def evaluation_view(args: Args) -> EvalTransform:
    """Images (B, 3, H, W) as an encoder of these flags sees them where nothing is trained."""
    return EvalTransform(image_size(args), *channel_statistics(args)).to(weight_type(args.precision))


def encoder_of(args: Args, state: dict[str, Tensor], prefix: str, path: Path, flag: str) -> tuple[nn.Module, int]:
    """An encoder with its weights, in channels_last.

    Args:
        args: of its training.
        state: of the checkpoint.
        prefix: where the weights stand in it.
        path, flag: for the message.

    Returns:
        Images (B, 3, size, size) -> features (B, feature_dim); and feature_dim.

    Raises:
        UsageError: the weights are of another architecture.
    """
    try:
        with torch.device("meta"):  # the flags may claim any size: no memory before the weights are known to fit
            outline, _ = _encoder(args)
            check_part(outline, state, prefix, path, flag)
    except (RuntimeError, TypeError, OverflowError) as error:  # beyond all numbers
        if "meta tensor" not in str(error):  # else its constructor looks at values, and it has no outline
            text = f"{flag} {path}: --encoder_width {args.encoder_width:g} is too large; it is damaged"
            raise UsageError(text) from None
    with torch.random.fork_rng(devices=[]):
        encoder, feature_dim = _encoder(args)  # with what it computes for itself, and no checkpoint has
    load_part(encoder, state, prefix, path, flag)
    return encoder.to(memory_format=torch.channels_last), feature_dim


def _encoder(args: Args) -> tuple[nn.Module, int]:
    encoder, feature_dim = build_encoder(args.encoder, image_size(args), args.stem_padding, args.encoder_width)
    return encoder.to(weight_type(args.precision)), feature_dim


def head_of(args: Args, state: dict[str, Tensor], prefix: str, path: Path, flag: str) -> tuple[nn.Module, int]:
    """A head with as many layers as it has in the checkpoint, features (B, feature_dim) -> logits; and their number.

    The arguments are those of `encoder_of`.

    Raises:
        UsageError: what stands there is no such head.
    """
    found = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix) and t.ndim == 2}
    places = {name.removesuffix(".weight"): layer for name, layer in found.items()}
    if not places or not all(place.isdecimal() and len(place) < 5 for place in places):
        raise UsageError(f"{flag} {path}: {prefix}* is not a head of linear layers; use the flags it was trained with")
    layers = [places[place] for place in sorted(places, key=int)]
    with torch.device("meta"):
        head = mlp([layers[0].shape[1], *(len(layer) for layer in layers)]).to(weight_type(args.precision))
    load_part(head, state, prefix, path, flag)
    return head, len(layers[-1])
