"""What a server and a child that decodes videos say to one another, and how it is framed.

    server → child   Open (with the file's descriptor), then Want once or twice, then Close
    child → server   Facts, or Trouble; for each Want: Frame (with its pixels) .. Done, or Trouble

Each message is its length in four bytes, high byte first, and MessagePack. A frame's pixels
follow it raw: height * width * 3 bytes. After Trouble there is nothing to close.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Cause: TypeAlias = Literal["unreadable", "no video", "codec", "empty", "size", "packets", "memory"]


class Open(msgspec.Struct, frozen=True, tag=True):
    """`format` is a demuxer's name. `side` and `pixels` are the most a frame may have, `packets`
    the file; `memory` is the child's address space in bytes, `seconds` its processor time."""

    format: str
    side: int
    pixels: int
    packets: int
    memory: int
    seconds: int
    threads: int


class Want(msgspec.Struct, frozen=True, tag=True):
    indexes: tuple[int, ...]  # ascending


class Close(msgspec.Struct, frozen=True, tag=True):
    pass


class Facts(msgspec.Struct, frozen=True, tag=True):
    """`frames` as the container has it, when its packets bear that out; else as counted."""

    frames: int
    rate: float
    width: int
    height: int


class Frame(msgspec.Struct, frozen=True, tag=True):
    index: int
    height: int
    width: int


class Done(msgspec.Struct, frozen=True, tag=True):
    """`frames` are there really; a frame that is wanted and did not come cannot be decoded."""

    frames: int


class Trouble(msgspec.Struct, frozen=True, tag=True):
    cause: Cause


Asked: TypeAlias = Open | Want | Close
Told: TypeAlias = Facts | Frame | Done | Trouble

LENGTH = 4
LONGEST = 1 << 20


def pack(message: Asked | Told) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(LENGTH, "big") + body
