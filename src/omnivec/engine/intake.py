"""Threads on which requests become features: off the event loop, a chunk of each in turn.

Whose chunk is next is decided as in the batcher: each has a due time, its request's arrival
plus a fixed time for each token of the request up to and including it. So a short query
overtakes bulk requests here, too, and their first batches run while the rest is tokenised.
"""

from __future__ import annotations

import logging
import math
import threading
import time
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
        self.due = self._due(first)

    def _due(self, chunk: int) -> float:
        """When the chunk of so many characters should be prepared."""
        return self._batcher.due(self._job, chunk // LETTERS_PER_TOKEN)

    def step(self) -> bool:
        """Prepare and queue one chunk. Whether there is more to do."""
        try:
            return (not self._job.gone and self._advance()) or self._stop()
        except Fault as fault:
            self._job.fail(fault)
        except Exception:
            log.exception("%s: a request could not be prepared", self._batcher.name)
            self._job.fail(_unprepared())
        return self._stop()

    def _advance(self) -> bool:
        if self._units is None:
            self._units = self._split()
        first = self._next
        chunk = self._chunk()
        self._next += len(chunk)
        queued = 0
        try:
            queued = self._queue(self._memory.claim(self._job, chunk, first, self._batcher.due))
        finally:
            if queued < len(chunk):
                self._batcher.withdraw(len(chunk) - queued)
        self.due = self._due(sum(size(unit.parts) for unit in self._chunk()))
        return self._next < len(self._units)

    def _chunk(self) -> Sequence[Unit]:
        units = self._units or ()
        end, total = self._next, 0
        while end < min(len(units), self._next + CHUNK) and total < LETTERS:
            total += size(units[end].parts)
            end += 1
        return units[self._next : end]

    def _queue(self, order: Order) -> int:
        """Prepare what has to be computed; how many units that were."""
        features = self._prepare(order)
        if features:
            self._batcher.submit(order, features, 0)
            self._job.cost = order.cost
        return len(features)

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
        self._batcher.withdraw(self._job.size - self._next)
        return False


class Intake:
    def __init__(self, threads: int) -> None:
        self._line: PriorityQueue[tuple[float, int, Feed | None]] = PriorityQueue()
        self._count = count()
        for number in range(threads):
            threading.Thread(target=self._work, daemon=True, name=f"intake:{number}").start()

    def put(self, feed: Feed) -> None:
        self._line.put((feed.due, next(self._count), feed))

    def close(self) -> None:
        """The threads end once the line before this is done."""
        self._line.put((math.inf, next(self._count), None))

    def _work(self) -> None:
        while (feed := self._line.get()[2]) is not None:
            if feed.step():
                self.put(feed)
        self.close()  # for the next thread


def _unprepared() -> ModelFailed:
    return ModelFailed("The request could not be prepared for the model.")
