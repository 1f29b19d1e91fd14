"""The batcher alone, with models small enough to see what it does to them."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

from omnivec.core.errors import Loading, ModelFailed, Overloaded
from omnivec.core.nouns import Array, Features, Output, Vectors
from omnivec.core.seams import SessionLost, Unit
from omnivec.engine import batcher as module
from omnivec.engine.batcher import TURNS, Batcher
from omnivec.engine.job import Job
from omnivec.engine.lanes import width_class

Forward = Callable[[Sequence[Features]], list[Output]]


class Recorder:
    """A model whose vector is [cost]; it keeps every batch it was given."""

    padding = 1.0

    def __init__(
        self, forward: Forward | None = None, *, streams: int = 1, batch_cost: int = 64
    ) -> None:
        self.streams = streams
        self.batch_cost = batch_cost
        self.batches: list[list[int]] = []
        self.alone: list[bool] = []
        self.closed = False
        self._forward = forward or echo

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        raise AssertionError("the batcher never prepares")

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        self.alone.append(alone)
        self.batches.append([features.cost for features in batch])
        return self._forward(batch)

    def close(self) -> None:
        self.closed = True


class Quiet:
    def batch(self, model: str, rows: int, tokens: int, seconds: float) -> None:
        pass


def echo(batch: Sequence[Features]) -> list[Output]:
    return [Vectors(dense=np.array([f.cost], np.float32)) for f in batch]


def items(*costs: int) -> list[Features]:
    return [Features(arrays={}, cost=cost, tokens=cost) for cost in costs]


@contextmanager
def running(model: Recorder, **options: object) -> Iterator[Batcher]:
    reopen = options.pop("reopen", lambda: model)
    batcher = Batcher("m", model, reopen=reopen, watch=Quiet(), **options)  # type: ignore[arg-type]
    try:
        yield batcher
    finally:
        batcher.close()


def start(batcher: Batcher, features: Sequence[Features]) -> Job:
    batcher.admit(len(features))
    job = Job(len(features))
    batcher.submit(job, features, 0)
    return job


async def answers(batcher: Batcher, *costs: int) -> list[float]:
    return [float(out.dense[0]) for out in await start(batcher, items(*costs)).wait()]


class Gate:
    """A forward that waits until it is opened, so that a queue can build up behind it."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self.twice = threading.Event()

    def __call__(self, batch: Sequence[Features]) -> list[Output]:
        (self.twice if self.entered.is_set() else self.entered).set()
        assert self.open.wait(60)
        return echo(batch)


def test_outputs_come_in_the_order_of_the_inputs() -> None:
    with running(Recorder(streams=2)) as batcher:
        costs = [1 + (i * 37) % 60 for i in range(300)]
        assert asyncio.run(answers(batcher, *costs)) == costs


def test_items_of_several_requests_share_a_batch() -> None:
    gate = Gate()
    model = Recorder(gate, batch_cost=80)

    async def scenario(batcher: Batcher) -> None:
        first = start(batcher, items(8))
        await asyncio.to_thread(gate.entered.wait)
        others = [start(batcher, items(8)) for _ in range(6)]
        gate.open.set()
        await asyncio.gather(*(job.wait() for job in [first, *others]))

    with running(model) as batcher:
        asyncio.run(scenario(batcher))
    assert model.batches == [[8], [8] * 6]


def test_a_batch_keeps_the_budget_and_like_lengths() -> None:
    gate = Gate()
    model = Recorder(gate, batch_cost=64)

    async def scenario(batcher: Batcher) -> None:
        first = start(batcher, items(64))
        await asyncio.to_thread(gate.entered.wait)
        rest = start(batcher, items(*[8] * 9, *[30] * 3, 16, 64))
        gate.open.set()
        await asyncio.gather(first.wait(), rest.wait())

    with running(model) as batcher:
        asyncio.run(scenario(batcher))
    for batch in model.batches:
        assert max(batch) * len(batch) <= 64
        assert min(batch) >= 0.5 * max(batch)
    assert sorted(cost for batch in model.batches for cost in batch) == sorted(
        [64, *[8] * 9, *[30] * 3, 16, 64]
    )


def test_a_query_overtakes_bulk_work_that_is_long_overdue() -> None:
    gate = Gate()
    model = Recorder(gate, batch_cost=3200)

    async def scenario(batcher: Batcher) -> None:
        bulk = start(batcher, items(*[3200] * 100))
        await asyncio.to_thread(gate.entered.wait)
        await asyncio.sleep(0.05)
        query = start(batcher, items(5))
        gate.open.set()
        await asyncio.gather(bulk.wait(), query.wait())

    with running(model, max_age=0.01) as batcher:
        asyncio.run(scenario(batcher))
    assert model.batches.index([5]) <= 2  # one ran when it came, one may be the heavy ones' turn


def test_a_heavy_request_is_not_starved_by_light_ones() -> None:
    gate = Gate()
    model = Recorder(gate, batch_cost=64)

    async def scenario(batcher: Batcher) -> None:
        first = start(batcher, items(8))
        await asyncio.to_thread(gate.entered.wait)
        heavy = start(batcher, items(100))
        await asyncio.sleep(0.05)
        lights = [start(batcher, items(60)) for _ in range(20)]
        gate.open.set()
        await asyncio.gather(first.wait(), heavy.wait(), *(job.wait() for job in lights))

    with running(model, max_age=0.01) as batcher:
        asyncio.run(scenario(batcher))
    assert model.batches.index([100]) <= TURNS


def test_a_batch_is_alone_only_when_nothing_runs_or_waits() -> None:
    gate = Gate()
    model = Recorder(gate, streams=2)

    async def scenario(batcher: Batcher) -> None:
        first = start(batcher, items(8))
        await asyncio.to_thread(gate.entered.wait)
        second = start(batcher, items(9))
        await asyncio.to_thread(gate.twice.wait)
        gate.open.set()
        await asyncio.gather(first.wait(), second.wait())
        await start(batcher, items(60, 60)).wait()
        await start(batcher, items(7)).wait()

    with running(model) as batcher:
        asyncio.run(scenario(batcher))
    seen = list(zip(model.batches, model.alone, strict=True))
    assert seen[:2] == [([8], True), ([9], False)]
    assert seen[2][1] is False  # half of the work was left for the other stream
    assert seen[-1] == ([7], True)


def test_groups_never_share_a_batch() -> None:
    seen: list[set[object]] = []

    def forward(batch: Sequence[Features]) -> list[Output]:
        seen.append({features.group for features in batch})
        return echo(batch)

    mixed = [Features(arrays={}, cost=8, tokens=8, group=i % 3) for i in range(60)]

    async def scenario(batcher: Batcher) -> int:
        return len(await start(batcher, mixed).wait())

    with running(Recorder(forward)) as batcher:
        assert asyncio.run(scenario(batcher)) == 60
    assert all(len(groups) == 1 for groups in seen)


def test_only_the_guilty_item_fails() -> None:
    def forward(batch: Sequence[Features]) -> list[Output]:
        if any(features.cost == 13 for features in batch):
            raise RuntimeError("a kernel fell over")
        return echo(batch)

    async def scenario(batcher: Batcher) -> list[object]:
        jobs = [start(batcher, items(13 if i == 5 else 12)) for i in range(32)]
        return await asyncio.gather(*(job.wait() for job in jobs), return_exceptions=True)

    with running(Recorder(forward, batch_cost=512)) as batcher:
        outcome = asyncio.run(scenario(batcher))
    assert isinstance(outcome[5], ModelFailed)
    assert sum(isinstance(result, Exception) for result in outcome) == 1


def test_numbers_that_are_not_finite_fail_alone() -> None:
    def forward(batch: Sequence[Features]) -> list[Output]:
        # a neighbour's infinity spreads over the whole batch, as in a fused softmax
        bad = any(features.cost == 13 for features in batch)
        value = np.float32("inf") if bad else np.float32(1)
        return [Vectors(dense=np.array([value, 1], np.float32)) for _ in batch]

    async def scenario(batcher: Batcher) -> list[object]:
        jobs = [start(batcher, items(cost)) for cost in (12, 13, 14)]
        return await asyncio.gather(*(job.wait() for job in jobs), return_exceptions=True)

    with running(Recorder(forward, batch_cost=512)) as batcher:
        good, bad, other = asyncio.run(scenario(batcher))
    assert isinstance(bad, ModelFailed)
    assert not isinstance(good, Exception)
    assert not isinstance(other, Exception)


def test_a_wrong_number_of_outputs_is_a_failure_not_a_shift() -> None:
    with (
        running(Recorder(lambda batch: echo(batch)[:-1])) as batcher,
        pytest.raises(ModelFailed),
    ):
        asyncio.run(answers(batcher, 8, 8, 8))


def test_a_lost_session_is_opened_again_and_nobody_notices() -> None:
    def lost(batch: Sequence[Features]) -> list[Output]:
        raise SessionLost

    first, second = Recorder(lost), Recorder()
    with running(first, reopen=lambda: second) as batcher:
        assert asyncio.run(answers(batcher, 8, 9)) == [8, 9]
    assert first.closed


def test_a_hanging_batch_is_given_up_and_its_neighbours_are_answered() -> None:
    release = threading.Event()

    def forward(batch: Sequence[Features]) -> list[Output]:
        if any(features.cost == 13 for features in batch):
            release.wait(30)
        return echo(batch)

    async def scenario(batcher: Batcher) -> list[object]:
        jobs = [start(batcher, items(cost)) for cost in (12, 13, 14, 15)]
        return await asyncio.gather(*(job.wait() for job in jobs), return_exceptions=True)

    model = Recorder(forward, batch_cost=512)
    with running(model, reopen=lambda: Recorder(forward), batch_timeout=1.0) as batcher:
        outcome = asyncio.run(scenario(batcher))
        assert asyncio.run(answers(batcher, 8)) == [8]
        release.set()
    assert [isinstance(result, ModelFailed) for result in outcome] == [False, True, False, False]


def test_a_full_queue_answers_and_an_empty_one_takes_any_request() -> None:
    gate = Gate()

    async def scenario(batcher: Batcher) -> int:
        first = start(batcher, items(*[8] * 50))
        await asyncio.to_thread(gate.entered.wait)
        with pytest.raises(Overloaded) as refused:
            batcher.admit(10)
        assert refused.value.retry_after is not None
        assert refused.value.retry_after >= 1
        gate.open.set()
        return len(await first.wait())

    with running(Recorder(gate, batch_cost=8), queue=10) as batcher:
        assert asyncio.run(scenario(batcher)) == 50
        batcher.admit(10)


def test_a_departed_callers_items_leave_the_queue() -> None:
    gate = Gate()
    model = Recorder(gate, batch_cost=8)

    async def scenario(batcher: Batcher) -> None:
        first = start(batcher, items(8))
        await asyncio.to_thread(gate.entered.wait)
        left = asyncio.ensure_future(start(batcher, items(*[7] * 9)).wait())
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        other = start(batcher, items(*[6] * 9))  # the queue of 10 has room again
        gate.open.set()
        await asyncio.gather(first.wait(), other.wait())

    with running(model, queue=10) as batcher:
        asyncio.run(scenario(batcher))
    assert [7] not in model.batches


@pytest.mark.parametrize("count", [1, 3])
def test_nothing_is_kept_of_a_batch_that_was_answered(count: int) -> None:
    async def ask(batcher: Batcher) -> list[weakref.ref[Array]]:
        rows = [np.zeros(1000, np.float32) for _ in range(count)]
        features = [Features(arrays={"row": row}, cost=8, tokens=8) for row in rows]
        await start(batcher, features).wait()
        return [weakref.ref(row) for row in rows]

    with running(Recorder(streams=2)) as batcher:
        kept = asyncio.run(ask(batcher))
        end = time.monotonic() + 30
        while any(ref() is not None for ref in kept) and time.monotonic() < end:
            time.sleep(0.01)
        assert all(ref() is None for ref in kept)


def test_closing_answers_those_who_wait() -> None:
    gate = Gate()

    async def scenario() -> list[object]:
        batcher = Batcher("m", model, reopen=lambda: model, watch=Quiet())
        first = start(batcher, items(8))
        await asyncio.to_thread(gate.entered.wait)
        second = start(batcher, items(*[8] * 100))
        closing = asyncio.ensure_future(asyncio.to_thread(batcher.close))
        while not batcher._closing:  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.001)
        gate.open.set()
        await closing
        with pytest.raises(Loading):
            batcher.admit(1)
        return await asyncio.gather(first.wait(), second.wait(), return_exceptions=True)

    model = Recorder(gate, batch_cost=8)
    first, second = asyncio.run(scenario())
    assert not isinstance(first, Exception)
    assert isinstance(second, Loading)
    assert model.closed


@pytest.mark.parametrize("hangs", [False, True])
def test_a_model_that_is_opened_again_too_late_is_closed(
    hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnivec.engine.batcher.PATIENCE", 0.0)
    release, reopening, go = threading.Event(), threading.Event(), threading.Event()
    closed = threading.Event()

    class Late(Recorder):
        def close(self) -> None:
            super().close()
            closed.set()

    def forward(batch: Sequence[Features]) -> list[Output]:
        if hangs:
            release.wait(30)
        raise SessionLost

    def reopen() -> Recorder:
        reopening.set()
        assert go.wait(30)
        return Late()

    async def scenario() -> object:
        first = Recorder(forward)
        batcher = Batcher("m", first, reopen=reopen, watch=Quiet(), batch_timeout=0.2)
        job = start(batcher, items(8))
        assert await asyncio.to_thread(reopening.wait, 30)
        await asyncio.to_thread(batcher.close)
        assert first.closed
        go.set()
        release.set()
        (outcome,) = await asyncio.gather(job.wait(), return_exceptions=True)
        assert await asyncio.to_thread(closed.wait, 10)
        return outcome

    assert isinstance(asyncio.run(scenario()), Loading | ModelFailed)


def test_threads_end_with_the_batcher() -> None:
    before = threading.active_count()
    with running(Recorder(streams=3)) as batcher:
        asyncio.run(answers(batcher, 8))
        assert threading.active_count() > before
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


@pytest.mark.parametrize("cost", [1, 8, 9, 17, 64, 65, 100, 250, 512, 513, 8192])
def test_width_classes_waste_little(cost: int) -> None:
    width = width_class(cost)
    assert cost <= width <= max(8, cost * 9 / 8 + 8)
    assert width % 8 == 0


def test_an_item_that_loses_the_session_fails_alone() -> None:
    def forward(batch: Sequence[Features]) -> list[Output]:
        if any(features.cost == 13 for features in batch):
            raise SessionLost
        return echo(batch)

    async def scenario(batcher: Batcher) -> list[object]:
        jobs = [start(batcher, items(cost)) for cost in (12, 13, 14, 15)]
        return await asyncio.gather(*(job.wait() for job in jobs), return_exceptions=True)

    model = Recorder(forward, batch_cost=512)
    with running(model, reopen=lambda: Recorder(forward, batch_cost=512)) as batcher:
        outcome = asyncio.run(scenario(batcher))
    assert [isinstance(result, ModelFailed) for result in outcome] == [False, True, False, False]


def test_a_session_that_waits_for_its_hanging_batch_does_not_stop_the_watchdog() -> None:
    release = threading.Event()

    class Waiting(Recorder):
        def close(self) -> None:  # as OpenVINO's: it returns when its batches have ended
            release.wait(30)

    def forward(batch: Sequence[Features]) -> list[Output]:
        if any(features.cost == 13 for features in batch):
            release.wait(30)
        return echo(batch)

    async def scenario(batcher: Batcher) -> list[object]:
        found: list[object] = []
        for cost in (13, 8, 13, 9):
            waits = [start(batcher, items(cost)).wait()]
            found += await asyncio.gather(*waits, return_exceptions=True)
        return found

    with running(Waiting(forward), reopen=lambda: Waiting(forward), batch_timeout=1.0) as batcher:
        outcome = asyncio.run(scenario(batcher))
        release.set()
    assert [isinstance(result, ModelFailed) for result in outcome] == [True, False, True, False]


def test_outputs_of_a_wrong_kind_fail_and_the_thread_lives() -> None:
    def forward(batch: Sequence[Features]) -> list[Output]:
        return ["no vector"] * len(batch)  # type: ignore[list-item]

    model = Recorder(forward)
    with running(model) as batcher:
        for _ in range(4):
            with pytest.raises(ModelFailed):
                asyncio.run(answers(batcher, 8))


def test_heavy_batches_are_short_while_light_requests_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LASTING", 60.0)  # however slow this machine is

    def forward(batch: Sequence[Features]) -> list[Output]:
        time.sleep(sum(features.cost for features in batch) / 10_000)
        return echo(batch)

    model = Recorder(forward, batch_cost=1000)

    async def scenario(batcher: Batcher) -> int:
        await start(batcher, items(*[100] * 20)).wait()
        before = len(model.batches)
        bulk = start(batcher, items(*[100] * 20))
        await start(batcher, items(8)).wait()
        await bulk.wait()
        return before

    with running(model) as batcher:
        before = asyncio.run(scenario(batcher))
    assert max(map(sum, model.batches[:before])) == 1000
    behind = model.batches[model.batches.index([8]) + 1 :]
    assert max(map(sum, behind)) <= 500  # 30 ms at 10,000 tokens a second are 300


def test_a_batch_that_ended_frees_its_stream_before_its_outputs_are_told() -> None:
    """The next one runs while a slow caller is told."""
    told = threading.Event()

    async def scenario(batcher: Batcher) -> int:
        slow, next_one = Job(1), Job(1)
        settle = slow.settle

        def wait(*arguments: object) -> None:
            assert told.wait(60)
            settle(*arguments)  # type: ignore[arg-type]

        slow.settle = wait  # type: ignore[method-assign,assignment]
        batcher.admit(2)
        batcher.submit(slow, items(8), 0)
        batcher.submit(next_one, items(9), 0)
        await asyncio.to_thread(second.wait, 60)
        ran = len(model.batches)
        told.set()
        await asyncio.gather(slow.wait(), next_one.wait())
        return ran

    def forward(batch: Sequence[Features]) -> list[Output]:
        if batch[0].cost == 9:
            second.set()
        return echo(batch)

    second = threading.Event()
    model = Recorder(forward, batch_cost=8)
    with running(model) as batcher:
        assert asyncio.run(asyncio.wait_for(scenario(batcher), 120)) == 2
