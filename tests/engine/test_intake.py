"""How requests become features: short ones on the event loop, all of a turn together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from omnivec.core.errors import BadRequest, Fault
from omnivec.core.nouns import Encode, Features, Item, Score, Text, Tokens, Unit
from omnivec.core.settings import Settings
from omnivec.engine.batcher import Batcher
from omnivec.engine.intake import Express, Feed
from omnivec.engine.job import Caller, Job
from omnivec.engine.memory import Memory
from omnivec.engine.work import FEW, SHORT, is_short
from omnivec.hosts.assemble import local_engine


class Recorder:
    """Stands before a real batcher: notes what is prepared and queued, and in which order."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self.name = batcher.name
        self.model = self
        self.events: list[str] = []

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        self.events.append("prepare")
        return self._batcher.model.prepare(units)

    def submit(self, job: Caller, features: Sequence[Features], first: int) -> None:
        self.events.append("submit")
        self._batcher.submit(job, features, first)

    def withdraw(self, items: int) -> None:
        self.events.append(f"withdraw {items}")
        self._batcher.withdraw(items)

    def due(self, job: Caller, cost: int) -> float:
        return self._batcher.due(job, cost)


def units(*texts: str) -> list[Unit]:
    return [Unit(parts=(Text(text),)) for text in texts]


def recorded(gone: int = -1, broken: int = -1) -> tuple[list[str], list[object], int]:
    """Three requests in one turn of the loop, of which one may have left or be refused: what
    happened, what came of each, and how many items the queue thinks are waiting at the end."""

    async def main() -> tuple[list[str], list[object], int]:
        engine = local_engine(Settings(models=("fake:dims=8",)))
        await engine.load()
        batcher = next(iter(engine._residents.values())).batcher
        assert batcher is not None
        recorder, express, memory = Recorder(batcher), Express(), Memory()
        jobs = [Job(1) for _ in range(3)]

        def split(number: int) -> list[Unit]:
            if number == broken:
                raise BadRequest("refused")
            return units(f"text {number}")

        for number, job in enumerate(jobs):
            job.gone = number == gone
            batcher.admit(1)
            feed = Feed(recorder, memory, job, lambda n=number: split(n), 6)  # type: ignore[arg-type,misc] # as a batcher
            express.put(feed)
        assert recorder.events == []
        waits = [job.wait() for job in jobs if not job.gone]
        came = await asyncio.gather(*waits, return_exceptions=True)
        depth = batcher.depth()[0]
        await engine.close()
        return recorder.events, list(came), depth

    return asyncio.run(main())


def test_the_requests_of_one_turn_are_queued_when_all_are_prepared() -> None:
    events, came, waiting = recorded()
    assert events == ["prepare"] * 3 + ["submit"] * 3
    assert len(came) == 3
    assert waiting == 0


def test_one_that_left_gives_its_place_back() -> None:
    events, came, waiting = recorded(gone=1)
    assert events == ["prepare", "withdraw 1", "prepare", "submit", "submit"]
    assert len(came) == 2
    assert waiting == 0


def test_one_that_is_refused_ends_alone() -> None:
    events, came, waiting = recorded(broken=0)
    assert events == ["withdraw 1", "prepare", "prepare", "submit", "submit"]
    assert isinstance(came[0], Fault)
    assert not any(isinstance(one, Fault) for one in came[1:])
    assert waiting == 0


@pytest.mark.parametrize(
    ("task", "short"),
    [
        (Encode((Item((Text("one"),)),)), True),
        (Encode((Item((Text("x" * SHORT),)),)), True),
        (Encode((Item((Text("x" * SHORT),), "y"),)), False),
        (Encode(tuple(Item((Text("x"),)) for _ in range(FEW))), True),
        (Encode(tuple(Item((Text("x"),)) for _ in range(FEW + 1))), False),
        (Encode((Item((Tokens((1, 2)),)),)), False),
        (Score(Item((Text("x" * SHORT),)), (Item((Text("y"),)),)), False),
        (Score(Item((Text("a question"),)), (Item((Text("an answer"),)),)), True),
    ],
)
def test_what_is_short(task: Encode | Score, short: bool) -> None:
    assert is_short(task) is short
