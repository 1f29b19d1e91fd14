"""What is left of a request that went wrong or whose caller left: nothing that only the garbage
collector finds, which on a server comes late. It would hold all that the request had loaded."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

import films
from omnivec.core.errors import Fault
from omnivec.core.nouns import Blob, Clip, Encode, Image, Item, Score, Text, Video
from omnivec.core.settings import Settings
from omnivec.engine.local import LocalEngine
from omnivec.hosts.assemble import local_engine
from pictures import photo, saved

SEEING = "seeing=fake:image=on,dims=8,faults=on"
PICTURE = Image(Blob(saved(photo(), "PNG")))
TORN = Image(Blob(saved(photo(), "PNG")[:500]))
FILM = films.make(frames=60, size=(320, 240))


@contextmanager
def collected() -> Iterator[list[BaseException]]:
    """The faults and departures among what the garbage collector finds after the block."""
    found: list[BaseException] = []
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += [one for one in gc.garbage if isinstance(one, Fault | asyncio.CancelledError)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def fail(engine: LocalEngine, task: Encode | Score) -> None:
    try:
        await engine.run(task)
    except Fault:
        return
    raise AssertionError("answered")


async def opened() -> LocalEngine:
    engine = local_engine(Settings(models=(SEEING, "fake-reranker:faults=on")))
    await engine.load()
    return engine


@pytest.mark.parametrize(
    "task",
    [
        Encode((Item((PICTURE, Text("[[raise]]"))),)),
        Encode((Item((PICTURE, Text("[[nan]]"))),)),
        Encode((Item((PICTURE,)), Item((TORN,)))),
        Encode((Item((Text("much " * 9000),)),), overflow="refuse"),
        Score(Item((Text("[[raise]]"),)), (Item((Text("a"),)), Item((Text("b"),)))),
        Encode((Item((Video(Blob(FILM[: len(FILM) // 2]), Clip(frames=9)),)),)),
        Encode((Item((Text("[[raise]]"), Video(Blob(FILM), Clip(frames=9)))),), each_frame=True),
    ],
    ids=["raised", "not finite", "torn", "too long", "scored", "torn video", "a frame"],
)
def test_a_fault_holds_nothing(task: Encode | Score) -> None:
    async def scenario() -> list[BaseException]:
        engine = await opened()
        try:
            with collected() as found:
                await fail(engine, task)
                await asyncio.sleep(0)
            return found
        finally:
            await engine.close()

    assert asyncio.run(scenario()) == []


@pytest.mark.parametrize("each_frame", [True, False])
def test_a_caller_that_leaves_a_video_holds_nothing(each_frame: bool) -> None:
    item = Item((Text("[[slow]]"), Video(Blob(FILM), Clip(frames=20))))

    async def leave(engine: LocalEngine) -> None:
        asked = asyncio.create_task(engine.run(Encode((item,), each_frame=each_frame)))
        while not engine._loader.purse.taken:  # noqa: ASYNC110 - a purse tells nobody
            await asyncio.sleep(0.001)
        asked.cancel()
        with suppress(asyncio.CancelledError):
            await asked
        assert asked.cancelled()

    async def scenario() -> list[BaseException]:
        engine = await opened()
        try:
            with collected() as found:
                await leave(engine)
                await asyncio.sleep(0)
            return found
        finally:
            await engine.close()

    assert asyncio.run(scenario()) == []
