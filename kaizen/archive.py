"""The zip archive of a checkpoint, read by one reader alone and checked byte for byte before torch sees it.

torch's own zip reader does not look at the checksums that the archive carries, and need not find the same bytes under a
name as another reader does. So each record is read and checked here, and torch gets a new archive of what was found.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path


class Damaged(Exception):
    """The file is not a whole archive as torch.save writes it."""


@dataclass(frozen=True)
class Archive:
    """What was read.

    Attributes:
        content: an archive of the checked records, for torch.
        pickle: the record data.pkl.
        sizes: name of each record, without the folder that all have in common -> its size in bytes.
    """

    content: bytes
    pickle: bytes
    sizes: dict[str, int]


def read_archive(path: Path) -> Archive:
    """Read a checkpoint; memory is taken for its records twice, as many bytes as the file holds at most.

    Raises:
        OSError: it cannot be read.
        Damaged: a record's checksum is wrong, or the file is something else than torch.save writes.
        Exception: of other kinds, over which Python's zip reader stumbles in damaged files.
    """
    clean, pickle, sizes = io.BytesIO(), b"", {}
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(clean, "w", zipfile.ZIP_STORED) as target:
        _check(source.infolist(), path.stat().st_size)
        for entry in source.infolist():
            name = entry.filename.partition("/")[2]
            content = source.read(entry)  # raises where the checksum is wrong
            sizes[name] = len(content)
            pickle = content if name == "data.pkl" else pickle
            target.writestr(f"archive/{name}", content)
    return Archive(clean.getvalue(), pickle, sizes)


def _check(entries: list[zipfile.ZipInfo], size: int) -> None:
    """The records lie in one folder, each once, as they are, and are together no larger than the file."""
    names = [entry.filename for entry in entries]
    roots = {name.partition("/")[0] for name in names}
    if len(roots) != 1 or len(set(names)) != len(names):
        raise Damaged("records of several folders, or one twice")
    if f"{roots.pop()}/data.pkl" not in names:
        raise Damaged("no data.pkl")
    if any(".." in name.split("/") or name.startswith("/") for name in names):
        raise Damaged("a record that leads out of the archive")
    stored = all(e.compress_type == zipfile.ZIP_STORED and e.compress_size == e.file_size for e in entries)
    if not stored or sum(entry.file_size for entry in entries) > size:
        raise Damaged("records that are packed, or overlap")
