"""Which images a set has, and in which order: what an experiment that goes on must find again."""

from __future__ import annotations

import hashlib

from kaizen.data.images import FolderImages, ImageSet


def identity(images: ImageSet) -> str:
    """A digest of the labels, the domains, and the names of those in files below their folder; not of their pixels."""
    digest = hashlib.sha256(images.targets.numpy().tobytes())
    if images.domains is not None:
        digest.update(images.domains.numpy().tobytes())
    if isinstance(images, FolderImages):
        for names in images.paths.names():
            digest.update(names)
    return digest.hexdigest()
