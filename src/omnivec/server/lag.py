"""How late the event loop is: what one request makes all the others wait.

A timer of the loop's own looks at the clock. What kept the loop beyond the timer's time is
its lag. While requests are in work the timer is quick, so that little is overlooked; an idle
server is hardly woken.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from omnivec.server.histogram import Histogram

IDLE = 0.25
BUSY = 0.005
"""Seconds between two looks, without and with requests in work."""
WINDOW = 15.0
"""Seconds: the longest lag is that of this window and of the one before."""
EDGES = (0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5)


class Lag:
    """The lags of one event loop; touched on its thread alone. `busy` is asked at each look."""

    def __init__(self, busy: Callable[[], bool]) -> None:
        self.seen = Histogram(EDGES)
        self._busy = busy
        self._now = self._before = 0.0
        self._window = 0.0  # when it began
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def longest(self) -> float:
        """Seconds: the longest lag of the last 15 to 30 s."""
        return max(self._now, self._before)

    def start(self) -> None:
        """On the running loop, until `stop`."""
        self._wait(asyncio.get_running_loop())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def hurry(self) -> None:
        """Something heavy begins: look soon, whatever an idle server's timer says."""
        if self._timer is not None:
            self._timer.cancel()
            self._wait(asyncio.get_running_loop())

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        step = BUSY if self._busy() else IDLE
        self._due = time.monotonic() + step
        self._timer = loop.call_later(step, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        self.note(now, max(0.0, now - self._due))
        self._wait(loop)

    def note(self, now: float, late: float) -> None:
        """The loop was so late, at that monotonic time."""
        if now - self._window > WINDOW:
            elapsed = now - self._window > 2 * WINDOW
            self._before, self._now, self._window = 0.0 if elapsed else self._now, 0.0, now
        self._now = max(self._now, late)
        self.seen.observe(late)
