"""uvicorn's HTTP/1.1 protocol with what it lacks: deadlines, limits and a strict Host.

A connection is in one phase at a time. One sweep of all connections a few times a second
looks for deadlines that have passed, so that a request costs no timer of its own.

    OPEN ─first byte→ HEAD ─headers→ BODY ─all of it→ BUSY ─answered→ IDLE ─first byte→ HEAD
                        └──── refused ────┴→ LINGER (the refusal is sent, what comes is dropped)
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from omnivec.core.settings import Settings
from omnivec.server.exchange import Exchange, Make
from omnivec.server.offer import is_socket, plain_head
from omnivec.server.refusal import (
    BAD_HOST,
    BAD_VERSION,
    CROWDED,
    LARGE_HEAD,
    LONG_URL,
    MALFORMED,
    MANY_HEADERS,
    MANY_REQUESTS,
    MAX_HEAD,
    MAX_HEADERS,
    MAX_URL,
    MAX_WAITING,
    SLOW_BODY,
    SLOW_HEAD,
    Refusal,
    Refused,
    reason,
    valid_host,
)
from omnivec.server.sweep import Phase, Sweep

MIN_RATE = 1024
"""Bytes a second: a body that comes slower, after a grace as long as the head's, is cut."""
STALL = 10.0
"""Seconds in which a client with a full buffer must have read something (MIN_RATE)."""
LINGER = 2.0
"""Seconds for a refused client to read the refusal, while what it still sends is dropped."""
DRAIN_GRACE = 0.3
"""Seconds that an idle connection stays open at shutdown, for a request already on its way."""


def protocol(
    settings: Settings,
    *,
    capacity: int = 8192,
    refused: Callable[[int], None] | None = None,
) -> type[Connection]:
    """The class that uvicorn makes each connection of (`Config(http=...)`).

    `capacity` is how many connections there may be at once; `refused` is told the status of
    each request that was answered here.
    """
    facts = {
        "sweep": Sweep(capacity),
        "head_time": settings.header_timeout,
        "body_time": settings.body_timeout,
        "refused": staticmethod(refused or (lambda _: None)),
    }
    return type("Connection", (Connection,), facts)


class Connection(HttpToolsProtocol):
    """One connection. `deadline` and `stalled` are times of the loop's clock at which
    something must have happened; the sweep calls `expire` and `check_stall` then."""

    sweep: Sweep
    head_time: float
    body_time: float
    refused: Callable[[int], None]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.phase = Phase.OPEN
        self.deadline = math.inf
        self.stalled = math.inf
        self.draining = False
        self._unread = 0  # bytes in the socket's buffer when it was last looked at
        self._head = 0  # bytes of this request's headers so far
        self._sent = 0  # bytes that came after the piece in which its head began
        self._fresh = False  # whether a head began in the piece that is being read
        self._body = 0
        self._since = 0.0  # when this request's body was first waited for
        self._offered = False  # whether another protocol is offered, so that we read again
        self._socket = False  # whether the one that was offered is WebSocket
        self._host: bytes | None = None  # the last Host that was found valid
        self._hosts = 0  # Host headers of this request
        self._left: Callable[[], None] | None = None
        self._served: Exchange | None = None  # the one that the application has or had last
        self._extensions: dict[str, dict[object, object]] = {"omnivec.left": {"watch": self.watch}}

    def watch(self, left: Callable[[], None] | None) -> None:
        """`left` is called once when the client goes away; None takes it back."""
        self._left = left

    # ── the transport's side ─────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn
        super().connection_made(transport)
        self.deadline = self.loop.time() + self.head_time
        room = self.sweep.make_room()
        self.sweep.add(self)
        if not room:
            self.refused(CROWDED.status)
            self.phase = Phase.LINGER
            transport.write(CROWDED.answer())
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.sweep.connections.discard(self)
        left, self._left = self._left, None
        if self._served is not None:
            self._served.leave()  # uvicorn tells the one that was read last, which may wait
        super().connection_lost(exc)
        self._let_go()
        if left is not None:
            left()

    def _let_go(self) -> None:
        """Of what holds this connection: it would stay until the garbage collector comes."""
        self._extensions.clear()
        self.pipeline.clear()
        self._served = self.cycle = self.scope = self.parser = None  # type: ignore[assignment] # as at first

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.LINGER:
            return
        if self.phase is Phase.OPEN or self.phase is Phase.IDLE:
            self._begin()
        self._fresh = False
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self.refuse(reason(error))
        else:
            self._reckon(len(data))

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # Java's client offers h2c with every first request, POST too. This parser
                # waits for another protocol now and has left the body unread; so a fresh one
                # reads the request again, without the offer.
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self._offered = False
                self._begin()
                rest = data[upgrade.args[0] :]
                self._socket = not rest and not self._answering() and is_socket(self.scope)
                data = plain_head(self.scope, self.url) + rest
            else:
                return

    def _reckon(self, size: int) -> None:
        """After a piece was read: is the head still in its limit, when must the body end?"""
        if self.phase is Phase.BODY:
            self.deadline = self._body_deadline()
        elif self.phase is Phase.HEAD and not self._fresh:
            # the parser holds back a header until it is whole, so count what was sent
            self._sent += size
            if self._sent > MAX_URL + MAX_HEAD:
                self.refuse(LARGE_HEAD)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing(self.loop.time())

    def resume_writing(self) -> None:
        super().resume_writing()
        self.stalled = math.inf  # the rest is small: the keep-alive's deadline looks after it

    def shutdown(self) -> None:
        """The server is going: finish what was read, wait a moment for what is on its way."""
        self.draining = True
        if self.phase is Phase.LINGER:
            return
        if self._answering():
            self.cycle.keep_alive = False
        grace = DRAIN_GRACE if self.phase in (Phase.OPEN, Phase.IDLE) else LINGER
        if self.phase is not Phase.BUSY:
            self.deadline = min(self.deadline, self.loop.time() + grace)

    # ── the parser's side ────────────────────────────────────────────────────────────────

    def _begin(self) -> None:
        self.phase = Phase.HEAD
        self._head = self._sent = self._hosts = 0
        self.deadline = self.loop.time() + (LINGER if self.draining else self.head_time)

    def on_message_begin(self) -> None:
        self._fresh = True
        if self.phase is not Phase.HEAD:  # a pipelined request, behind another in one piece
            self._begin()
        super().on_message_begin()
        self.scope["extensions"] = self._extensions

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > MAX_URL:
            raise Refused(LONG_URL)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head += len(name) + len(value) + 4
        if self._head > MAX_HEAD:
            raise Refused(LARGE_HEAD)
        if self.phase is not Phase.HEAD:
            return  # a trailer: the headers have been acted upon already
        if len(self.headers) >= MAX_HEADERS:
            raise Refused(MANY_HEADERS)
        name = name.lower()
        if name == b"host":
            self._hosts += 1
            if value != self._host:
                self._host = valid_host(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise Refused(BAD_VERSION)
        if self._hosts != 1 and (self._hosts or version == "1.1"):
            raise Refused(BAD_HOST)
        parsed = httptools.parse_url(self.url)
        if parsed.path is None:
            raise Refused(MALFORMED)  # CONNECT names a host instead
        path = parsed.path.decode("ascii")
        scope = self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = parsed.path
        scope["query_string"] = parsed.query or b""
        if self.parser.should_upgrade():
            self._offered = True
            return
        if len(self.pipeline) >= MAX_WAITING:
            raise Refused(MANY_REQUESTS)
        if self._socket:  # said as HTTP/2 has it, by a name that no client can send
            self.headers.append((b":protocol", b"websocket"))
        self._body = 0
        self._since = 0.0
        self.phase = Phase.BODY
        waiting = self._answering()
        self.cycle = self._exchange(version)
        if waiting:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))
        else:
            self._start_asgi_task(self.cycle, self.app)

    def _exchange(self, version: str) -> Exchange:
        keep = version != "1.0" and self.parser.should_keep_alive()
        exchange = Exchange.on(self, keep_alive=keep and not self.draining)
        if self._socket:
            self._socket = False
            exchange.hand_over = self.hand_over
        return exchange

    def hand_over(self, head: bytes, make: Make) -> bool:
        """A request that offered WebSocket is answered 101: from then on the connection is
        another protocol's. False when the client did not wait for it or the server is going."""
        if self.phase is not Phase.BUSY or self.pipeline or self.draining:
            return False
        self.transport.write(head)
        taker = make(self._forget)
        self.connections.add(taker)
        self.sweep.add(taker)
        self._forget(self)
        self._let_go()
        self.transport.set_protocol(taker)
        taker.connection_made(self.transport)
        return True

    def _forget(self, gone: Any) -> None:
        self.connections.discard(gone)
        self.sweep.connections.discard(gone)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._offered:
            return
        super().on_message_complete()
        if self.cycle.response_complete:
            self._rest()
        else:
            self.phase = Phase.BUSY
            self.deadline = math.inf

    def on_response_complete(self) -> None:
        """As uvicorn's, but the sweep looks after the keep-alive, without a timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.phase is Phase.LINGER:
            self.transport.close()  # a later request was refused; all before it are answered
        elif self.phase is Phase.BUSY:
            self._rest()

    def _rest(self) -> None:
        self.phase = Phase.IDLE
        wait = DRAIN_GRACE if self.draining else self.timeout_keep_alive
        self.deadline = self.loop.time() + wait

    # ── deadlines ────────────────────────────────────────────────────────────────────────

    def _body_deadline(self) -> float:
        self._since = self._since or self.loop.time()
        if self.draining:
            return self.deadline
        slowest = self.head_time + self._body / MIN_RATE
        return self._since + min(self.body_time, slowest)

    def expire(self, now: float) -> None:
        """A deadline passed: what that means depends on the phase."""
        if self.flow.read_paused:  # it is we who keep the client waiting
            self._since = now
            self.deadline = now + self.head_time
        elif self.phase is Phase.HEAD:
            self.refuse(SLOW_HEAD)
        elif self.phase is Phase.BODY:
            self.refuse(SLOW_BODY)
        elif self.transport.get_write_buffer_size():
            self.deadline = math.inf if self.transport.is_closing() else now + LINGER
            self._watch_writing(now)
        else:
            self.deadline = math.inf
            self.transport.close()

    def _watch_writing(self, now: float) -> None:
        if self.stalled == math.inf:
            self._unread = self.transport.get_write_buffer_size()
            self.stalled = now + STALL

    def check_stall(self, now: float) -> None:
        """STALL seconds with unread bytes: cut, unless the client is reading, slowly."""
        left = self.transport.get_write_buffer_size()
        if left and self._unread - left < MIN_RATE * STALL:
            self.transport.abort()
        self.stalled = math.inf
        if left:
            self._watch_writing(now)

    def refuse(self, refusal: Refusal) -> None:
        """Answer in the application's place if nothing was answered yet, then close."""
        cycle = self.cycle
        waiting = self._answering()
        if waiting and not cycle.more_body:
            self._deafen(math.inf)  # earlier requests are in work: theirs are the last answers
            return
        reading_on = self.phase is Phase.BODY and not waiting  # answered before its end
        if waiting:
            cycle.disconnected = True
            cycle.message_event.set()
        self._deafen(self.loop.time() + LINGER)
        if self.pipeline:
            self.transport.close()
        elif not (waiting and cycle.response_started) and not reading_on:
            self.refused(refusal.status)
            self.transport.write(refusal.answer())
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()

    def _answering(self) -> bool:
        """Whether the last request whose headers were read has no whole response yet."""
        cycle: Any = self.cycle  # uvicorn does not say that it is None at first
        return cycle is not None and not cycle.response_complete

    def _deafen(self, deadline: float) -> None:
        self.phase = Phase.LINGER
        self.deadline = deadline
        self.flow.resume_reading()
