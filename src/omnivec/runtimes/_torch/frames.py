"""What passes between the server's process and its workers: a header in JSON, then the bytes
of the arrays that it lists. Nothing that could run code: a batch holds what clients sent.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from socket import socket
from typing import Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np

from omnivec.core.nouns import Array
from omnivec.core.steps import Head

Dtype: TypeAlias = Literal["int64", "float32", "bool", "uint8"]


class Open(msgspec.Struct, frozen=True, tag=True):
    """To a worker, once: what it is to open, and where. `adapters`: their names and folders.
    `pickle` as in Checkpoint."""

    name: str
    folder: str
    head: Head
    device: str
    dtype: str
    adapters: tuple[tuple[str, str], ...] = ()
    pickle: bool = False


class Ready(msgspec.Struct, frozen=True, tag=True):
    """From a worker that has opened it."""

    padding: float
    batch_cost: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """From a worker. `unusable`: the checkpoint is at fault, as `reason` says to a person;
    `lost`: it will not answer again."""

    reason: str
    unusable: bool = False
    lost: bool = False


class Batch(msgspec.Struct, frozen=True, tag=True):
    """Either way. `arrays`: name, dtype and shape of each, whose bytes follow in this order.
    `memory`: bytes that the worker holds on its device."""

    arrays: tuple[tuple[str, Dtype, tuple[int, ...]], ...]
    memory: int = 0


Header: TypeAlias = Open | Ready | Failed | Batch
Arrays: TypeAlias = Mapping[str, Array]


class Frame(NamedTuple):
    header: Header
    arrays: dict[str, Array]


_LENGTH = struct.Struct("<I")
_decoder = msgspec.json.Decoder(Header)


def batch_of(arrays: Arrays, memory: int = 0) -> Batch:
    listed = [(name, array.dtype.name, array.shape) for name, array in arrays.items()]
    return msgspec.convert({"type": "Batch", "arrays": listed, "memory": memory}, Batch)


def send(connection: socket, header: Header, arrays: Arrays | None = None) -> None:
    """Raises OSError when the other side has gone."""
    encoded = msgspec.json.encode(header)
    connection.sendall(_LENGTH.pack(len(encoded)) + encoded)
    for array in (arrays or {}).values():
        connection.sendall(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def receive(connection: socket) -> Frame:
    """Raises EOFError or OSError when the other side has gone."""
    (length,) = _LENGTH.unpack(_read(connection, bytearray(_LENGTH.size)))
    header = _decoder.decode(_read(connection, bytearray(length)))
    arrays: dict[str, Array] = {}
    if isinstance(header, Batch):
        for name, dtype, shape in header.arrays:
            array = np.empty(shape, dtype)
            _read(connection, array.reshape(-1).view(np.uint8).data)
            arrays[name] = array
    return Frame(header, arrays)


def _read(connection: socket, into: bytearray | memoryview) -> bytearray | memoryview:
    view, done = memoryview(into), 0
    while done < len(view):
        more = connection.recv_into(view[done:])
        if not more:
            raise EOFError("the other side has gone")
        done += more
    return into
