"""Training images held back to judge on while flags are being chosen, so that the test images stay unseen."""

from __future__ import annotations

import torch

from kaizen.args import UsageError
from kaizen.data.images import ImageSet


def hold_back(train: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Split the training images; the same share of each class, with domains of each class in each, is held back.

    Args:
        train: all training images. Those without a label stay in training.
        share: what is held back, in 0-1, rounded to whole images.
        seed: of the random choice.

    Returns:
        The images to train on, and those to judge on; both in the order they had.

    Raises:
        UsageError: the share leaves a class without images on one of the two sides.
    """
    groups = train.targets if train.domains is None else train.targets * len(train.domain_names) + train.domains
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    held = torch.zeros(len(train), dtype=torch.bool)
    for group in groups[train.targets >= 0].unique():
        members = order[groups[order] == group]
        chosen = round(share * len(members))
        if not 0 < chosen < len(members):
            name = train.class_names[int(train.targets[members[0]])]
            raise UsageError(
                f"--held_back {share:g}: takes {chosen} of the {len(members)} training images of class {name}; "
                "both sides need some: give another share"
            )
        held[members[:chosen]] = True
    return train.select((~held).nonzero().flatten()), train.select(held.nonzero().flatten())
