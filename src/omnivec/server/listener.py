"""One listener's end of a WebSocket: frames out, and next to nothing in.

Only the latest frame waits for a listener that reads slowly, so it costs no memory, and a
listener is heard only to know that it is there. The sweep that looks after all connections
calls `expire` and `check_stall` here too.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Protocol

from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER
from websockets.protocol import Protocol as Framing

from omnivec.server.sweep import Phase

PING = 20.0
"""Seconds without a word from a listener before it is asked; as many again to answer."""
STALL = 10.0
"""Seconds in which a listener must have read what was written to it."""
LINGER = 2.0
"""Seconds for the other side's part of the closing handshake."""
MOST_HEARD = 4096
"""Bytes of a message to us: there is nothing to say, so a longer one is a mistake."""
GOING_AWAY = 1001
FAILED = 1011

_log = logging.getLogger("omnivec.websocket")
_log.setLevel(logging.WARNING)  # the library would tell of each frame


class Audience(Protocol):
    """Whom a listener tells that it came and went."""

    def join(self, listener: Listener) -> None: ...

    def leave(self, listener: Listener) -> None: ...


class Listener(asyncio.Protocol):
    """A connection after its handshake. `forget` is told when it is lost."""

    transport: asyncio.Transport

    def __init__(self, audience: Audience, forget: Callable[[Listener], object]) -> None:
        self.loop = asyncio.get_running_loop()
        self.phase = Phase.SWITCHED
        self.deadline = math.inf
        self.stalled = math.inf
        self._framing = Framing(SERVER, state=OPEN, max_size=MOST_HEARD, logger=_log)
        self._audience = audience
        self._forget = forget
        self._asked = False  # whether a ping has no answer yet
        self._paused = False  # whether the other side has not read what was written
        self._next: bytes | None = None

    def show(self, frame: bytes) -> None:
        """Send a whole frame, at once or in place of one that still waits."""
        if self._paused:
            self._next = frame
        elif self._framing.state is OPEN:
            self.transport.write(frame)

    def finish(self, code: int, reason: str) -> None:
        """Say goodbye; the other side has LINGER seconds to do so, too."""
        if self._framing.state is OPEN:
            self._framing.send_close(code, reason)
            self._end()

    def shutdown(self) -> None:
        """The server is going (uvicorn calls it)."""
        self.finish(GOING_AWAY, "The server is shutting down.")

    # ── the transport's side ─────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # it is a socket's
        self.transport = transport
        transport.set_write_buffer_limits(high=0)
        self.deadline = self.loop.time() + PING
        self._audience.join(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._next = None
        self._audience.leave(self)
        self._forget(self)

    def data_received(self, data: bytes) -> None:
        """Pings and a goodbye are answered, messages dropped, nonsense refused with a code."""
        self._framing.receive_data(data)
        self._framing.events_received()
        if self._framing.state is OPEN:
            self._asked = False
            self.deadline = self.loop.time() + PING
            self._write()
        elif self.phase is Phase.LINGER:
            self._write()
        else:
            self._end()

    def pause_writing(self) -> None:
        self._paused = True
        self.transport.pause_reading()  # its pings must not fill our memory with pongs
        self.stalled = self.loop.time() + STALL

    def resume_writing(self) -> None:
        self._paused = False
        self.transport.resume_reading()
        self.stalled = math.inf
        frame, self._next = self._next, None
        if frame is not None:
            self.show(frame)

    # ── the sweep's side ─────────────────────────────────────────────────────────────────

    def expire(self, now: float) -> None:
        if self._asked or self.phase is Phase.LINGER:
            self.deadline = math.inf
            self.transport.abort()
            return
        self.deadline = now + PING
        if not self._paused:
            self._asked = True
            self._framing.send_ping(b"")
            self._write()

    def check_stall(self, _now: float) -> None:
        self.stalled = math.inf
        self.transport.abort()

    def _end(self) -> None:
        self.phase = Phase.LINGER
        self.deadline = self.loop.time() + LINGER
        self._next = None
        self._audience.leave(self)
        self._write()

    def _write(self) -> None:
        for piece in self._framing.data_to_send():
            if self.transport.is_closing():
                return
            if piece:
                self.transport.write(piece)
            elif self.transport.can_write_eof():
                self.transport.write_eof()
            else:
                self.transport.close()


def written(text: bytes) -> bytes:
    """A text message as it is on the wire, the same for every listener."""
    return bytes(Frame(Opcode.TEXT, text).serialize(mask=False))
