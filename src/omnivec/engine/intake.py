"""Threads on which requests become features: off the event loop, a chunk of each in turn.

A bulk request goes to the back of the line after every chunk, so a short query waits for one
chunk at most; and its first batches run while the rest is still being tokenised.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from omnivec.core.errors import Fault, ModelFailed
from omnivec.core.nouns import Features, Unit
from omnivec.engine.batcher import Batcher
from omnivec.engine.job import Job

log = logging.getLogger("omnivec.engine")

CHUNK = 64
"""Units that are prepared together: enough for a few batches."""


class Feed:
    """One request on its way into a model's queue. Its places there are promised already.

    `split` makes the units, `asked` of which come before the request's first item.
    """

    def __init__(
        self, batcher: Batcher, job: Job, split: Callable[[], Sequence[Unit]], *, asked: int = 0
    ) -> None:
        self._batcher = batcher
        self._job = job
        self._split = split
        self._asked = asked
        self._units: Sequence[Unit] | None = None
        self._next = 0

    def step(self) -> bool:
        """Prepare and queue one chunk. Whether there is more to do."""
        try:
            return (not self._job.gone and self._advance()) or self._stop()
        except Fault as fault:
            self._job.fail(fault)
        except Exception:
            log.exception("%s: a request could not be prepared", self._batcher.name)
            self._job.fail(ModelFailed("The request could not be prepared for the model."))
        return self._stop()

    def _advance(self) -> bool:
        began = time.monotonic()
        if self._units is None:
            self._units = self._split()
        first = self._next
        chunk = self._units[first : first + CHUNK]
        features = self._prepare(chunk, first - self._asked)
        self._job.count(features, time.monotonic() - began)
        self._next += len(features)
        self._batcher.submit(self._job, features, first)
        return self._next < len(self._units)

    def _prepare(self, chunk: Sequence[Unit], offset: int) -> list[Features]:
        """A fault's `[3]` is made to count from the request's first item."""
        try:
            return self._batcher.model.prepare(chunk)
        except Fault as fault:
            if fault.param and fault.param.startswith("[") and offset:
                number, rest = fault.param[1:].split("]", 1)
                item = int(number) + offset
                fault.param = "query" if item < 0 else f"[{item}]{rest}"
            raise

    def _stop(self) -> bool:
        """Nothing more comes: give the places back that were promised and not taken."""
        self._batcher.withdraw(self._job.size - self._next)
        return False


class Intake:
    def __init__(self, threads: int) -> None:
        self._line: SimpleQueue[Feed | None] = SimpleQueue()
        for number in range(threads):
            threading.Thread(target=self._work, daemon=True, name=f"intake:{number}").start()

    def put(self, feed: Feed) -> None:
        self._line.put(feed)

    def close(self) -> None:
        """The threads end once the line before this is done."""
        self._line.put(None)

    def _work(self) -> None:
        while (feed := self._line.get()) is not None:
            if feed.step():
                self._line.put(feed)
        self._line.put(None)  # for the next thread
