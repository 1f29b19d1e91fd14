"""The sweep, over connections that do no more than fail or say that they were looked at."""

from __future__ import annotations

import asyncio
import logging
import math

from omnivec.server import sweep
from omnivec.server.sweep import Phase, Sweep


class Line:
    """A connection whose deadline has passed; also its own transport."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, broken: bool = False) -> None:
        self.loop = loop
        self.transport = self
        self.phase = Phase.BODY
        self.deadline = self.stalled = 0.0
        self.broken = broken
        self.seen: list[str] = []
        self.done = asyncio.Event()

    def expire(self, now: float) -> None:
        self.seen.append("expire")
        if self.broken:
            raise KeyError("broken")

    def check_stall(self, now: float) -> None:
        self.seen.append("stall")
        if self.seen.count("stall") > 1:
            self.done.set()

    def abort(self) -> None:
        self.seen.append("abort")


def test_a_connection_that_fails_is_closed_and_the_others_keep_their_deadlines(monkeypatch, caplog):
    monkeypatch.setattr(sweep, "SWEEP", 0.01)

    async def main() -> tuple[Line, Line]:
        loop = asyncio.get_running_loop()
        lines = Line(loop, broken=True), Line(loop)
        watched = Sweep(8)
        for line in lines:
            watched.add(line)
        await asyncio.wait_for(lines[1].done.wait(), 10)
        watched.connections.clear()
        return lines

    with caplog.at_level(logging.ERROR):
        broken, sound = asyncio.run(main())
    assert broken.seen == ["expire", "abort"]
    assert broken.deadline == broken.stalled == math.inf
    assert sound.seen[:4] == ["expire", "stall", "expire", "stall"]
    assert "looked after" in caplog.text
