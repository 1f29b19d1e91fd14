"""Frames on their way: in order, ahead of the model by a little, and gone when one goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from omnivec.core.errors import BadRequest, Fault, ModelFailed
from omnivec.core.nouns import Item, Text
from omnivec.engine import flow
from omnivec.engine.flow import Flow
from omnivec.media.pieces import Piece


class Stage:
    """A source of pieces and the work on them, both of which say when. `held` is the memory that
    was given to pieces and not freed yet."""

    def __init__(self, count: int, size: int = 1) -> None:
        self.events: list[str] = []
        self.held = self.most = 0
        self.closed = False
        self._count = count
        self._size = size

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        try:
            for number in range(self._count):
                self.events.append(f"made {number}")
                self.held += self._size
                self.most = max(self.most, self.held)
                yield Piece(number, Item((Text(str(number)),)), self._size, self._free)
        finally:
            self.closed = True

    def _free(self, size: int) -> None:
        self.held -= size

    async def work(self, piece: Piece) -> int:
        await asyncio.sleep(0)
        self.events.append(f"done {piece.origin}")
        return piece.origin


def run(stage: Stage, work: Callable[[Piece], Any] | None = None) -> list[int]:
    async def scenario() -> list[int]:
        async with aclosing(stage.pieces()) as pieces:
            return await Flow(work or stage.work).through(pieces)

    return asyncio.run(scenario())


def test_outputs_are_in_order_whichever_is_first() -> None:
    stage = Stage(40)

    async def work(piece: Piece) -> int:
        for _ in range(40 - piece.origin):
            await asyncio.sleep(0)
        return await stage.work(piece)

    assert run(stage, work) == list(range(40))
    assert stage.events.index("done 39") < stage.events.index("done 0")
    assert stage.held == 0


def test_nothing_comes_to_nothing() -> None:
    assert run(Stage(0)) == []


def test_no_more_is_made_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "AHEAD", 35)
    stage = Stage(50, size=10)
    assert run(stage) == list(range(50))
    assert stage.most == 40  # three are under way, one waits for room
    assert stage.events.index("done 0") < stage.events.index("made 4")


def test_small_ones_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "MANY", 5)
    stage = Stage(50, size=0)
    assert run(stage) == list(range(50))
    assert stage.events.index("done 0") < stage.events.index("made 6")


def test_one_that_is_larger_than_all_the_room_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "AHEAD", 5)
    stage = Stage(3, size=10)
    assert run(stage) == [0, 1, 2]
    assert stage.events.index("done 0") < stage.events.index("done 1")
    assert stage.most == 20


def test_work_that_fails_ends_the_rest() -> None:
    stage, left = Stage(1000), []

    async def work(piece: Piece) -> int:
        if piece.origin == 2:
            raise BadRequest("the third")
        try:
            await asyncio.Event().wait()
        finally:
            left.append(piece.origin)
        raise AssertionError

    with pytest.raises(BadRequest, match="the third"):
        run(stage, work)
    assert {0, 1} <= set(left)
    assert len(stage.events) <= flow.MANY + 2  # one took the place of the third
    assert stage.closed


def test_pieces_that_end_badly_end_the_work() -> None:
    stage, left = Stage(3), []

    async def pieces() -> AsyncGenerator[Piece, None]:
        async for piece in stage.pieces():
            yield piece
        await asyncio.sleep(0)
        raise ModelFailed("the decoder died")

    async def work(piece: Piece) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            left.append(piece.origin)
        raise AssertionError

    async def scenario() -> None:
        await Flow(work).through(pieces())

    with pytest.raises(Fault, match="the decoder died") as failed:
        asyncio.run(scenario())
    assert sorted(left) == [0, 1, 2]
    assert stage.held == 0
    assert failed.value.__context__ is None  # else it would keep all the others' frames


def test_a_caller_that_leaves_ends_all_of_it() -> None:
    stage, left, full = Stage(1000), [], asyncio.Event()

    async def work(piece: Piece) -> int:
        if piece.origin == flow.MANY - 1:
            full.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.append(piece.origin)
        raise AssertionError

    async def scenario() -> None:
        async with aclosing(stage.pieces()) as pieces:
            task = asyncio.create_task(Flow(work).through(pieces))
            await full.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(scenario())
    assert sorted(left) == list(range(flow.MANY))
    assert stage.closed
