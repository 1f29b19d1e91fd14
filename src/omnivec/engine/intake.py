"""Where requests become features: on threads off the event loop, a chunk of each in turn.

Whose chunk is next is decided as in the batcher: each has a due time, its request's arrival
plus a fixed time for each token of the request up to and including it. So a short query
overtakes bulk requests here, too, and their first batches run while the rest is tokenised.

A short request is prepared on the event loop itself: that takes less time than waking another
thread, which would then fight with the loop for the interpreter's lock.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from queue import PriorityQueue

from omnivec.core.errors import Fault, ModelFailed
from omnivec.core.nouns import Features, Unit
from omnivec.engine.batcher import Batcher
from omnivec.engine.job import Job
from omnivec.engine.memory import Memory, Order
from omnivec.engine.work import LETTERS_PER_TOKEN, size

log = logging.getLogger("omnivec.engine")

CHUNK = 64
"""Units that are prepared together at most: enough for a few batches."""
LETTERS = 65_536
"""Characters that are prepared together, unless one unit has more."""
TURN = 0.002
"""Seconds for which the event loop prepares short requests before it looks at its sockets."""


class Feed:
    """One request on its way into a model's queue. Its places there are promised already.

    `split` makes the units; what nobody computes and `memory` does not have is queued. `first`
    is how many characters the first chunk has.
    """

    def __init__(
        self,
        batcher: Batcher,
        memory: Memory,
        job: Job,
        split: Callable[[], Sequence[Unit]],
        first: int,
    ) -> None:
        self._batcher = batcher
        self._memory = memory
        self._job = job
        self._split = split
        self._units: Sequence[Unit] | None = None
        self._next = 0
        self._made: list[tuple[Order, int, list[Features]]] = []  # of the chunk to be queued
        self.due = self._due(first)

    def _due(self, chunk: int) -> float:
        """When the chunk of so many characters should be prepared."""
        return self._batcher.due(self._job, chunk // LETTERS_PER_TOKEN)

    def step(self) -> bool:
        """Prepare and queue one chunk. Whether there is more to do."""
        return self.prepare() and self.queue()

    def prepare(self) -> bool:
        """Prepare one chunk. Whether to call `queue` then; else the request is over."""
        try:
            if not self._job.gone:
                self._made.append(self._make())
                return True
        except Fault as fault:
            self._job.fail(fault)
        except Exception:
            log.exception("%s: a request could not be prepared", self._batcher.name)
            self._job.fail(_unprepared())
        return self._stop()

    def queue(self) -> bool:
        """Queue what was prepared. Whether there is more to do."""
        order, places, features = self._made.pop()
        if features:
            self._batcher.submit(order, features, 0)
            self._job.cost = order.cost
        self._withdraw(places - len(features))
        units = self._units or ()
        if self._next >= len(units):
            return self._stop()
        self.due = self._due(sum(size(unit.parts) for unit in self._chunk()))
        return True

    def _make(self) -> tuple[Order, int, list[Features]]:
        """What to queue for the next chunk, and how many places were promised for it."""
        if self._units is None:
            self._units = self._split()
        first = self._next
        chunk = self._chunk()
        order = self._memory.claim(self._job, chunk, first, self._batcher.due)
        features = self._prepare(order)
        self._next += len(chunk)
        return order, len(chunk), features

    def _chunk(self) -> Sequence[Unit]:
        units = self._units or ()
        end, total = self._next, 0
        while end < min(len(units), self._next + CHUNK) and total < LETTERS:
            total += size(units[end].parts)
            end += 1
        return units[self._next : end]

    def _prepare(self, order: Order) -> list[Features]:
        """A unit that is refused ends alone: others in the order may be waited for, too."""
        while order.tickets:
            began = time.monotonic()
            try:
                features = self._batcher.model.prepare(order.units)
            except Fault as fault:
                order.refuse(fault)
            except Exception:
                order.fail(_unprepared())
                raise
            else:
                order.count(features, time.monotonic() - began)
                return features
        return []

    def _stop(self) -> bool:
        """Nothing more comes: give the places back that were promised and not taken."""
        self._withdraw(self._job.size - self._next)
        return False

    def _withdraw(self, places: int) -> None:
        if places:
            self._batcher.withdraw(places)


class Express:
    """The short requests. All that came in one turn of the event loop are queued together when
    each has been prepared: a batch's thread that woke at the first of them would take that one
    alone, and take the interpreter's lock away from the others."""

    def __init__(self) -> None:
        self._feeds: deque[Feed] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None  # that will serve them

    def put(self, feed: Feed) -> None:
        """On the event loop's thread."""
        self._feeds.append(feed)
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            loop.call_soon(self._serve, loop)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = None
        end = time.monotonic() + TURN
        prepared = []
        while self._feeds and time.monotonic() < end:
            feed = self._feeds.popleft()
            if feed.prepare():
                prepared.append(feed)
        for feed in prepared:
            feed.queue()
        if self._feeds:
            self._loop = loop
            loop.call_soon(self._serve, loop)


class Intake:
    def __init__(self, threads: int) -> None:
        self._express = Express()
        self._line: PriorityQueue[tuple[float, int, Feed | None]] = PriorityQueue()
        self._count = count()
        for number in range(threads):
            threading.Thread(target=self._work, daemon=True, name=f"intake:{number}").start()

    def put(self, feed: Feed, *, short: bool = False) -> None:
        """On the event loop's thread. `short`: preparing it takes a tenth of a millisecond."""
        if short:
            self._express.put(feed)
        else:
            self._queue(feed)

    def _queue(self, feed: Feed) -> None:
        self._line.put((feed.due, next(self._count), feed))

    def close(self) -> None:
        """The threads end once the line before this is done."""
        self._line.put((math.inf, next(self._count), None))

    def _work(self) -> None:
        while (feed := self._line.get()[2]) is not None:
            if feed.step():
                self._queue(feed)
            del feed  # its pictures would stay for as long as this thread waits
        self.close()  # for the next thread


def _unprepared() -> ModelFailed:
    return ModelFailed("The request could not be prepared for the model.")
