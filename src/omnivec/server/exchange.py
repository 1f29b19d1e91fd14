"""A request and its response, between uvicorn's protocol and the application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

JOINED = 65_536
"""Bytes of a body that are copied behind its head at most: one write is quicker than two."""

Make: TypeAlias = Callable[[Callable[[Any], object]], Any]
"""Makes the protocol that takes a connection over, told whom to tell when it is lost."""


class Exchange(RequestResponseCycle):
    """A request and its response. The head waits for the first piece of the body, so that
    most responses are one write: two cost more than everything else that happens here."""

    _fixed: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")
    """uvicorn's own headers, of which it makes a new list every second, and their bytes."""
    hand_over: Callable[[bytes, Make], bool] | None = None
    """There when the client offers WebSocket and may be answered 101."""

    @classmethod
    def on(cls, connection: Any, *, keep_alive: bool) -> Exchange:
        """For the request whose head the connection has just read."""
        return cls(
            scope=connection.scope,
            transport=connection.transport,
            flow=connection.flow,
            logger=connection.logger,
            access_logger=connection.access_logger,
            access_log=False,
            default_headers=connection.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=connection.expect_100_continue,
            keep_alive=keep_alive,
            on_response=connection.on_response_complete,
        )

    def leave(self) -> None:
        """The client is gone."""
        if not self.response_complete:
            self.disconnected = True
            self.message_event.set()

    def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> bool:
        """Send a whole response in one go, without ASGI's messages, which cost as much as the
        rest of it. `headers` without a length. False: `send` it, as there is something to wait
        for or to leave out. Raises RuntimeError for a header with a line break."""
        if (
            self.response_started
            or self.disconnected
            or self.flow.write_paused
            or not self.keep_alive
            or self.scope["method"] == "HEAD"
        ):
            return False
        head = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if head.count("\n") != len(headers):
            raise RuntimeError("a header's value has a line break")
        self.response_started = True
        self.waiting_for_100_continue = False
        head = f"{head}content-length: {len(body)}\r\n\r\n"
        self._write(b"".join((STATUS_LINE[status], self._own(), head.encode("latin-1"))), body)
        self._complete()
        return True

    def switch(self, headers: Mapping[str, str], make: Make) -> bool:
        """Answer 101 and give the connection away. False: nothing was sent, as the client does
        not wait for that."""
        if self.hand_over is None or self.disconnected:
            return False
        lines = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]
        head = _lines(lines)
        if head.count(b"\n") != len(lines):
            raise RuntimeError("a header's value has a line break")
        head = b"".join((STATUS_LINE[101], self._own(), head, b"\r\n"))
        self.response_started = self.response_complete = self.hand_over(head, make)
        self.hand_over = None  # it holds the connection
        return self.response_complete

    def _write(self, head: bytes, body: bytes) -> None:
        if len(body) <= JOINED:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))

    def _own(self) -> bytes:
        listed, written = Exchange._fixed
        if listed is not self.default_headers:
            listed = self.default_headers
            written = _lines(listed)
            Exchange._fixed = listed, written
        return written

    def _complete(self) -> None:
        self.response_complete = True
        self.body = bytearray()  # what nobody read would stay until the next request comes
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self.response_started = True
            self.waiting_for_100_continue = False
            self._head_bytes = self._written(message)
            return
        body = b"" if self.scope["method"] == "HEAD" else message.get("body", b"")
        self._write(self._head_bytes, body)
        self._head_bytes = b""
        if not message.get("more_body", False):
            self._complete()

    def _written(self, message: Any) -> bytes:
        headers = [*self.default_headers, *message["headers"]]
        if (b"connection", b"close") in headers:
            self.keep_alive = False
        elif not self.keep_alive:
            headers.append((b"connection", b"close"))
        head = _lines(headers)
        if head.count(b"\n") != len(headers):
            raise RuntimeError("a header's value has a line break")
        return STATUS_LINE[message["status"]] + head + b"\r\n"


def _lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])
