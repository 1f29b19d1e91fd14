"""What comes back from a batch's thread to the event loop."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from omnivec.core.errors import Fault, ModelFailed
from omnivec.core.nouns import Output, Vectors
from omnivec.engine.job import Job, Mailbox


def vector(value: float) -> Vectors:
    return Vectors(dense=np.full(2, value, np.float32))


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts how often another thread woke it."""

    woken = 0

    def call_soon_threadsafe(self, *args: object, **named: object) -> asyncio.Handle:
        self.woken += 1
        return super().call_soon_threadsafe(*args, **named)  # type: ignore[arg-type] # passed on as they came


def test_a_batch_of_many_jobs_wakes_the_loop_once() -> None:
    loop = CountingLoop()

    async def main() -> list[list[Output]]:
        jobs = [Job(1) for _ in range(50)]
        waits = asyncio.gather(*(job.wait() for job in jobs))

        def batch() -> None:
            for number, job in enumerate(jobs):
                job.settle(0, vector(number), 0.0, 0.0)

        thread = threading.Thread(target=batch)
        thread.start()
        thread.join()  # the loop is busy for as long as the batch settles
        return [list(outputs) for outputs in await waits]

    try:
        outputs = loop.run_until_complete(main())
    finally:
        loop.close()
    assert [float(one.dense[0]) for (one,) in outputs if isinstance(one, Vectors)] == [*range(50)]
    assert loop.woken == 1


def test_jobs_settled_from_several_threads_all_end() -> None:
    async def main() -> int:
        jobs = [Job(1) for _ in range(400)]

        def settle(part: list[Job]) -> None:
            for job in part:
                job.settle(0, vector(1), 0.0, 0.0)

        threads = [threading.Thread(target=settle, args=(jobs[at::4],)) for at in range(4)]
        for thread in threads:
            thread.start()
        ended = await asyncio.wait_for(asyncio.gather(*(job.wait() for job in jobs)), 30)
        for thread in threads:
            thread.join()
        return len(ended)

    assert asyncio.run(main()) == 400


def test_the_first_fault_ends_a_job() -> None:
    async def main() -> None:
        job = Job(2)
        job.settle(0, ModelFailed("first"), 0.0, 0.0)
        job.settle(1, vector(1), 0.0, 0.0)
        await job.wait()

    with pytest.raises(Fault, match="first"):
        asyncio.run(main())


def test_what_is_posted_during_a_delivery_is_delivered_too() -> None:
    async def main() -> list[str]:
        box = Mailbox(asyncio.get_running_loop())
        came: list[str] = []

        def first() -> None:
            came.append("first")
            box.post(lambda: came.append("second"))

        box.post(first)
        await asyncio.sleep(0.01)
        return came

    assert asyncio.run(main()) == ["first", "second"]


def test_a_job_of_a_closed_loop_can_still_be_settled() -> None:
    async def make() -> Job:
        return Job(1)

    job = asyncio.run(make())
    job.settle(0, vector(1), 0.0, 0.0)
    assert job.outputs[0] is not None
