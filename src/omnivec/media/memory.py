"""A file that is nowhere but in memory, for a process that reads descriptors."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from functools import partial
from typing import BinaryIO


@asynccontextmanager
async def filled(
    write: Callable[[BinaryIO], object], threads: Executor | None = None
) -> AsyncIterator[int]:
    """The descriptor of what a thread writes, until the block ends. A thread cannot be stopped:
    where the caller leaves before its end, the descriptor is closed when it has ended."""
    descriptor = _unnamed()
    writing = asyncio.get_running_loop().run_in_executor(threads, _fill, descriptor, write)
    del write  # and with it what is there twice, once it is written
    try:
        await asyncio.shield(writing)
        yield descriptor
    finally:
        if writing.done():
            os.close(descriptor)
        else:
            writing.add_done_callback(partial(_abandon, descriptor))


def _abandon(descriptor: int, written: asyncio.Future[None]) -> None:
    """Nobody asks any more what went wrong, if anything did."""
    os.close(descriptor)
    if not written.cancelled():
        written.exception()


def _unnamed() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("video")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _fill(descriptor: int, write: Callable[[BinaryIO], object]) -> None:
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        write(file)
