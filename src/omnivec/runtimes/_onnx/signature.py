"""What an ONNX file takes and gives, read from it without its weights and without a library.

It is a message of protobuf, whose fields each tell their length: what is of no interest, which is
nearly all of it, is stepped over. The numbers of fields are those of github.com/onnx/onnx's
onnx.proto.
"""

from __future__ import annotations

import mmap
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Field: TypeAlias = "int | memoryview"

GRAPH, HELD, INPUT, OUTPUT = 7, 5, 11, 12  # of a model the first, of its graph the others
NAME, HELD_NAME, TYPE = 1, 8, 2
FIXED = {1: 8, 5: 4}  # bytes of a field by its wire type
COUNTED, LONG = 0, 2  # the other wire types: a number, and bytes after their length
FIELDS = 1_000_000  # of a file: far more than a graph has
END = 2**63  # numbers from here on are negative


class Value(NamedTuple):
    """`kind` is TensorProto's number of a type; an axis that the batch chooses is None. Without
    `axes` it is not told how many there are."""

    kind: int
    axes: tuple[int | None, ...] | None


class Signature(NamedTuple):
    inputs: dict[str, Value]
    outputs: dict[str, Value]


def read(file: Path) -> Signature:
    """Raises OSError, and ValueError for a file that is cut short or no ONNX file."""
    told = file.stat()
    return _read(file, told.st_mtime_ns, told.st_size)


@lru_cache(maxsize=64)
def _read(file: Path, _changed: int, _size: int) -> Signature:
    with file.open("rb") as opened:
        content = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    return _Reader().model(content)


class _Reader:
    """Of one file, and of no more than FIELDS of its fields."""

    def __init__(self) -> None:
        self._left = FIELDS

    def model(self, data: memoryview) -> Signature:
        graph = next((value for _, value in self._messages(data, GRAPH)), None)
        if graph is None:
            raise ValueError("no graph")
        inputs: dict[str, Value] = {}
        outputs: dict[str, Value] = {}
        held = set()
        for field, value in self._messages(graph, HELD, INPUT, OUTPUT):
            if field == HELD:  # old files list their weights among the inputs
                held.add(self._text(value, HELD_NAME))
            else:
                (inputs if field == INPUT else outputs)[self._text(value, NAME)] = self._value(
                    value
                )
        return Signature({name: inputs[name] for name in inputs if name not in held}, outputs)

    def _value(self, data: memoryview) -> Value:
        """Of a ValueInfoProto."""
        for _, told in self._messages(data, TYPE):
            for _, tensor in self._messages(told, 1):
                kind = self._first(tensor)
                shapes = [shape for _, shape in self._messages(tensor, 2)]
                axes = (
                    tuple(self._axis(one) for _, one in self._messages(shapes[0], 1))
                    if shapes
                    else None
                )
                return Value(kind, axes)
        return Value(0, None)

    def _axis(self, data: memoryview) -> int | None:
        size = self._first(data)
        return size if 0 < size < END else None

    def _first(self, data: memoryview) -> int:
        """The number that is field 1, or 0."""
        told = (one for field, one in self._fields(data) if field == 1)
        number = next(told, 0)
        return number if isinstance(number, int) else 0

    def _text(self, data: memoryview, number: int) -> str:
        return next((str(value, "utf-8") for _, value in self._messages(data, number)), "")

    def _messages(self, data: memoryview, *numbers: int) -> Iterator[tuple[int, memoryview]]:
        """The fields of these numbers that are bytes."""
        for field, value in self._fields(data):
            if field in numbers and isinstance(value, memoryview):
                yield field, value

    def _fields(self, data: memoryview) -> Iterator[tuple[int, Field]]:
        """Each field's number and content. Raises ValueError where the bytes are no message, and
        where there are more than a model has."""
        at = 0
        while at < len(data):
            self._left -= 1
            if self._left < 0:
                raise ValueError("more fields than a model has")
            tag, at = _number(data, at)
            field, wire = tag >> 3, tag & 7
            if wire == COUNTED:
                value, at = _number(data, at)
                yield field, value
                continue
            size, at = (FIXED[wire], at) if wire in FIXED else _length(data, at, wire)
            if at + size > len(data):
                raise ValueError("cut short")
            yield field, data[at : at + size]
            at += size


def _length(data: memoryview, at: int, wire: int) -> tuple[int, int]:
    """Of a field's bytes, and where they begin."""
    if wire != LONG:
        raise ValueError("no protobuf")
    return _number(data, at)


def _number(data: memoryview, at: int) -> tuple[int, int]:
    """One of variable length, and where it ends."""
    number = shift = 0
    while at < len(data) and shift < 64:  # noqa: PLR2004 - bits of the longest
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:  # noqa: PLR2004 - the last byte has no eighth bit
            return number, at
    raise ValueError("cut short")
