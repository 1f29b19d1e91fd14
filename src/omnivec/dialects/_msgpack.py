"""msgpack in and out, with arrays as msgpack-numpy 0.4 writes them: a map with byte keys

    {b"nd": true, b"type": "<f4", b"kind": b"", b"shape": [2], b"data": ...}

Its object arrays are pickles, which run code when they are read. Nothing here makes or reads
one: only the types in TYPES are arrays.
"""

from __future__ import annotations

import re
from math import prod
from typing import Any, TypeVar

import msgspec
import numpy as np

from omnivec.core.errors import BadRequest
from omnivec.core.nouns import Array
from omnivec.dialects import _wire

T = TypeVar("T")

TYPES = frozenset(
    [*(f"{order}{kind}" for order in "<>" for kind in ("f2", "f4", "f8", "i2", "i4", "i8")),
     *(f"{order}{kind}" for order in "<>" for kind in ("u2", "u4", "u8")),
     "|b1", "|i1", "|u1"]
)  # fmt: skip
MOST_AXES = 8

_ND, _KEYS = b"nd", (b"type", b"kind", b"shape", b"data")
_MEDIA = re.compile(r"application/(x-)?msgpack")


def is_msgpack(header: str) -> bool:
    """Whether a Content-Type or an Accept names msgpack."""
    return _MEDIA.search(header.lower()) is not None


def read(body: bytes, shape: type[T]) -> T:
    """The body as `shape`. Raises BadRequest with the field's path."""
    try:
        return msgspec.msgpack.decode(body, type=shape, strict=False)
    except msgspec.ValidationError as error:
        fault = _wire.refusal(str(error))
        raise fault if fault.param else _invalid() from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise _invalid() from None


def _invalid() -> BadRequest:
    return BadRequest("The body must be one valid msgpack map, as its Content-Type says.")


def write(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


# ── arrays ───────────────────────────────────────────────────────────────────────────────


def pack_array(array: Array) -> msgspec.Raw:
    """As a piece of a message. Little endian, in C order, whatever it was."""
    laid = np.asarray(array, order="C")
    if laid.dtype.byteorder == ">":
        laid = laid.astype(laid.dtype.newbyteorder("<"))
    head = (laid.dtype.str, b"", list(laid.shape))
    parts: list[bytes | memoryview] = [b"\x85", _bytes(_ND), b"\xc3"]
    for key, value in zip(_KEYS, head, strict=False):
        parts += [_bytes(key), msgspec.msgpack.encode(value)]
    # the numbers are copied here once, and once more when the whole message is written
    parts += [_bytes(b"data"), _head(laid.nbytes), laid.reshape(-1).view(np.uint8).data]
    return msgspec.Raw(b"".join(parts))


def unpack_array(value: Any) -> Array:
    """The array of a decoded map. Raises BadRequest for anything but a whole one."""
    if not isinstance(value, dict) or value.get(_ND) is not True:
        raise _malformed()
    kind, shape, data = value.get(b"type"), value.get(b"shape"), value.get(b"data")
    if not isinstance(kind, str) or kind not in TYPES or value.get(b"kind", b"") not in (b"", ""):
        raise _malformed()
    if not isinstance(shape, list) or len(shape) > MOST_AXES or not isinstance(data, bytes):
        raise _malformed()
    if any(type(size) is not int or size < 0 for size in shape):
        raise _malformed()
    dtype = np.dtype(kind)
    if prod(shape) * dtype.itemsize != len(data):
        raise _malformed()
    return np.frombuffer(data, dtype).reshape(shape)


def _bytes(value: bytes) -> bytes:
    """msgpack-numpy's keys are bin and not str."""
    return msgspec.msgpack.encode(value)


def _head(size: int) -> bytes:
    """What stands before `size` bytes: bin 8, 16 or 32, the shortest that can say it."""
    width = 1 if size < 1 << 8 else 2 if size < 1 << 16 else 4
    return _BIN[width] + size.to_bytes(width, "big")


_BIN = {1: b"\xc4", 2: b"\xc5", 4: b"\xc6"}


def _malformed() -> BadRequest:
    kinds = ", ".join(sorted(kind for kind in TYPES if kind[0] != ">"))
    return BadRequest(
        f"An array must have the keys nd, type, kind, shape and data, a type of {kinds}, at most "
        f"{MOST_AXES} axes, and as many bytes of data as its shape says."
    )
