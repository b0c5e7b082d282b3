"""What tells image sets apart: which images there are, and what is in them."""

from __future__ import annotations

import hashlib

from kaizen.data.images import FolderImages, ImageSet, MemoryImages


def identity(images: ImageSet) -> str:
    """What an experiment that goes on must find again: labels, domains and file names below the folder, not pixels."""
    digest = _of_labels(images)
    if images.domains is not None:
        digest.update(images.domains.numpy().tobytes())
    if isinstance(images, FolderImages):
        for names in images.paths.names():
            digest.update(names)
    return digest.hexdigest()


def labels_digest(images: ImageSet) -> str:
    """Of the labels alone."""
    return _of_labels(images).hexdigest()


def contents_digest(images: ImageSet) -> str:
    """Of the pixels of images in memory; of the path, size and time of each file of others."""
    digest = hashlib.sha256()
    if isinstance(images, MemoryImages):
        digest.update(images.images.cpu().contiguous().numpy().data)
    elif isinstance(images, FolderImages):
        for place in range(len(images)):
            about = (path := images.paths[place]).stat()
            digest.update(f"{path.absolute()} {about.st_size} {about.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _of_labels(images: ImageSet) -> hashlib._Hash:
    return hashlib.sha256(images.targets.numpy().tobytes())
