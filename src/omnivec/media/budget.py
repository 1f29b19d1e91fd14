"""How much memory media may take, in one request and in all of them together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from omnivec.core import machine
from omnivec.core.errors import Overloaded, TooLarge

LARGEST = 1_000_000_000
"""Bytes of one request's media, decoded; less on a machine of less than 8 GB."""


class Purse:
    """What all requests have for media: a quarter of the machine's memory. From any thread."""

    def __init__(self, total: int | None = None) -> None:
        self.total = machine.installed() // 4 if total is None else total
        self.each = min(LARGEST, self.total // 2)
        self.taken = 0
        self._lock = threading.Lock()

    @contextmanager
    def opened(self) -> Iterator[Budget]:
        """One request's share, given back at the end."""
        budget = Budget(self)
        try:
            yield budget
        finally:
            self.give(budget.close())

    def take(self, count: int) -> None:
        """Raises Overloaded."""
        with self._lock:
            if self.taken + count > self.total:
                raise Overloaded("Too much media is being read here; try again.", retry_after=1)
            self.taken += count

    def give(self, count: int) -> None:
        with self._lock:
            self.taken -= count


class Budget:
    """One request's."""

    def __init__(self, purse: Purse) -> None:
        self._purse = purse
        self._taken = 0
        self._closed = False
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """So many bytes, before they are there. Raises TooLarge, and Overloaded when others
        have what is left."""
        with self._lock:
            if self._closed:  # a thread that went on after its request had left
                raise TooLarge(MUCH)
            if self._taken + count > self._purse.each:
                raise TooLarge(MUCH)
            self._purse.take(count)
            self._taken += count

    def give(self, count: int) -> None:
        """So many bytes of what was taken, when they are there no more. After the end nothing
        is left to give back."""
        with self._lock:
            if not self._closed:
                self._taken -= count
                self._purse.give(count)

    def close(self) -> int:
        """The bytes to give back."""
        with self._lock:
            self._closed = True
            return self._taken


MUCH = "The pictures and videos of this request are too large together; send fewer at a time."
