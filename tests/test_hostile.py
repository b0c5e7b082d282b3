"""Checkpoints from strangers, made to do harm; and what the sources never use."""

from __future__ import annotations

import ast
import io
import pickle
import resource
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kaizen.args import UsageError
from kaizen.checkpoint import read_checkpoint

ROOT = Path(__file__).resolve().parent.parent
CONTENT = {"state": {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor([3])}, "flags": {"lr": 0.1, "name": "x"}}


def plain() -> dict[str, bytes]:
    """The records of a checkpoint that is all right."""
    file = io.BytesIO()
    torch.save(CONTENT, file)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, records: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return path


def with_pickle(path: Path, data: bytes) -> Path:
    return packed(path, {n: data if n.endswith("/data.pkl") else content for n, content in plain().items()})


def refused(path: Path) -> str:
    """The one line, soon and without much memory."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(UsageError) as caught:
        read_checkpoint(path, "--flag")
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # KiB
    message = str(caught.value)
    assert message.startswith(f"--flag {path}: ") and "\n" not in message
    return message


def name(text: str) -> bytes:
    return b"c" + text.replace(" ", "\n").encode() + b"\n"


def word(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def tensor(*size: int, claimed: int = 6, rest: bytes = b"") -> bytes:
    """A tensor on the storage of six floats."""
    storage = b"(" + word("storage") + name("torch FloatStorage") + word("0") + word("cpu") + number(claimed) + b"tQ"
    sides = b"(" + b"".join(map(number, size)) + b"t"
    strides = b"(" + number(0) * len(size) + b"t"
    hooks = name("collections OrderedDict") + b")R"
    return (
        name("torch._utils _rebuild_tensor_v2") + b"(" + storage + number(0) + sides + strides + b"\x89" + hooks + b"tR"
    )


def called(text: str, *arguments: bytes) -> bytes:
    return name(text) + b"(" + b"".join(arguments) + b"tR"


def test_these_bytes_are_read_when_they_are_harmless(tmp_path: Path) -> None:
    whole = read_checkpoint(packed(tmp_path / "a.ckpt", plain()), "--flag")
    assert whole["state"]["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    found = read_checkpoint(with_pickle(tmp_path / "b.ckpt", b"\x80\x02" + tensor(2, 3) + b"."), "--flag")
    assert found.shape == (2, 3)
    encoded = called("_codecs encode", word("é"), word("latin1"))
    assert read_checkpoint(with_pickle(tmp_path / "c.ckpt", b"\x80\x02" + encoded + b"."), "--flag") == b"\xe9"


HUGE = {
    "storage": tensor(2, 3, claimed=10**15),
    "overflowing storage": tensor(2, 3, claimed=2**62 + 6),
    "negative storage": tensor(2, 3, claimed=-6),
    "view": tensor(10**6, 10**9),
    "one row, often": tensor(7),
    "many dimensions": tensor(*[1] * 50_000),
    "set_": tensor(1) + called("torch Size", b"(" + number(1) + b"t") + b"b",
    "bytearray": called("__builtin__ bytearray", number(10**12)),
    "empty tensor": called("torch FloatTensor", number(10**12)),
    "class": name("torch FloatTensor") + b"(" + number(10**12) + b"t\x81",
    "meta": called("torch._utils _rebuild_meta_tensor_no_storage"),
    "sparse": called("torch._utils _rebuild_sparse_tensor", b"N", b")"),
    "quantised": called("torch._utils _rebuild_qtensor", tensor(6)),
    "slow encoding": called("_codecs encode", word("aé" * 10_000), word("punycode")),
    "tuples": b"}" + b")" + b"\x85" * 200_000 + b"Ns",
    "steps": b"N0" * 2_000_000,
    "sets": b"\x8f" * 1_000_000,
    "bytes": b"]" + word("x" * 2**24) + b"a",
    "long integer": b"\x8a\xff" + b"\x7f" * 255,
    "protocol 4": b"\x80\x04N",
    "stack": b"R",
    "memo": b"h\x05",
    "mark": b"t",
    "no end": b"N" * 100 + b"\x80",
    "evaluated": called("__builtin__ eval", word("1+1")) + b")R",
    "system": called("os system", word("exit 1")),
    "posix": called("posix system", word("exit 1")),
}


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in HUGE.items()])
def test_a_pickle_that_asks_for_what_weights_do_not_need(tmp_path: Path, data: bytes) -> None:
    assert "damaged or not a checkpoint" in refused(with_pickle(tmp_path / "x.ckpt", b"\x80\x02" + data + b"."))


def test_lists_in_lists_are_only_long(tmp_path: Path) -> None:
    path = with_pickle(tmp_path / "x.ckpt", b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    assert read_checkpoint(path, "--flag")


class Payload:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def test_other_functions_of_the_file_stay_inert(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    path = with_pickle(tmp_path / "x.ckpt", pickle.dumps({"a": Payload(open, str(trap), "w"), "b": 1}, protocol=2))
    assert read_checkpoint(path, "--flag")["b"] == 1 and not trap.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda r: {**r, "archive/../../x": b"outside"},
        lambda r: {**r, "../../x": b"outside"},
        lambda r: {**r, "/x": b"outside"},
        lambda r: {**r, "other/data/0": bytes(24)},
        lambda r: {n: c for n, c in r.items() if not n.endswith("data.pkl")},
        lambda r: {n: c for n, c in r.items() if "/data/" not in n},
        lambda r: {},
        lambda r: {n: bytes(20) if n.endswith("/data/0") else c for n, c in r.items()},
    ],
)
def test_records_that_do_not_belong_there(tmp_path: Path, change: Callable[[dict[str, bytes]], Any]) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    refused(packed(folder / "x.ckpt", change(plain())))
    assert {entry.name for entry in tmp_path.rglob("*")} == {"a", "b", "x.ckpt"}


def test_a_record_that_grows_when_it_is_unpacked(tmp_path: Path) -> None:
    bomb = {**plain(), "archive/data/9": bytes(2**29)}
    path = packed(tmp_path / "x.ckpt", bomb, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    refused(path)


def test_records_that_share_bytes(tmp_path: Path) -> None:
    """One record twice in the central directory, as often as one likes."""
    path = packed(tmp_path / "x.ckpt", plain())
    with zipfile.ZipFile(path, "a") as archive:
        big = zipfile.ZipInfo("archive/data/9")
        archive.writestr(big, bytes(2**20))
        archive.filelist += [big] * 2000
    refused(path)


def test_a_legacy_checkpoint(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "x.ckpt", _use_new_zipfile_serialization=False)
    refused(tmp_path / "x.ckpt")


# What the sources never use.


def sources() -> list[Path]:
    return sorted([*ROOT.glob("*.py"), *(ROOT / "kaizen").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])


def harm_in(text: str) -> list[str]:
    """Lines that could run what data say."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            bad = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "tarfile"}
            found += [f"{node.lineno}: import {m}" for m in modules if str(m).split(".")[0] in bad]
        if isinstance(node, ast.Call):
            function, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            harmful = function in ("eval", "exec", "compile", "__import__", "os.system", "os.popen")
            harmful |= "shell" in given and given["shell"] != "False"
            harmful |= function == "torch.load" and given.get("weights_only") != "True"
            harmful |= given.get("allow_pickle", "False") != "False"  # numpy's readers do not unpickle unless told to
            harmful |= function.endswith((".extractall", ".extract", ".unpack_archive"))
            found += [f"{node.lineno}: {function}"] if harmful else []
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_sources_never_run_data(path: Path) -> None:
    assert harm_in(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from yaml import load", "eval('1')", "exec(x)", "run(x, shell=True)", "torch.load(p)",
     "torch.load(p, weights_only=False)", "np.load(p, allow_pickle=True)", "os.system(x)", "archive.extractall(p)"],
)  # fmt: skip
def test_the_search_finds_them(line: str) -> None:
    assert harm_in(line)


def test_torch_loads_in_one_place_alone() -> None:
    assert [p.name for p in sources() if "torch.load(" in p.read_text(encoding="utf-8")] == ["published.py"]
