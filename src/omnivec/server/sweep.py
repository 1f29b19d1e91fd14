"""The connections of one server, and the one timer that looks after all of them."""

from __future__ import annotations

import asyncio
import enum
import logging
import math
from typing import Protocol

log = logging.getLogger("omnivec.http")

SWEEP = 0.25
"""Seconds between two looks; a deadline is met that much late."""


class Phase(enum.IntEnum):
    """What a connection is doing; http.py draws how they follow."""

    OPEN = 0
    HEAD = 1
    BODY = 2
    BUSY = 3
    IDLE = 4
    LINGER = 5
    SWITCHED = 6


class Watched(Protocol):
    """A connection, as the sweep sees it. Times are those of the loop's clock."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    phase: Phase
    deadline: float
    stalled: float

    def expire(self, now: float) -> None: ...

    def check_stall(self, now: float) -> None: ...


class Sweep:
    """The connections of one server, and the one timer that looks after them."""

    def __init__(self, capacity: int) -> None:
        self.connections: set[Watched] = set()
        self.capacity = capacity
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: Watched) -> None:
        self.connections.add(connection)
        if self._timer is None:
            self._wait(connection.loop)

    def make_room(self) -> bool:
        """Whether there is room for a connection more; one that only waits must give way."""
        if len(self.connections) < self.capacity:
            return True
        for connection in self.connections:
            if connection.phase in (Phase.OPEN, Phase.IDLE):
                connection.phase = Phase.LINGER  # not to be chosen twice
                connection.transport.abort()
                return True
        return False

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(SWEEP, self._run, loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._look(loop.time())
        finally:
            self._timer = None
            if self.connections:
                self._wait(loop)

    def _look(self, now: float) -> None:
        for connection in tuple(self.connections):
            try:
                if connection.deadline <= now:
                    connection.expire(now)
                if connection.stalled <= now:
                    connection.check_stall(now)
            except Exception:
                log.exception("a connection could not be looked after; it is closed")
                connection.deadline = connection.stalled = math.inf
                connection.transport.abort()
