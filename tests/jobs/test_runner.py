"""Jobs run over a real store, by work of a few lines."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import msgspec
import pytest

from omnivec.core.errors import Loading, Overloaded
from omnivec.jobs import runner as module
from omnivec.jobs import table
from omnivec.jobs.job import Order, Outcome
from omnivec.jobs.opening import open_store
from omnivec.jobs.runner import Runner
from omnivec.jobs.sqlite import Sqlite
from omnivec.jobs.store import Store
from omnivec.jobs.table import Connection, Cursor


class Work:
    """Answers a job by its input: b"wait" when `go` is set, b"bug" with a bug, others at once."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.seen: list[bytes] = []
        self.cancelled = 0
        self.most = self.now = 0
        self.told: list[tuple[str, bytes]] = []
        self.busy: list[Exception] = []

    async def answer(self, work: bytes) -> Outcome:
        self.seen.append(work)
        if self.busy:
            raise self.busy.pop()
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._outcome(work)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.now -= 1

    async def _outcome(self, work: bytes) -> Outcome:
        if work == b"bug":
            raise KeyError("a secret of the machine")
        if work == b"wrong":
            return Outcome(error="it failed")
        if work == b"wait":
            await self.go.wait()
        return Outcome(output=b'"%b"' % work)

    async def post(self, url: str, body: bytes) -> bool:
        self.told.append((url, body))
        if "slow" in url:
            await self.go.wait()
        return "refuse" not in url


def play(
    scene: Callable[[Runner, Work], Awaitable[Any]], store: Store | None = None, **told: int
) -> Any:
    async def run() -> Any:
        work = Work()
        runner = Runner(store or open_store(None), work.answer, work.post, **told)
        runner.start()
        try:
            async with asyncio.timeout(60):
                return await scene(runner, work)
        finally:
            await runner.close()

    return asyncio.run(run())


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - the work of others, who set no event
        await asyncio.sleep(0.01)


def test_a_job_is_run_and_who_waits_is_told() -> None:
    async def scene(runner: Runner, work: Work) -> None:
        await runner.submit(Order("a", b"x"))
        job = await runner.wait("a", 60)
        assert job is not None
        assert (job.status, job.output) == ("COMPLETED", b'"x"')
        assert job.created <= job.started <= job.finished
        assert await runner.wait("a", 60) == job
        assert await runner.wait("nothing", 60) is None

    play(scene)


def test_waiting_has_an_end_before_the_job_has() -> None:
    async def scene(runner: Runner, work: Work) -> None:
        await runner.submit(Order("a", b"wait"))
        job = await runner.wait("a", 0.05)
        assert job is not None
        assert not job.is_final
        work.go.set()
        job = await runner.wait("a", 60)
        assert job is not None
        assert job.status == "COMPLETED"

    play(scene)


def test_a_job_is_performed_while_its_caller_waits() -> None:
    async def scene(runner: Runner, work: Work) -> None:
        job = await runner.perform(Order("a", b"x"), 60)
        assert job is not None
        assert (job.status, job.output) == ("COMPLETED", b'"x"')
        assert job == msgspec.structs.replace(await runner.get("a"), timeout=job.timeout)
        bug = await runner.perform(Order("b", b"bug"), 60)
        assert (bug.status, bug.output) == ("FAILED", None)
        late = await runner.perform(Order("c", b"wait"), 0.05)
        assert late.status == "IN_PROGRESS"
        waiting = asyncio.create_task(runner.perform(Order("d", b"wait"), 60))
        await until(lambda: work.now == 2)
        assert (await runner.cancel("d")).status == (await waiting).status == "CANCELLED"
        work.go.set()
        assert (await runner.wait("c", 60)).status == "COMPLETED"

    play(scene)


def test_a_job_that_runs_is_told_as_the_store_has_it() -> None:
    async def scene(runner: Runner, work: Work) -> None:
        await runner.submit(Order("a", b"wait", webhook="http://good/"))
        await until(lambda: work.now > 0)
        job = await runner.get("a")
        assert job is not None
        kept = await runner.store.run(table.get, "a", runner.store.clock())
        assert msgspec.structs.replace(job, input=b"") == kept
        assert not await runner.retry("a")

    play(scene)


def test_so_many_run_at_once_and_all_do() -> None:
    async def scene(runner: Runner, work: Work) -> None:
        for number in range(12):
            await runner.submit(Order(str(number), b"wait"))
        await until(lambda: work.now == 4)
        await asyncio.sleep(0.05)
        work.go.set()
        jobs = [await runner.wait(str(number), 60) for number in range(12)]
        assert {job.status for job in jobs if job} == {"COMPLETED"}
        assert (work.most, len(work.seen)) == (4, 12)

    play(scene, at_once=4)


def test_large_inputs_are_not_all_in_memory_at_once(monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST_RUNNING", 8)
    monkeypatch.setattr(table, "SMALL", 1)

    async def scene(runner: Runner, work: Work) -> None:
        for number in range(9):
            await runner.submit(Order(str(number), b"wait"))
        await runner.submit(Order("long", b"longer than that"))
        await runner.submit(Order("last", b"x"))
        assert (await runner.wait("last", 60)).status == "COMPLETED"  # it is small
        assert work.now == 2
        work.go.set()
        for id_ in ("8", "long"):
            assert (await runner.wait(id_, 60)).status == "COMPLETED"
        assert (work.most, len(work.seen)) == (3, 11)

    play(scene)


def test_cancelling_ends_the_work_and_frees_its_place() -> None:
    async def scene(runner: Runner, work: Work) -> None:
        await runner.submit(Order("a", b"wait"))
        await runner.submit(Order("b", b"x"))
        await until(lambda: work.now > 0)
        waiting = asyncio.create_task(runner.wait("a", 60))
        await asyncio.sleep(0)
        job = await runner.cancel("a")
        assert job is not None
        assert job.status == "CANCELLED"
        assert await waiting == job
        assert (await runner.wait("b", 60)).status == "COMPLETED"
        assert (work.cancelled, work.now) == (1, 0)
        assert (await runner.get("a")).status == "CANCELLED"

    play(scene, at_once=1)


async def leave(runner: Runner, asking: Coroutine[Any, Any, Any]) -> None:
    """Asks, and is gone before the store has answered."""
    runner.store.run(lambda _: time.sleep(0.05))
    task = asyncio.create_task(asking)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_what_is_cancelled_stops_also_when_who_asked_has_left() -> None:
    async def scene(runner: Runner, work: Work) -> None:
        await runner.submit(Order("a", b"wait"))
        await until(lambda: work.now > 0)
        await leave(runner, runner.cancel("a"))
        await until(lambda: work.cancelled == 1)
        assert (await runner.get("a")).status == "CANCELLED"
        assert runner.running == 0

    play(scene)


def test_what_is_purged_is_told_also_when_who_asked_has_left() -> None:
    async def scene(runner: Runner, work: Work) -> None:
        await runner.submit(Order("a", b"wait"))
        await until(lambda: work.now > 0)
        waiting = asyncio.create_task(runner.perform(Order("b", b"x"), 60))
        await asyncio.sleep(0)
        await leave(runner, runner.purge())
        async with asyncio.timeout(60):
            assert (await waiting).status == "CANCELLED"

    play(scene, at_once=1)


def test_what_is_tried_again_is_run_also_when_who_asked_has_left(monkeypatch) -> None:
    monkeypatch.setattr(module, "SWEEP", 3600)

    async def scene(runner: Runner, work: Work) -> None:
        work.busy = [KeyError("once")]
        await runner.submit(Order("a", b"x"))
        assert (await runner.wait("a", 60)).status == "FAILED"
        await leave(runner, runner.retry("a"))
        await until(lambda: len(work.seen) == 2)
        assert (await runner.wait("a", 60)).status == "COMPLETED"

    play(scene)


def test_what_waits_is_found_by_looking(monkeypatch) -> None:
    monkeypatch.setattr(module, "SWEEP", 0.02)

    async def scene(runner: Runner, work: Work) -> None:
        await runner.store.secure(table.add, Order("a", b"x"), runner.store.clock())
        await until(lambda: work.seen == [b"x"])

    play(scene)


class Lossy(Sqlite):
    """Fails once after it has written, when `lose` is set: nobody hears what was done."""

    lose = False

    def open(self) -> Connection:
        self._inner = super().open()
        return self

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Cursor:
        found = self._inner.execute(statement, values)
        if statement == "COMMIT" and self.lose:
            self.lose = False
            raise sqlite3.OperationalError("the connection is lost")
        return found

    def close(self, connection: Connection) -> None:
        super().close(self._inner)


def test_what_was_taken_without_an_answer_is_run(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    database = Lossy(tmp_path / "jobs.sqlite")

    async def scene(runner: Runner, work: Work) -> None:
        await runner.submit(Order("a", b"wait"))
        await until(lambda: work.now == 1)
        await runner.store.run(table.add, Order("b", b"x"), runner.store.clock())
        database.lose = True
        runner._feed()
        async with asyncio.timeout(20):
            await until(lambda: len(work.seen) > 1)
        assert (await runner.wait("b", 60)).status == "COMPLETED"
        work.go.set()
        assert (await runner.wait("a", 60)).status == "COMPLETED"
        assert work.seen == [b"wait", b"x"]

    play(scene, Store(database))


def test_what_runs_nowhere_after_a_loss_is_found_by_looking(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "SWEEP", 0.02)
    database = Lossy(tmp_path / "jobs.sqlite")

    def undo(connection: Connection, now: int) -> None:
        """What a database that fell may do: who ran it has its end, the table has not."""
        table.add(connection, Order("a", b"x"), now)
        table.take(connection, 1, now)
        database.lose = True

    async def scene(runner: Runner, work: Work) -> None:
        with pytest.raises(Loading):
            await runner.store.run(undo, runner.store.clock())
        async with asyncio.timeout(20):
            await until(lambda: work.seen == [b"x"])

    play(scene, Store(database))


def test_a_job_that_takes_too_long_is_timed_out_and_may_be_tried_again() -> None:
    async def scene(runner: Runner, work: Work) -> None:
        await runner.submit(Order("a", b"wait", timeout=20))
        job = await runner.wait("a", 60)
        assert (job.status, job.output, work.cancelled) == ("TIMED_OUT", None, 1)
        assert "executionTimeout" in job.error
        work.go.set()
        assert await runner.retry("a")
        assert (await runner.wait("a", 60)).status == "COMPLETED"
        assert not await runner.retry("a")

    play(scene)


def test_a_bug_is_told_in_words_of_ours() -> None:
    async def scene(runner: Runner, work: Work) -> None:
        await runner.submit(Order("a", b"bug"))
        await runner.submit(Order("b", b"wrong"))
        bug, wrong = await runner.wait("a", 60), await runner.wait("b", 60)
        assert (bug.status, wrong.status, wrong.error) == ("FAILED", "FAILED", "it failed")
        assert "secret" not in bug.error

    play(scene)


def test_a_full_engine_and_a_loading_model_are_waited_for() -> None:
    async def scene(runner: Runner, work: Work) -> None:
        work.busy = [Overloaded("full", retry_after=0.01), Loading("soon", retry_after=0.01)]
        await runner.submit(Order("a", b"x"))
        assert (await runner.wait("a", 60)).status == "COMPLETED"
        assert work.seen == [b"x"] * 3

    play(scene)


def test_a_purge_tells_who_waits() -> None:
    async def scene(runner: Runner, work: Work) -> None:
        for number in range(3):
            await runner.submit(Order(str(number), b"wait"))
        await until(lambda: work.now > 0)
        waiting = asyncio.create_task(runner.wait("2", 60))
        await asyncio.sleep(0)
        assert await runner.purge() == 2
        assert (await waiting).status == "CANCELLED"
        assert not (await runner.get("0")).is_final

    play(scene, at_once=1)


def test_a_webhook_is_told_three_times_at_most(monkeypatch) -> None:
    monkeypatch.setattr(module, "HOOK_PAUSE", 1)
    monkeypatch.setattr(module, "SWEEP", 0.02)

    async def scene(runner: Runner, work: Work) -> None:
        await runner.submit(Order("a", b"x", webhook="http://good/"))
        await runner.submit(Order("b", b"wrong", webhook="http://refuse/"))
        await until(lambda: len(work.told) == 4)
        await asyncio.sleep(0.2)
        urls = sorted(url for url, _ in work.told)
        assert urls == ["http://good/", *["http://refuse/"] * 3]
        [body] = [body for url, body in work.told if url == "http://good/"]
        assert b'"output":"x"' in body
        assert b'"status":"COMPLETED"' in body

    play(scene)


def test_a_webhook_that_is_slow_keeps_nobody_waiting() -> None:
    async def scene(runner: Runner, work: Work) -> None:
        await runner.submit(Order("a", b"x", webhook="http://slow/"))
        await until(lambda: len(work.told) == 1)
        await runner.submit(Order("b", b"x", webhook="http://good/"))
        await until(lambda: len(work.told) == 2)
        assert [url for url, _ in work.told] == ["http://slow/", "http://good/"]
        work.go.set()

    play(scene)


def test_a_host_that_is_slow_leaves_room_for_the_others(monkeypatch, caplog) -> None:
    monkeypatch.setattr(module, "HOOK_PAUSE", 1)

    async def scene(runner: Runner, work: Work) -> None:
        for number in range(3 * module.HOOKS):
            await runner.submit(Order(str(number), b"x", webhook=f"http://slow/{number}"))
        await until(lambda: len(work.told) == module.EACH)
        await runner.submit(Order("good", b"x", webhook="http://good/"))
        await until(lambda: work.told[-1][0] == "http://good/")
        assert len(work.told) == module.EACH + 1
        work.go.set()
        await until(lambda: len(work.told) == 3 * module.HOOKS + 1)
        await runner.submit(Order("bad", b"x", webhook="http://refuse/"))
        await until(lambda: bool(caplog.records))
        assert caplog.messages == ["job bad: its webhook was not told in 3 tries"]

    play(scene)


def test_a_webhook_is_told_of_each_end_also_while_it_is_slow_with_the_first() -> None:
    async def scene(runner: Runner, work: Work) -> None:
        work.busy = [KeyError("once")]
        await runner.submit(Order("a", b"x", webhook="http://slow/"))
        await until(lambda: len(work.told) == 1)
        assert await runner.retry("a")
        assert (await runner.wait("a", 60)).status == "COMPLETED"
        await asyncio.sleep(0.05)  # the second end is due, the first is still being told
        assert len(work.told) == 1
        work.go.set()
        await until(lambda: len(work.told) == 2)
        assert b'"status":"FAILED"' in work.told[0][1]
        assert b'"status":"COMPLETED"' in work.told[1][1]

    play(scene)


def test_a_job_past_its_time_is_stopped_and_forgotten(monkeypatch) -> None:
    monkeypatch.setattr(module, "SWEEP", 0.02)

    async def scene(runner: Runner, work: Work) -> None:
        await runner.submit(Order("a", b"wait", ttl=50))
        assert await runner.wait("a", 60) is None
        assert work.cancelled == 1
        assert await runner.store.run(table.take, 9, runner.store.clock()) == []

    play(scene)


def test_a_store_that_is_full_of_results_takes_no_more(monkeypatch) -> None:
    monkeypatch.setattr(module, "SWEEP", 0.02)

    async def scene(runner: Runner, work: Work) -> None:
        await runner.submit(Order("a", b"x" * 100))
        await runner.wait("a", 60)
        await until(lambda: runner._full)
        with pytest.raises(Overloaded) as caught:
            await runner.submit(Order("b", b"x"))
        assert caught.value.retry_after == 60
        assert (await runner.get("a")).status == "COMPLETED"

    play(scene, most_kept=50)
