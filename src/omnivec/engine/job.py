"""One request's items in one model's queue, and the promise of their outputs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from omnivec.core.errors import Fault
from omnivec.core.nouns import Features, Output, Timing, Usage


class Caller(Protocol):
    """Whom the batcher works for: a job, or an order that stands for several."""

    arrived: float  # monotonic
    cost: int  # of its items so far, which the batcher adds up

    @property
    def gone(self) -> bool: ...

    def settle(
        self, index: int, outcome: Output | Fault, started: float, seconds: float
    ) -> None: ...

    def fail(self, fault: Fault) -> None: ...


class Mailbox:
    """What other threads have for the jobs of one event loop: one wake-up of the loop delivers
    all that came until then, so a batch of many requests costs one and not one for each."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._letters: deque[Callable[[], None]] = deque()
        self._rung = False

    def post(self, letter: Callable[[], None]) -> None:
        """Call it on the loop, which may be closed already when a server is shutting down."""
        self._letters.append(letter)
        if not self._rung and not self.loop.is_closed():
            self._rung = True
            self.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._rung = False  # first, so that what comes during the delivery rings again
        while self._letters:
            self._letters.popleft()()


_here = threading.local()


def _mailbox() -> Mailbox:
    """That of the running loop, of which a thread has one at a time."""
    loop = asyncio.get_running_loop()
    found: Mailbox | None = getattr(_here, "mailbox", None)
    if found is None or found.loop is not loop:
        found = _here.mailbox = Mailbox(loop)
    return found


class Job:
    """Filled by one thread at a time, under a lock of theirs; awaited on the event loop.

    `outputs` has a place for each item, `asked` of which come before the request's first, and
    `each` of which stand for one of the request's. `cost` is of what the request had in the
    queue before. The first fault ends the job, and what it still has in the queue is dropped
    there as departed.
    """

    def __init__(self, items: int, asked: int = 0, each: int = 1, cost: int = 0) -> None:
        self.arrived = time.monotonic()
        self.size = items
        self.asked = asked
        self.each = each
        self.cost = cost
        self.tokens = 0
        self.cut = 0
        self.gone = False
        self.prepare = 0.0  # seconds, as the next two
        self.queue = 0.0
        self.inference = 0.0
        self.outputs: list[Output | None] = [None] * items
        self._pending = items
        self._mailbox = _mailbox()
        self._done: asyncio.Future[Sequence[Output]] | None = self._mailbox.loop.create_future()

    async def wait(self) -> Sequence[Output]:
        """The outputs in order, once. Raises the first fault. Cancelled: the items leave the
        queue."""
        done = self._done
        assert done is not None  # noqa: S101 - one caller waits for it
        try:
            return await done
        finally:
            self.gone = True
            # else a fault in it holds, through its traceback, whoever has this job, and that
            # this job: the request's pictures would stay until the garbage collector comes
            self._done = None
            del done

    def charge(self, tokens: int, *, cut: bool) -> None:
        """Count an item's tokens, whoever computed it."""
        self.tokens += tokens
        self.cut += cut

    def settle(self, index: int, outcome: Output | Fault, started: float, seconds: float) -> None:
        """Record one item; `started` is the monotonic time at which its batch began."""
        if self.gone:
            return
        if isinstance(outcome, Fault):
            self.fail(outcome)
            return
        self.outputs[index] = outcome
        self.queue = max(self.queue, started - self.arrived)
        self.inference = max(self.inference, seconds)
        self._pending -= 1
        if not self._pending:
            self._mailbox.post(self._finish)

    def fail(self, fault: Fault) -> None:
        self.gone = True
        self._mailbox.post(partial(self._fail, fault))

    def _finish(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result([output for output in self.outputs if output is not None])

    def _fail(self, fault: Fault) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(fault)
            self._done.exception()  # a caller that left never asks; asyncio would log that


def usage(jobs: Sequence[Job]) -> Usage:
    """Of a request that has these."""
    items = sum((job.size - job.asked) // job.each for job in jobs)
    cut = sum(-(-job.cut // job.each) for job in jobs)
    return Usage(sum(job.tokens for job in jobs), items, cut)


def timing(jobs: Sequence[Job], seconds: float) -> Timing:
    """What several threads prepared at once is no longer than the whole."""
    return Timing(
        seconds,
        min(seconds, sum(job.prepare for job in jobs)),
        max(job.queue for job in jobs),
        max(job.inference for job in jobs),
    )


@dataclass(order=True, slots=True)
class Entry:
    """One item in the queue, ordered by its due time and then by arrival."""

    due: float
    sequence: int
    job: Caller = field(compare=False)
    index: int = field(compare=False)
    features: Features = field(compare=False)
    heavy: bool = field(default=False, compare=False)
    alone: bool = field(default=False, compare=False)
