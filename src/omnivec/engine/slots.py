"""A counted right to run, handed over in the order of asking.

`threading.Semaphore` lets in whoever holds the interpreter's lock at the moment: a thread that
releases it and asks again at once wins every time, and one that waits with an older batch
starves for as long as the load lasts.
"""

from __future__ import annotations

import threading
from collections import deque


class Slots:
    def __init__(self, free: int) -> None:
        self._lock = threading.Lock()
        self._free = free
        self._line: deque[threading.Lock] = deque()

    def acquire(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._line.append(turn)
        turn.acquire()

    def release(self) -> None:
        with self._lock:
            if self._line:
                self._line.popleft().release()
            else:
                self._free += 1
