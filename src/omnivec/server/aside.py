"""A thread for what would keep the event loop: reading large bodies, writing large replies.

One thread, because a second one would not be faster under the interpreter's lock and would
make the loop wait longer for it. What runs here gives the lock up between small steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LARGE_BODY = 65_536
"""Bytes of a request that are read on the loop at most: about a millisecond."""
LARGE_REPLY = 16_384
"""Numbers that are written on the loop at most: about half a millisecond."""


class Aside:
    """The thread begins with the first call and ends with the process."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="aside")

    async def run(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """What `work` gives or raises. Who stops waiting leaves the work to its end."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(work, *args, **named))
