"""A connection that ended is gone, whenever its client left: it holds bodies, and what only the
garbage collector finds is found late here."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import time
import weakref
from collections.abc import Iterator

import pytest
from serving import Running, post, read_response, running

from omnivec.server.http import Connection

GOOD = post(b'{"input": "abc"}')
SLOW = post(b'{"input": "slow"}')
NOWHERE = post(bytes(200_000), "/nowhere")
HANDSHAKE = (
    b"GET /ws/status HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
RESET = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as made:
        yield made


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[weakref.ref[Connection]]]:
    """The connections of a test, in which the garbage collector rests."""
    found: list[weakref.ref[Connection]] = []
    begin = Connection.connection_made

    def note(self: Connection, transport: asyncio.Transport) -> None:
        found.append(weakref.ref(self))
        begin(self, transport)

    monkeypatch.setattr(Connection, "connection_made", note)
    gc.collect()
    gc.disable()
    try:
        yield found
    finally:
        gc.enable()


def is_over(made: list[weakref.ref[Connection]]) -> bool:
    end = time.monotonic() + 10
    while [ref() for ref in made] != [None] and time.monotonic() < end:
        time.sleep(0.01)
    return [ref() for ref in made] == [None]


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (GOOD, True),
        (GOOD * 5, True),
        (NOWHERE, True),
        (HANDSHAKE, True),
        (b"\x16\x03\x01" + bytes(100), True),
        (GOOD[:20], False),
        (GOOD[:-5], False),
        (SLOW, False),
        (SLOW + GOOD + GOOD, False),
    ],
    ids=["one", "five", "refused", "socket", "tls", "head", "body", "work", "work and more"],
)
def test_it_is_gone(
    server: Running,
    made: list[weakref.ref[Connection]],
    sent: bytes,
    answered: bool,
    reset: bool,
) -> None:
    with server.raw() as client:
        client.sendall(sent)
        if answered:
            client.recv(65536)
        elif sent.startswith(SLOW):
            assert server.engine.began.wait(10)
            server.engine.began.clear()
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    assert is_over(made)


def test_a_body_that_nobody_read_is_not_kept_with_the_connection(
    server: Running, made: list[weakref.ref[Connection]]
) -> None:
    with server.raw() as client:
        client.sendall(NOWHERE)
        assert read_response(client)[0] == 404
        with server.raw() as other:
            other.sendall(GOOD)
            assert read_response(other)[0] == 200
        connection = made[0]()
        assert connection is not None
        assert connection.cycle.body == b""
