from __future__ import annotations

import asyncio
import time

from omnivec.server.lag import EDGES, Lag


def test_what_keeps_the_loop_is_seen():
    async def main() -> Lag:
        lag = Lag(lambda: True)
        lag.start()
        await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251 - the loop is to be blocked
        await asyncio.sleep(0.001)
        lag.stop()
        return lag

    lag = asyncio.run(main())
    assert lag.longest > 0.1
    assert sum(lag.seen.counts) >= 1


def test_nothing_is_looked_at_after_the_stop():
    async def main() -> int:
        lag = Lag(lambda: True)
        lag.start()
        lag.stop()
        await asyncio.sleep(0.02)
        return sum(lag.seen.counts)

    assert asyncio.run(main()) == 0


def test_the_longest_lag_is_forgotten_after_two_windows():
    lag = Lag(lambda: False)
    lag.note(100.0, 0.3)
    assert lag.longest == 0.3
    lag.note(116.0, 0.1)
    assert lag.longest == 0.3
    lag.note(132.0, 0.02)
    assert lag.longest == 0.1
    lag.note(500.0, 0.001)
    assert lag.longest == 0.001


def test_the_histogram_has_every_look():
    lag = Lag(lambda: False)
    for late in (0.0, 0.004, 0.6):
        lag.note(1.0, late)
    assert lag.seen.counts == [1, 0, 1, *[0] * (len(EDGES) - 3), 1]


def test_an_idle_loops_timer_can_be_hurried():
    async def main() -> int:
        busy = [False]
        lag = Lag(lambda: busy[0])
        lag.hurry()  # not started: nothing to hurry
        lag.start()
        busy[0] = True
        lag.hurry()
        await asyncio.sleep(0.1)
        lag.stop()
        return sum(lag.seen.counts)

    assert asyncio.run(main()) >= 1
