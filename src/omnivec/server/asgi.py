"""The door as an ASGI application: bytes from the server in, bytes out, nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from omnivec.core.errors import BadRequest, Overloaded, TooLarge, WrongType
from omnivec.core.nouns import Call, Reply
from omnivec.core.settings import Settings
from omnivec.server.admin import add_admin
from omnivec.server.door import Door
from omnivec.server.exchange import Exchange
from omnivec.server.exposition import Exposition
from omnivec.server.feed import PATH, Feed
from omnivec.server.metrics import Metrics
from omnivec.server.openapi import document
from omnivec.server.pages import add_pages
from omnivec.server.probes import add_probes
from omnivec.server.status import Status

Hook = Callable[[], Awaitable[None]]

SINGLE = frozenset(
    {b"authorization", b"x-api-key", b"api-key", b"sec-websocket-protocol", b"traceparent"}
)
"""Headers of which a second one makes both void."""
MOST_HELD = 512 * 2**20
"""Bytes of request bodies that the server holds at once, read or being read."""
SWITCHING = 101
DISCARD = 1.0
"""Seconds for which the rest of a refused body is read and dropped, so that the client gets
to read the refusal and not a broken connection."""


def application(
    door: Door,
    settings: Settings,
    metrics: Metrics,
    *,
    startup: Hook | None = None,
    shutdown: Hook | None = None,
) -> Application:
    """The ASGI application of a door; adds probes, metrics and documentation to the door.

    `startup` runs before the port answers, so it starts the loading of models and does not
    wait for it; `shutdown` runs when the last request has been answered.
    """
    add_probes(door, metrics, Exposition(metrics))
    add_admin(door, settings.admin_key)
    add_pages(door, partial(document, door, settings))
    feed = Feed(door, Status(door, settings, metrics).snapshot)
    door.add_page(PATH, feed.page)
    return Application(door, settings.max_body, feed, startup, shutdown)


class Application:
    """Raw ASGI for requests, Starlette for the lifespan. `door.draining` is for whoever stops
    the server: it makes the readiness probe say no."""

    def __init__(
        self,
        door: Door,
        max_body: int,
        feed: Feed,
        startup: Hook | None = None,
        shutdown: Hook | None = None,
    ) -> None:
        self.door = door
        self.feed = feed
        self.bodies = Bodies(max(MOST_HELD, max_body), max_body)
        self._hooks = (startup, shutdown)
        self._starlette = Starlette(
            routes=[Mount("/", app=self._http)], lifespan=lambda _: self._lifespan()
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":  # past Starlette's layers: they cost as much as the door
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":  # under another server than ours
            await send({"type": "websocket.close"})
        else:
            await self._starlette(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        startup, shutdown = self._hooks
        self.door.metrics.lag.start()
        if startup is not None:
            await startup()
        try:
            yield
        finally:
            self.door.metrics.lag.stop()
            if self.door.tracer is not None:
                await self.door.tracer.close()
            if shutdown is not None:
                await shutdown()

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        visitor = Visitor(scope, receive, self.bodies)
        try:
            call = Call(
                scope["method"],
                scope["path"],
                query=_query(scope["query_string"]),
                headers=visitor.headers,
            )
            reply = await self.door.answer(call, visitor.read)
            if reply.status == SWITCHING:
                if self._switched(send, reply):
                    return
                reply = self.door.speaker.fault(BadRequest("A listener sends nothing before 101."))
            await _send(send, reply, visitor)
        except asyncio.CancelledError:
            if visitor.gone:
                self.door.metrics.left += 1
            else:  # the server stops, and this call took longer than it could wait
                visitor.task.uncancel()
                await _send(send, self.door.depart(), visitor)
        finally:
            visitor.close()

    def _switched(self, send: Send, reply: Reply) -> bool:
        exchange = getattr(send, "__self__", None)
        return isinstance(exchange, Exchange) and exchange.switch(reply.headers, self.feed.listener)


class Bodies:
    """The bodies of all requests in work: `left` bytes more may be held, `each` by one."""

    def __init__(self, most: int, each: int) -> None:
        self.left = most
        self.each = each

    def take(self, size: int) -> None:
        """Raises Overloaded when there is no room. Whoever took gives back."""
        if size > self.left:
            raise Overloaded("Too many large requests at once; try again.", retry_after=1)
        self.left -= size


class Visitor:
    """One client with its request: its headers, its body, and whether it is still there.

    When the client goes away the task that serves it is cancelled. Our own protocol says so
    through the extension "omnivec.left", which costs nothing; under any other server a task
    waits for `http.disconnect`.
    """

    __slots__ = (
        "_bodies",
        "_held",
        "_listener",
        "_receive",
        "_watch",
        "gone",
        "headers",
        "refused",
        "task",
    )

    def __init__(self, scope: Scope, receive: Receive, bodies: Bodies) -> None:
        self.headers = _headers(scope["headers"])
        self.gone = False
        self.refused = False
        self.task = _current_task()
        self._receive = receive
        self._bodies = bodies
        self._held = 0
        self._listener: asyncio.Task[None] | None = None
        extension = scope.get("extensions", {}).get("omnivec.left")
        self._watch = None if extension is None else extension["watch"]
        if self._watch is not None:
            self._watch(self.leave)

    def leave(self) -> None:
        """The client is gone: whatever is done for it ends."""
        self.gone = True
        self.task.cancel()

    def close(self) -> None:
        """The call is over; its body is given up, and a departure no longer matters."""
        self._bodies.left += self._held
        self._held = 0
        if self._watch is not None:
            self._watch(None)
        if self._listener is not None:
            self._listener.cancel()

    async def read(self) -> bytes:
        """The whole body. Raises TooLarge, if it can before any of it was read, Overloaded and,
        for a compressed one, WrongType."""
        if self.headers.get("content-encoding", "identity") not in ("identity", ""):
            self.refused = True
            raise WrongType("Bodies are read as they are: send no Content-Encoding.")
        length = self.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._bodies.each:
            raise self._too_large()
        message = await self._next()
        body = self._take(message)
        if message.get("more_body", False):
            body = await self._rest(body)
        if self._watch is None:
            self._listener = asyncio.create_task(self._listen())
        return body

    async def discard(self) -> None:
        """Drop what still comes, for a while."""
        if "expect" in self.headers:
            return  # it waits for our word before it sends
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCARD):
                while (await self._next()).get("more_body", False):
                    pass

    async def _rest(self, first: bytes) -> bytes:
        whole, more = io.BytesIO(), True  # joining pieces at the end would keep the loop
        whole.write(first)
        while more:
            message = await self._next()
            whole.write(self._take(message))
            more = message.get("more_body", False)
        return whole.getvalue()

    def _take(self, message: Mapping[str, Any]) -> bytes:
        """A piece of the body, counted."""
        piece: bytes = message.get("body", b"")
        if self._held + len(piece) > self._bodies.each:
            raise self._too_large()
        try:
            self._bodies.take(len(piece))
        except Overloaded:
            self.refused = True
            raise
        self._held += len(piece)
        return piece

    async def _next(self) -> Mapping[str, Any]:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone = True
            raise asyncio.CancelledError
        return message

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.leave()

    def _too_large(self) -> TooLarge:
        self.refused = True
        return TooLarge(f"A body may be {self._bodies.each} bytes long.")


async def _send(send: Send, reply: Reply, visitor: Visitor) -> None:
    if _sent_whole(send, reply, visitor):
        return
    headers = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()
    ]
    headers.append((b"content-length", b"%d" % len(reply.body)))
    if visitor.refused:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if not visitor.refused:
        await send({"type": "http.response.body", "body": reply.body})
        return
    await send({"type": "http.response.body", "body": reply.body, "more_body": True})
    await visitor.discard()
    await send({"type": "http.response.body"})


def _sent_whole(send: Send, reply: Reply, visitor: Visitor) -> bool:
    """Whether our own protocol, whose `send` this is, took the reply in one piece."""
    exchange = getattr(send, "__self__", None)
    if visitor.refused or not isinstance(exchange, Exchange):
        return False
    return exchange.answer(reply.status, reply.headers, reply.body)


def _headers(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """By name, in lower case already. A credential that comes twice is none: two readers
    could take two different ones for it."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}
    if len(headers) != len(raw):
        names = [name for name, _ in raw]
        for name in SINGLE:
            if names.count(name) > 1:
                del headers[name.decode()]
    return headers


def _query(raw: bytes) -> dict[str, str]:
    return dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True)) if raw else {}


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - ASGI applications are called in a task
    return task
