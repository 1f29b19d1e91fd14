"""msgpack in, and out with arrays as msgpack-numpy 0.4 writes them: a map with byte keys

    {b"nd": true, b"type": "<f4", b"kind": b"", b"shape": [2], b"data": ...}

Its object arrays are pickles, which run code when they are read. No body's arrays are read
here, and none of objects is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec
import numpy as np

from omnivec.core.errors import BadRequest, TooLarge
from omnivec.core.nouns import Array
from omnivec.core.outline import VALUES
from omnivec.dialects import _json

T = TypeVar("T")

TYPE = "application/msgpack"
_MEDIA = re.compile(r"application/(x-)?msgpack")


def is_msgpack(header: str) -> bool:
    """Whether a Content-Type or an Accept names msgpack."""
    return _MEDIA.search(header.lower()) is not None


def read(body: bytes, shape: type[T], most: int = 2 * VALUES) -> T:
    """The body as `shape`. Raises BadRequest with the field's path, and TooLarge for a large
    body of more than `most` values: a byte may be one, which takes a hundred of memory."""
    if len(body) > most and not _has_at_most(most, body):
        raise TooLarge(f"A body may hold at most {most} values.")
    try:
        return msgspec.msgpack.decode(body, type=shape, strict=False)
    except msgspec.ValidationError as error:
        fault = _json.refusal(str(error))
        raise fault if fault.param else _invalid() from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise _invalid() from None


def _has_at_most(most: int, body: bytes) -> bool:
    """Whether there are no more values, those in lists and maps included. It is the decoder that
    says whether they are whole."""
    at, end, left = 0, len(body), most
    while at < end and left:
        step, width = _SPANS[body[at]]
        if width:
            step += int.from_bytes(body[at + 1 : at + 1 + width], "big")
        at += step
        left -= 1
    return at >= end


def _span(first: int) -> tuple[int, int]:
    """Of a value that begins with this byte: its bytes without those that it tells the number
    of, and in how many bytes behind the first it tells that. Of a list or a map its head alone."""
    if 0xA0 <= first < 0xC0:  # noqa: PLR2004 - a short string
        return 1 + (first & 0x1F), 0
    return _HEADS.get(first, (1, 0))


_LENGTHS = (1, 2, 4)
_SIZES = (1, 2, 4, 8)
_HEADS = {
    **{0xC4 + i: (1 + width, width) for i, width in enumerate(_LENGTHS)},  # bytes
    **{0xC7 + i: (2 + width, width) for i, width in enumerate(_LENGTHS)},  # an extension
    **{0xCA + i: (1 + size, 0) for i, size in enumerate((4, 8, *_SIZES, *_SIZES))},  # a number
    **{0xD4 + i: (2 + size, 0) for i, size in enumerate((*_SIZES, 16))},  # a short extension
    **{0xD9 + i: (1 + width, width) for i, width in enumerate(_LENGTHS)},  # a string
    **{0xDC + i: (1 + width, 0) for i, width in enumerate((2, 4, 2, 4))},  # lists and maps
}
_SPANS = [_span(first) for first in range(256)]


def _invalid() -> BadRequest:
    return BadRequest("The body must be one valid msgpack map, as its Content-Type says.")


def write(value: Any) -> bytes:
    """Arrays in it must have been packed by `pack_array`."""
    try:
        return msgspec.msgpack.encode(value)
    except TypeError:  # it knows nothing of Long
        return b"".join(_pieces(value))


def _pieces(value: Any) -> Iterator[bytes | memoryview]:
    """What the message consists of. Joined, each number is copied once, into memory that is
    asked for once: with msgspec's growing buffer most of the time went into page faults."""
    if isinstance(value, Long):
        yield from (value.head, value.data)
    elif isinstance(value, dict):
        yield _opening(len(value), 0x80, 0xDE)
        for key, field in value.items():
            yield msgspec.msgpack.encode(key)
            yield from _pieces(field)
    elif isinstance(value, list):
        yield _opening(len(value), 0x90, 0xDC)
        for entry in value:
            yield from _pieces(entry)
    else:
        yield msgspec.msgpack.encode(value)


def _opening(size: int, few: int, many: int) -> bytes:
    """What stands before the entries of a list (0x90, 0xDC) or a map (0x80, 0xDE)."""
    if size < _FEW:
        return bytes((few | size,))
    width = 2 if size < 1 << 16 else 4
    return bytes((many + (width == 4),)) + size.to_bytes(width, "big")  # noqa: PLR2004 - the wide one follows


_FEW = 16


# ── arrays ───────────────────────────────────────────────────────────────────────────────


class Long:
    """A packed array that `write` copies straight into the message. No tuple and no dataclass:
    msgspec would write either as it is."""

    def __init__(self, head: bytes, data: memoryview) -> None:
        self.head = head
        self.data = data


LONG = 1 << 15
"""Bytes from which that is worth its while."""


def pack_array(array: Array) -> msgspec.Raw | Long:
    """As a piece of a message. Little endian, in C order, whatever it was."""
    laid = np.asarray(array, order="C")
    if laid.dtype.byteorder == ">":
        laid = laid.astype(laid.dtype.newbyteorder("<"))
    known = {b"nd": True, b"type": laid.dtype.str, b"kind": b"", b"shape": list(laid.shape)}
    parts = [msgspec.msgpack.encode(part) for entry in known.items() for part in entry]
    head = b"".join([_FIVE, *parts, msgspec.msgpack.encode(b"data"), _length(laid.nbytes)])
    data = laid.reshape(-1).view(np.uint8).data
    return Long(head, data) if laid.nbytes >= LONG else msgspec.Raw(head + data)


def _length(size: int) -> bytes:
    """What stands before `size` bytes: bin 8, 16 or 32, the shortest that can say it."""
    width = 1 if size < 1 << 8 else 2 if size < 1 << 16 else 4
    return _BIN[width] + size.to_bytes(width, "big")


_FIVE = b"\x85"  # opens a map of so many keys
_BIN = {1: b"\xc4", 2: b"\xc5", 4: b"\xc6"}
