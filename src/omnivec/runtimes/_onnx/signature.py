"""What an ONNX file takes and gives, read from it without its weights and without a library.

It is a message of protobuf, whose fields each tell their length: what is of no interest, which is
nearly all of it, is stepped over. The numbers of fields are those of github.com/onnx/onnx's
onnx.proto.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Field: TypeAlias = "int | memoryview"

GRAPH, HELD, INPUT, OUTPUT = 7, 5, 11, 12  # of a model the first, of its graph the others
NAME, HELD_NAME, TYPE = 1, 8, 2
FIXED = {1: 8, 5: 4}  # bytes of a field by its wire type
COUNTED, LONG = 0, 2  # the other wire types: a number, and bytes after their length
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
    """Raises ValueError for a file that is cut short or no ONNX file."""
    with file.open("rb") as opened:
        content = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    graph = next((value for _, value in _messages(content, GRAPH)), None)
    if graph is None:
        raise ValueError("no graph")
    inputs: dict[str, Value] = {}
    outputs: dict[str, Value] = {}
    held = set()
    for field, value in _messages(graph, HELD, INPUT, OUTPUT):
        if field == HELD:  # old files list their weights among the inputs
            held.add(_text(value, HELD_NAME))
        else:
            (inputs if field == INPUT else outputs)[_text(value, NAME)] = _value(value)
    return Signature({name: inputs[name] for name in inputs if name not in held}, outputs)


def _value(data: memoryview) -> Value:
    """Of a ValueInfoProto."""
    for _, told in _messages(data, TYPE):
        for _, tensor in _messages(told, 1):
            kind = next((one for field, one in _fields(tensor) if field == 1), 0)
            shapes = [shape for _, shape in _messages(tensor, 2)]
            axes = tuple(_axis(one) for _, one in _messages(shapes[0], 1)) if shapes else None
            return Value(kind if isinstance(kind, int) else 0, axes)
    return Value(0, None)


def _axis(data: memoryview) -> int | None:
    size = next((one for field, one in _fields(data) if field == 1), 0)
    return size if isinstance(size, int) and 0 < size < END else None


def _text(data: memoryview, number: int) -> str:
    return next((str(value, "utf-8") for _, value in _messages(data, number)), "")


def _messages(data: memoryview, *numbers: int) -> Iterator[tuple[int, memoryview]]:
    """The fields of these numbers that are bytes."""
    for field, value in _fields(data):
        if field in numbers and isinstance(value, memoryview):
            yield field, value


def _fields(data: memoryview) -> Iterator[tuple[int, Field]]:
    """Each field's number and content. Raises ValueError where the bytes are no message."""
    at = 0
    while at < len(data):
        tag, at = _number(data, at)
        field, wire = tag >> 3, tag & 7
        if wire == COUNTED:
            value, at = _number(data, at)
            yield field, value
            continue
        size = FIXED.get(wire)
        if size is None:
            if wire != LONG:
                raise ValueError("no protobuf")
            size, at = _number(data, at)
        if at + size > len(data):
            raise ValueError("cut short")
        yield field, data[at : at + size]
        at += size


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
