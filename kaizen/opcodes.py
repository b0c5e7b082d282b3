"""What a pickle would do, found out without doing it.

torch's weights-only reader calls only functions that it knows. Some of those are costly in a stranger's hands: a
bytearray of any length, a tensor of any size, tuples nested until their hash overflows the stack. Here a pickle is
followed step by step with nothing but tuples, numbers, strings and names, and refused where weights need no such thing.
"""

from __future__ import annotations

import math
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # names of Python 2, which protocol 2 writes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Far more than a checkpoint of a ResNet-50 with its optimiser needs, and still read within a few seconds.
MOST_BYTES = 1 << 24
MOST_STEPS = 300_000
MOST_NESTED = 50  # tuples in tuples: the hash of one goes that deep into the stack of C
MOST_DIMENSIONS = 16
LONGEST_INTEGER = 9  # bytes: 64 bits and a sign; longer ones can be chosen to share one place in a dict

# What torch.save writes with protocol 2, and torch's weights-only reader reads.
VALUES = {
    "NONE", "NEWFALSE", "NEWTRUE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING",
}  # fmt: skip
CONTAINERS = ("EMPTY_LIST", "EMPTY_DICT")
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
TAKEN = {"APPEND": 1, "SETITEM": 2, "BUILD": 1}  # how many values go into the one below them

TENSOR, PARAMETER, ENCODE = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "_codecs.encode"
# Of the functions that torch's reader knows, those that weights need.
CALLS = {TENSOR, PARAMETER, ENCODE, "torch.Size", "torch.device", "collections.OrderedDict", "collections.Counter",
         "builtins.set"}  # fmt: skip
ITEM_BYTES = {
    f"torch.{kind}Storage": size
    for size, kinds in {
        1: ("Bool", "Byte", "Char", "Untyped"),
        2: ("Short", "Half", "BFloat16"),
        4: ("Int", "Float"),
        8: ("Long", "Double", "ComplexFloat"),
        16: ("ComplexDouble",),
    }.items()
    for kind in kinds
}
LATIN = ("latin1", "latin-1")  # how protocol 2 writes bytes; some other encodings take very long


class Refused(Exception):
    """The pickle asks for what weights do not need, or for more than its file holds."""


def calls_in(data: bytes, records: Mapping[str, int]) -> set[str]:
    """Follow a pickle to its end and return the classes and functions that it calls, as "module.name".

    Args:
        data: the pickle.
        records: names of the records beside it, and their sizes in bytes.

    Raises:
        Refused: it asks for what weights do not need.
        Exception: of other kinds, where it is damaged.
    """
    if len(data) > MOST_BYTES:
        raise Refused("a pickle far larger than weights need")
    machine = _Machine(records)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if count > MOST_STEPS:
            raise Refused("a pickle far longer than weights need")
        machine.follow(opcode.name, argument)
    return machine.called


@dataclass(frozen=True)
class _Name:
    """A class or function."""

    text: str


@dataclass(frozen=True)
class _Storage:
    """Memory of tensors, and how many elements it holds."""

    count: int


class _Tensor:
    """A tensor."""


class _Made:
    """A container or an object."""


class _Nested(tuple[Any, ...]):
    """A tuple, and how deep it is."""

    depth: int


class _Machine:
    """The stack of a pickle, in which every value is of one of the kinds above or a plain one."""

    def __init__(self, records: Mapping[str, int]) -> None:
        self.records = records
        self.called: set[str] = set()
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def follow(self, step: str, argument: Any) -> None:
        """One step."""
        stack = self.stack
        if step in VALUES:
            if step == "LONG1" and argument.bit_length() >= 8 * LONGEST_INTEGER:
                raise Refused("an integer far longer than weights need")
            stack.append(argument)
        elif step in CONTAINERS:
            stack.append(_Made())
        elif step in TUPLES:
            at = len(stack) - TUPLES[step]
            stack[at:] = [_nested(stack[at:])]
        elif step in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif step in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif step == "GLOBAL":
            stack.append(_Name(_full_name(*argument.split(" ", 1))))
        elif step == "MARK":
            self.marks.append(stack)
            self.stack = []
        elif step in ("TUPLE", "APPENDS", "SETITEMS"):
            self.stack = self.marks.pop()
            self.stack += [_nested(stack)] if step == "TUPLE" else []
        elif step in TAKEN:
            del stack[-TAKEN[step] :]
            if step == "BUILD" and isinstance(stack[-1], _Tensor):
                raise Refused("a tensor that is changed once it is made")
        elif step == "BINPERSID":
            stack.append(self._storage(*stack.pop()))
        elif step in ("REDUCE", "NEWOBJ"):
            arguments, called = stack.pop(), stack.pop()
            stack.append(self._call(called, arguments))
        elif not (step == "PROTO" and argument == 2) and step != "STOP":
            raise Refused(f"{step} is no step of torch.save")

    def _storage(self, _word: str, kind: _Name, key: str, _device: str, count: int) -> _Storage:
        size = self.records.get(f"data/{key}", -1)
        if not 0 <= count * ITEM_BYTES[kind.text] <= size:
            raise Refused("a storage that claims more than the file holds")
        return _Storage(count)

    def _call(self, called: Any, arguments: Any) -> _Tensor | _Made:
        if not isinstance(called, _Name):
            raise Refused("something is called that has no name")
        self.called.add(called.text)
        if called.text == ENCODE and arguments[1] not in LATIN:
            raise Refused("bytes in an unusual encoding")
        if called.text == TENSOR:
            storage, _, size, *_ = arguments
            if len(size) > MOST_DIMENSIONS or math.prod(size) > storage.count:
                raise Refused("a tensor larger than its storage")
        return _Tensor() if called.text in (TENSOR, PARAMETER) else _Made()


def _nested(items: list[Any]) -> _Nested:
    made = _Nested(items)
    made.depth = 1 + max((item.depth for item in items if isinstance(item, _Nested)), default=0)
    if made.depth > MOST_NESTED:
        raise Refused("tuples nested too deep")
    return made


def _full_name(module: str, name: str) -> str:
    """As Python 3 says it."""
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"
