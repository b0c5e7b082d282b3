"""Files written whole: a reader, or a resumed run, sees the old content or the new, never half of it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the block ends well, it takes the place of ``path``.

    The data reach the disk before the name does, so not even a power cut leaves half a file under ``path``.
    If the block raises, the temporary file is removed and ``path`` stays as it was. An error of the disk names
    ``path``, also where a library hides it behind one of its own, as torch does when it is given an open file. A link
    stays one, and what it leads to is written.

    Example:
        with atomic_path(folder / "last.ckpt") as temporary, temporary.open("wb") as stream:
            torch.save(state, stream)
    """
    if path.is_symlink():
        path = path.resolve()
    # Hidden and ending in .tmp, so that what a killed process leaves behind matches no *.json or *.ckpt.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # the disk may be closed to us; the error that led here is the one to tell
            temporary.unlink(missing_ok=True)
        if (cause := _disk_error(error, temporary)) is not None:
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise
    _fsync(path.parent)  # the new name itself lives in the folder


def path_error(error: OSError) -> str:
    """What an error of the file system says to a person, in one line."""
    if error.filename is None:
        return error.strerror or str(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror}; check this path"


def atomic_write_text(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8, newlines as given) to ``path`` in one piece."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_json(path: Path, obj: Any) -> None:
    """Write ``obj`` to ``path`` as indented JSON, in one piece, keys in the order given.

    Raises:
        ValueError: if a float is NaN or infinite, which JSON cannot say.
        TypeError: if something in ``obj`` has no JSON form.
    """
    atomic_write_text(path, json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Return what the JSON file ``path`` holds.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not JSON in UTF-8, or could not be written as such again.
    """
    return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str) -> Any:
    """Return what a text of JSON says.

    Raises:
        ValueError: if it is not JSON, or could not be written as UTF-8 again.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if "\\ud" in text.lower():  # half a character, maybe, which UTF-8 cannot say
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _disk_error(error: BaseException | None, temporary: Path) -> OSError | None:
    """The error of writing ``temporary`` that is, or led to, another one."""
    while isinstance(error, Exception):
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
            return error
        error = error.__cause__ or error.__context__
    return None


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
