"""Videos to frames, in processes that can be killed.

    async with Decoders() as decoders:
        film = await decoders.decode(data, Clip(frames=8))

Processes are started when a video needs one, a few are kept for the next, and they are
replaced when they crash, hang or are given up half-way; other videos do not notice. Needs the
extra `video`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Self

from omnivec.core import machine
from omnivec.core.errors import BadRequest, Loading, Unsupported
from omnivec.core.nouns import Clip, Film
from omnivec.media.child import UNREADABLE, Child
from omnivec.media.containers import HEAD, container
from omnivec.media.frames import check
from omnivec.media.memory import filled
from omnivec.media.showing import Ceilings, Shot, Showing

INSTALL = "pip install 'omnivec[video]'"
MOST = 8  # processes


class Decoders:
    """At most `most` processes, by default as the machine has memory for what they may take.
    `reading` of them are waited for at a time: a video whose caller is slow keeps its process,
    and is in nobody's way. A source is a video's bytes, or the descriptor of a regular file that
    stays the caller's.

    Raises BadRequest for a video or a clip that cannot be read, TooLarge for one beyond the
    ceilings, ModelFailed when the process ended over it, Unsupported without the extra.
    """

    def __init__(
        self, most: int | None = None, ceilings: Ceilings | None = None, reading: int = 2
    ) -> None:
        self._ceilings = ceilings or Ceilings()
        room = machine.installed() // self._ceilings.memory
        self._open = asyncio.Semaphore(most or min(MOST, max(2 * reading, room)))
        self._turns = asyncio.Semaphore(reading)
        self._kept = reading
        self._idle: list[Child] = []
        self._busy: list[Child] = []
        self._closed = False

    async def decode(self, source: bytes | int, clip: Clip) -> Film:
        async with aclosing(self.stream(source, clip)) as shots:
            taken = [shot async for shot in shots]
        return Film(tuple(shot.pixels for shot in taken), tuple(shot.time for shot in taken))

    async def stream(self, source: bytes | int, clip: Clip) -> AsyncGenerator[Shot, None]:
        """Frames as they are decoded, in their order, at least one. While the caller is busy with
        one, the process decodes on until the socket is full. Close it (`aclosing`)."""
        if find_spec("av") is None:
            raise Unsupported(f"Videos need an extra that is not installed: {INSTALL}")
        check(clip, self._ceilings.frames)
        format_ = container(source[:HEAD] if isinstance(source, bytes) else _head(source))
        if format_ is None:
            raise BadRequest(UNREADABLE)
        async with self._open, _descriptor(source) as descriptor:
            with self._child() as child:
                shots = Showing(child, clip, self._ceilings).shots(format_, descriptor)
                async with aclosing(shots):
                    while (shot := await self._next(shots)) is not None:
                        yield shot

    async def _next(self, shots: AsyncIterator[Shot]) -> Shot | None:
        async with self._turns:
            return await anext(shots, None)

    def close(self) -> None:
        """Ends all processes, those at work too, and waits until they are gone. What is asked
        afterwards, or waited for its turn, is answered with Loading."""
        self._closed = True
        idle, self._idle = self._idle, []
        for child in (*idle, *self._busy):
            child.kill()
        for child in (*idle, *self._busy):
            child.wait()
        for child in idle:
            child.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def _child(self) -> Iterator[Child]:
        child = self._take()
        self._busy.append(child)
        try:
            yield child
        finally:
            self._busy.remove(child)
            if child.idle and child.alive and len(self._idle) < self._kept:
                self._idle.append(child)
            else:
                _end(child)

    def _take(self) -> Child:
        if self._closed:
            raise Loading("The server is going away.", retry_after=5)
        while self._idle:
            child = self._idle.pop()
            if child.alive:
                return child
            _end(child)
        return Child()


def _end(child: Child) -> None:
    """A thread waits for it."""
    child.kill()
    child.close()
    asyncio.get_running_loop().run_in_executor(None, child.wait)


def _head(descriptor: int) -> bytes:
    try:
        return os.pread(descriptor, HEAD, 0)
    except OSError:
        raise BadRequest(UNREADABLE) from None


def _descriptor(source: bytes | int) -> AbstractAsyncContextManager[int]:
    if isinstance(source, int):
        return nullcontext(source)
    return filled(lambda file: file.write(source))
