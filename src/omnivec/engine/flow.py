"""The frames of a video through a model while later ones are decoded.

    outputs = await Flow(embed).through(pieces)

Whoever decodes is held up when the model is slower: only so much is decoded and not embedded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

from omnivec.media.pieces import Piece

T = TypeVar("T")

AHEAD = 64 << 20
"""Bytes of frames that are under way together, unless one has more."""
MANY = 64
"""Of any size: enough for a few batches."""


class Flow(Generic[T]):
    """`waited` are the seconds for which there was nothing to begin with, yet."""

    def __init__(self, work: Callable[[Piece], Awaitable[T]]) -> None:
        self.waited = 0.0
        self._work = work
        self._size = 0  # of what is under way
        self._count = 0
        self._change = asyncio.Event()

    async def through(self, pieces: AsyncIterator[Piece]) -> list[T]:
        """What the work makes of each, in order. Raises the first fault, of the pieces or of the
        work; what is under way ends then, and when the caller is cancelled."""
        tasks: list[asyncio.Task[T]] = []
        wrong: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                begin = group.create_task
                tasks = [begin(self._step(piece)) async for piece in self._admitted(pieces)]
        except BaseExceptionGroup as failures:
            wrong = failures.exceptions[0]
            failures.__traceback__ = None  # the group's own frame there holds it in turn
        except asyncio.CancelledError as left:
            raise left.with_traceback(None)  # noqa: B904 - for the same reason
        try:
            if wrong is not None:  # not in the handler: then all of the others would hang on it
                raise wrong
            return [task.result() for task in tasks]
        finally:  # else it holds, through its traceback, itself and all frames
            del wrong
            tasks.clear()

    async def _admitted(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
        """Each as soon as there is room for it, or nothing else under way."""
        asked = time.monotonic()
        async for piece in pieces:
            self.waited += time.monotonic() - asked
            while self._count and (self._size + piece.size > AHEAD or self._count >= MANY):
                self._change.clear()
                await self._change.wait()
            self._size += piece.size
            self._count += 1
            yield piece
            asked = time.monotonic()

    async def _step(self, piece: Piece) -> T:
        try:
            return await self._work(piece)
        finally:
            piece.free()
            self._size -= piece.size
            self._count -= 1
            self._change.set()
