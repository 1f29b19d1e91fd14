"""WS /ws/status: one frame every 200 ms, made once for all who listen, and only for them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping

from omnivec.core.errors import BadRequest, Fault, Forbidden, Loading, Overloaded
from omnivec.core.nouns import Call, Reply
from omnivec.server.auth import is_foreign
from omnivec.server.door import Door
from omnivec.server.listener import FAILED, Listener, written

log = logging.getLogger("omnivec.server")

PATH = "/ws/status"
EVERY = 0.2
"""Seconds from one frame to the next."""
MOST = 100
"""Listeners at once."""
SPOKEN = "omnivec"
"""The subprotocol that is agreed to: a browser that offers its key as one needs another one,
which may be said aloud in the answer."""
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_NONCE = 16  # bytes


class NotUpgraded(Fault):
    code = "upgrade_required"
    status = 426


class Feed:
    """Those who listen, and the task that makes their frames while there are any.

    `snapshot` makes a frame's JSON. `page` answers the handshake of a new listener, `listener`
    makes the protocol that has its connection afterwards.
    """

    def __init__(self, door: Door, snapshot: Callable[[], Awaitable[bytes]]) -> None:
        self._door = door
        self._snapshot = snapshot
        self._listeners: set[Listener] = set()
        self._frame: bytes | None = None
        self._task: asyncio.Task[None] | None = None

    async def page(self, call: Call) -> Reply:
        """101 and what RFC 6455 wants beside it. Raises Forbidden, BadRequest, Loading,
        Overloaded."""
        headers = call.headers
        if is_foreign(headers) and not self._door.keys.offered(headers):
            raise Forbidden(
                "A page of another site may listen with an API key only, offered as the "
                "subprotocol bearer.KEY (base64url)."
            )
        version = headers.get("sec-websocket-version", "")
        if headers.get(":protocol") != "websocket" or version != "13":
            return self._refuse()
        key = headers.get("sec-websocket-key", "")
        if not _is_nonce(key):
            raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64.")
        if self._door.draining:
            raise Loading("The server is shutting down.", retry_after=5)
        if len(self._listeners) >= MOST:
            raise Overloaded(f"There are {MOST} listeners already; try again.", retry_after=5)
        return Reply(b"", 101, _agreed(key, headers.get("sec-websocket-protocol", "")))

    def listener(self, forget: Callable[[Listener], object]) -> Listener:
        return Listener(self, forget)

    def join(self, listener: Listener) -> None:
        self._listeners.add(listener)
        if self._frame is not None:
            listener.show(self._frame)
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        if not self._listeners:
            self._stop()

    def _stop(self) -> None:
        task, self._task, self._frame = self._task, None, None
        if task is not None:
            task.cancel()

    async def _run(self) -> None:
        try:
            await self._tick()
        except Exception:
            log.exception("no status can be made")
            for listener in tuple(self._listeners):
                listener.finish(FAILED, "Internal error.")

    async def _tick(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            self._frame = written(await self._snapshot())
            for listener in tuple(self._listeners):
                listener.show(self._frame)
            due = max(due + EVERY, clock())
            await asyncio.sleep(due - clock())

    def _refuse(self) -> Reply:
        reply = self._door.speaker.fault(
            NotUpgraded("This path speaks WebSocket, version 13: connect with ws:// or wss://.")
        )
        wanted = {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13"}
        return Reply(reply.body, reply.status, {**reply.headers, **wanted})


def _agreed(key: str, offers: str) -> Mapping[str, str]:
    accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest())  # noqa: S324 - RFC 6455
    agreed = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-accept": accept.decode(),
    }
    if SPOKEN in (offer.strip() for offer in offers.split(",")):
        agreed["sec-websocket-protocol"] = SPOKEN
    return agreed


def _is_nonce(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == _NONCE
    except ValueError:
        return False
