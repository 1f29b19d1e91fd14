"""One video in one child: from its descriptor and a clip to frames, under ceilings."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

import msgspec

from omnivec.core.errors import BadRequest, Fault, ModelFailed, TooLarge
from omnivec.core.nouns import Clip, Pixels
from omnivec.media.child import SLOW, Child
from omnivec.media.frames import choose
from omnivec.media.messages import Close, Done, Facts, Frame, Open, Want

T = TypeVar("T")
THREADS = 4  # that a decoder has at most, each with the seconds of a video


class Ceilings(msgspec.Struct, frozen=True):
    """What one video may take. `seconds` of waiting for its process, which may use that much
    processor time on each of its threads; `memory` is that process's address space and `total`
    all pixels that come of one request, both in bytes."""

    frames: int = 4096
    side: int = 8192
    pixels: int = 36_000_000  # of one frame
    total: int = 4 << 30
    packets: int = 2_000_000
    seconds: float = 60.0
    memory: int = 3 << 30


class Shot(msgspec.Struct, frozen=True):
    """One frame; `time` is in seconds from the video's start, at its constant rate."""

    index: int
    time: float
    pixels: Pixels


class Showing:
    def __init__(self, child: Child, clip: Clip, ceilings: Ceilings) -> None:
        self._child = child
        self._clip = clip
        self._ceilings = ceilings
        self._left = ceilings.seconds
        self._bytes = 0
        self._counted = 0

    async def shots(self, format_: str, descriptor: int) -> AsyncGenerator[Shot, None]:
        """At least one. When none of the frames that were chosen by what the container says can
        be decoded, they are chosen again by what is there."""
        await self._child.open(self._wishes(format_), descriptor)
        facts = await self._within(self._child.hear())
        if not isinstance(facts, Facts):
            raise _nonsense()
        total, came = facts.frames, False
        while not came:
            async for shot in self._project(facts, await self._choose(facts, total)):
                came = True
                yield shot
            if not came and not 0 < self._counted < total:
                await self._child.ask(Close())
                raise BadRequest("None of the frames that the clip means can be decoded.")
            total = self._counted
        await self._child.ask(Close())

    def _wishes(self, format_: str) -> Open:
        most = self._ceilings
        seconds = math.ceil(most.seconds * THREADS)
        return Open(format_, most.side, most.pixels, most.packets, most.memory, seconds, THREADS)

    async def _choose(self, facts: Facts, total: int) -> tuple[int, ...]:
        try:
            chosen = choose(self._clip, total, facts.rate, self._ceilings.frames)
            if len(chosen) * facts.width * facts.height * 3 > self._ceilings.total:
                raise _too_much()
        except Fault:
            await self._child.ask(Close())
            raise
        return chosen

    async def _project(self, facts: Facts, chosen: tuple[int, ...]) -> AsyncGenerator[Shot, None]:
        await self._within(self._child.ask(Want(chosen)))
        expected = iter(chosen)
        while isinstance(frame := await self._within(self._child.hear()), Frame):
            if frame.index not in expected:  # takes what is left out from it, too
                raise _nonsense()
            self._weigh(frame)
            rgb = await self._within(self._child.pixels(frame))
            yield Shot(frame.index, frame.index / facts.rate, Pixels(rgb))
        if not isinstance(frame, Done):
            raise _nonsense()
        self._counted = frame.frames

    def _weigh(self, frame: Frame) -> None:
        """Frames need not be of the size that the container says."""
        most = self._ceilings
        if not (0 < frame.height <= most.side and 0 < frame.width <= most.side):
            raise _nonsense()
        self._bytes += frame.height * frame.width * 3
        if frame.height * frame.width > most.pixels or self._bytes > most.total:
            raise _too_much()

    async def _within(self, step: Coroutine[Any, Any, T]) -> T:
        """Only time that is spent waiting for the child counts."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            async with asyncio.timeout(self._left):
                return await step
        except TimeoutError:
            raise BadRequest(SLOW) from None
        finally:
            self._left -= clock() - begun


def _too_much() -> TooLarge:
    return TooLarge("The frames that the clip means are too large together; ask for fewer.")


def _nonsense() -> ModelFailed:
    return ModelFailed("The process that decodes videos did not do what it was asked.")
