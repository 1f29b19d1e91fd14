"""A WebSocket to a running server: a client of the library's, and one of a few lines that may
misbehave."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any, Self

from serving import Running
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

NONCE = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The answer to NONCE, as RFC 6455 has it in 1.3."""


def listen(server: Running, path: str = "/ws/status", **options: Any) -> ClientConnection:
    url = f"ws://127.0.0.1:{server.port}{path}"
    return connect(url, proxy=None, max_size=None, compression=None, **options)


def handshake(*headers: str, path: str = "/ws/status", **changed: str) -> bytes:
    """The head of an upgrade; `changed` replaces headers of its own ("" leaves one out)."""
    known = {
        "host": "localhost",
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec_websocket_version": "13",
        "sec_websocket_key": NONCE,
        **changed,
    }
    own = [f"{name.replace('_', '-')}: {value}" for name, value in known.items() if value]
    return "\r\n".join([f"GET {path} HTTP/1.1", *own, *headers]).encode() + b"\r\n\r\n"


def goodbye(client: ClientConnection) -> tuple[int, str]:
    """The code and the reason with which the server ends it, after whatever came before."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            client.recv(30)
    return client.close_code or 0, client.close_reason or ""


class Bare:
    """A listener that does as it is told, frame by frame."""

    def __init__(self, server: Running, window: int = 0) -> None:
        self.socket = socket.socket()
        if window:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.socket.settimeout(30)
        self.socket.connect(("127.0.0.1", server.port))
        self.socket.sendall(handshake())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._exactly(1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert ACCEPT.encode() in head

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, opcode: int, data: bytes, *, fin: bool = True, masked: bool = True) -> None:
        size = len(data)
        first = bytes([opcode | 0x80 * fin])
        bit = 0x80 * masked
        length = bytes([bit | size]) if size < 126 else struct.pack("!BQ", bit | 127, size)
        key = bytes(4) if masked else b""  # a mask of zeros changes nothing
        self.socket.sendall(first + length + key + data)

    def frame(self) -> tuple[int, bytes]:
        """(opcode, data) of the next one. Raises ConnectionError at the end."""
        first, size = self._exactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", self._exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._exactly(8))
        return first & 0x0F, self._exactly(size)

    def rest(self) -> None:
        """Read on and on. Raises ConnectionError at the end."""
        while True:
            self.frame()

    def until(self, opcode: int) -> bytes:
        """The data of the next frame of that kind."""
        while True:
            found, data = self.frame()
            if found == opcode:
                return data

    def ended(self) -> tuple[int, bytes]:
        """The code and the reason of the goodbye; nothing but the end comes behind it."""
        data = self.until(8)
        assert self.socket.recv(1) == b""
        return struct.unpack("!H", data[:2])[0], data[2:]

    def _exactly(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            piece = self.socket.recv(size - len(found))
            if not piece:
                raise ConnectionError
            found += piece
        return bytes(found)
