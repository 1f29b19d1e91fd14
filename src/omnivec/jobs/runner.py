"""Runs the jobs of a store, so many at once, and tells who waits for them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from omnivec.core.errors import Fault, Loading, Overloaded
from omnivec.jobs import table
from omnivec.jobs.job import SECOND, Job, Order, Outcome, Status, told
from omnivec.jobs.store import Store

log = logging.getLogger("omnivec.jobs")

T = TypeVar("T")

Answer = Callable[[bytes], Awaitable[Outcome]]
"""A job's input to how it ended. Raises Overloaded and Loading for what is to be asked again."""
Post = Callable[[str, bytes], Awaitable[bool]]
"""A webhook's URL and a body; whether it was taken."""

SWEEP = 1.0
"""Seconds between two looks for what is past its time, and for webhooks to be told again."""
HOOK_TRIES = 3
HOOK_PAUSE = 10 * SECOND
HOOKS = 16
EACH = 8
"""Webhooks that are told at once, and those of one host: one that never answers leaves room."""
MOST_DUE = 1000
"""Of those that are due, so many are looked at."""
MOST_RUNNING = 2**26
"""Bytes of inputs of the jobs that run at once: each byte takes two to three of the memory."""
MOST_KEPT = 2**28
"""Bytes of results in memory: about those of /runsync at full speed for its minute."""
MOST_ON_DISK = 2**33
PAUSE = 1.0
"""Seconds before the store is asked again when it failed, and a full engine that names none."""


class _Run(NamedTuple):
    job: Job
    task: asyncio.Task[None]


class Runner:
    """`answer` does the work, for `at_once` jobs at a time. `post` tells webhooks. Results may
    take `most_kept` bytes. `closed` is called when nobody is told any more."""

    def __init__(
        self,
        store: Store,
        answer: Answer,
        post: Post,
        at_once: int = 300,
        most_kept: int = MOST_KEPT,
        *,
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        self.store = store
        self._answer = answer
        self._post = post
        self._at_once = at_once
        self._most_kept = most_kept
        self._closed = closed
        self._full = False
        self._room = table.Room(store.spare)
        self._running: dict[str, _Run] = {}
        self._waiting: defaultdict[str, set[asyncio.Future[Job | None]]] = defaultdict(set)
        self._taking = self._hungry = self._ended = False
        self._losses = 0
        self._hooks = asyncio.Event()
        self._telling: dict[str, asyncio.Task[None]] = {}
        self._hosts: Counter[str] = Counter()  # of `_telling`
        self._loops: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """On the event loop that everything else is called on."""
        self._feed()
        self._loops = [asyncio.create_task(one()) for one in (self._sweep, self._tell)]

    async def close(self) -> None:
        """What still runs is begun again when the store is next opened."""
        self._ended = True
        running = (run.task for run in self._running.values())
        tasks = (*self._loops, *running, *self._telling.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._closed()
        await asyncio.to_thread(self.store.close)

    # ── for callers ──────────────────────────────────────────────────────────────────────

    @property
    def running(self) -> int:
        return len(self._running)

    async def submit(self, order: Order, *, told: bool = True) -> Job:
        """Raises Overloaded when too many wait, or too much is kept for who asks later. `told`:
        its id will be, so what was accepted must be on disk first."""
        self._check_room()
        write = self.store.secure if told else self.store.run
        adding = write(table.add, order, self.store.clock(), self._room)
        self._feed()  # right behind it, so that both are written together
        return await adding

    async def perform(self, order: Order, seconds: float) -> Job | None:
        """The job when it has ended, or as it is then and on disk, for its id is told only now.
        Raises Overloaded as `submit` does."""
        with self._ending(order.id) as ended:
            await self.submit(order, told=False)
            if (job := await _within(ended, seconds)) is not None:
                return job
            return await self.store.secure(table.keep, order.id, self.store.clock())

    async def get(self, id_: str) -> Job | None:
        """One that runs is known here: whoever asks again and again costs the store nothing."""
        if (run := self._running.get(id_)) is not None:
            return run.job
        return await self.store.run(table.get, id_, self.store.clock())

    async def shorten(self, id_: str, keep: int) -> None:
        """Its result is kept for so many milliseconds at most."""
        await self.store.secure(table.shorten, id_, keep, self.store.clock())

    async def wait(self, id_: str, seconds: float) -> Job | None:
        """The job when it has ended, or as it is then."""
        with self._ending(id_) as ended:
            job = await self.get(id_)
            if job is None or job.is_final:
                return job
            return await _within(ended, seconds) or await self.get(id_)

    def _check_room(self) -> None:
        if self._full:
            raise Overloaded("The store of jobs is full of results.", retry_after=60)

    @contextmanager
    def _ending(self, id_: str) -> Iterator[asyncio.Future[Job | None]]:
        """What is given the job when it ends, or None when it must be asked for."""
        ended: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        self._waiting[id_].add(ended)
        try:
            yield ended
        finally:
            self._waiting[id_].discard(ended)
            if not self._waiting[id_]:
                del self._waiting[id_]

    async def cancel(self, id_: str) -> Job | None:
        """One that has ended stays as it was."""
        cancelling = self.store.secure(table.cancel, id_, self.store.clock())
        return await _surely(cancelling, lambda _: self._stop(id_))

    async def retry(self, id_: str) -> bool:
        """Whether it may be tried again. Raises Overloaded as `submit` does."""
        self._check_room()
        retrying = self.store.secure(table.retry, id_, self.store.clock(), self._room)
        self._feed()  # right behind it, so that it is run also when its caller has left
        return await retrying

    async def purge(self) -> int:
        """Cancels what waits; how many."""
        purging = self.store.secure(table.purge, self.store.clock())
        gone = await _surely(purging, self._announce_all)
        return len(gone)

    # ── running ──────────────────────────────────────────────────────────────────────────

    def _feed(self) -> None:
        """Takes what there is room for; one question to the store at a time."""
        free = self._at_once - len(self._running)
        room = MOST_RUNNING - sum(len(run.job.input) for run in self._running.values())
        self._hungry = self._taking
        if self._taking or free < 1 or self._ended:
            return  # whoever ends asks again
        self._taking = True
        losses, now = self.store.losses, self.store.clock()
        if losses == self._losses:
            taking = self.store.run(table.take, free, now, room)
        else:
            self._room = table.Room(self.store.spare)  # what was counted may not be so
            taking = self.store.run(table.take_again, free, now, frozenset(self._running), room)
        taking.add_done_callback(partial(self._taken, losses))

    def _taken(self, losses: int, taking: asyncio.Future[list[Job]]) -> None:
        """`losses`: of the store, when it was asked; these are seen to."""
        self._taking = False
        try:
            jobs = taking.result()
        except Fault:
            asyncio.get_running_loop().call_later(PAUSE, self._feed)
            return
        self._losses = losses
        if self._ended:
            return
        for job in jobs:
            self._running[job.id] = _Run(job, asyncio.create_task(self._run(job)))
        if self._hungry:
            self._feed()

    async def _run(self, job: Job) -> None:
        ended: Job | None = None
        try:
            status, outcome = await self._outcome(job)
            ended = await self._finish(job, status, outcome)
        finally:
            if self._is_mine(job.id):
                del self._running[job.id]
            self._announce(job.id, ended)
            self._feed()

    def _is_mine(self, id_: str) -> bool:
        """Whether that job is run by this task; it may have been stopped and begun again."""
        run = self._running.get(id_)
        return run is not None and run.task is asyncio.current_task()

    async def _outcome(self, job: Job) -> tuple[Status, Outcome]:
        try:
            async with asyncio.timeout(job.timeout / SECOND):
                outcome = await patiently(self._answer, job.input)
        except TimeoutError:
            return "TIMED_OUT", Outcome(error="The job ran longer than its executionTimeout.")
        except Exception:
            log.exception("job %s failed", job.id)
            return "FAILED", Outcome(error="Internal error; the log has it under the job's id.")
        return ("COMPLETED" if outcome.error is None else "FAILED"), outcome

    async def _finish(self, job: Job, status: Status, outcome: Outcome) -> Job | None:
        """The job as it ended; None where it had ended before. One whose end is lost with the
        machine is run again, so nobody waits for the disk."""
        while True:
            now = self.store.clock()
            told = (outcome.output, outcome.error, now)
            try:
                done = await self.store.run(table.finish, job.id, status, *told)
            except Fault:
                await asyncio.sleep(PAUSE)
                continue
            if job.webhook is not None:
                self._hooks.set()
            if not done:
                return None
            return msgspec.structs.replace(
                job,
                status=status,
                finished=now,
                input=b"",
                output=outcome.output,
                error=outcome.error,
            )

    def _stop(self, id_: str) -> None:
        if (run := self._running.pop(id_, None)) is not None:
            run.task.cancel()
        self._announce(id_)

    def _announce(self, id_: str, job: Job | None = None) -> None:
        for waiting in self._waiting.get(id_, ()):
            if not waiting.done():
                waiting.set_result(job)

    def _announce_all(self, ids: Iterable[str]) -> None:
        for id_ in ids:
            self._announce(id_)

    # ── time and webhooks ────────────────────────────────────────────────────────────────

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            self._hooks.set()
            self._feed()  # nothing that waits stays behind, whoever was to ask for it
            try:
                gone = await self.store.run(table.expire, self.store.clock())
                for id_ in gone:
                    self._stop(id_)
                if gone:
                    await self.store.shrink()
                kept = await self.store.run(table.kept, self._most_kept)
                self._full = kept > self._most_kept
            except Fault:
                continue  # the store is tried again at the next look

    async def _tell(self) -> None:
        while True:
            await self._hooks.wait()
            self._hooks.clear()
            with suppress(Fault):
                if len(self._telling) < HOOKS:
                    self._tell_of(await self.store.run(table.hooks, self.store.clock(), MOST_DUE))

    def _tell_of(self, due: Iterable[table.Due]) -> None:
        """As many as may be told at once; those that are being told are among them."""
        for one in due:
            host = urlsplit(one.webhook).netloc
            if len(self._telling) >= HOOKS:
                break
            if one.id in self._telling or self._hosts[host] >= EACH:
                continue
            self._hosts[host] += 1
            self._telling[one.id] = asyncio.create_task(self._hook(one, host))

    async def _hook(self, due: table.Due, host: str) -> None:
        try:
            if (job := await self.store.run(table.ended, due.id)) is not None:
                await self._told(job, due.tries + 1)
        except Fault:  # it is told again, for nobody knows that it was; not at every look
            await asyncio.sleep(HOOK_PAUSE / SECOND)
        finally:
            del self._telling[due.id]
            self._hosts[host] -= 1
            self._hosts += Counter()  # without those of none
            self._hooks.set()

    async def _told(self, job: Job, tries: int) -> None:
        taken = await self._post(job.webhook or "", told(job))
        more = not taken and tries < HOOK_TRIES
        if not taken and not more:
            log.warning("job %s: its webhook was not told in %d tries", job.id, tries)
        again = self.store.clock() + HOOK_PAUSE if more else None
        await self.store.run(table.hooked, job, again)


async def _surely(asked: asyncio.Future[T], then: Callable[[T], None]) -> T:
    """What was asked of the store. `then` follows also when the caller has left meanwhile, for
    the store does what it was asked all the same; not where it failed."""

    def follow(done: asyncio.Future[T]) -> None:
        if done.exception() is None:
            then(done.result())

    asked.add_done_callback(follow)
    return await asyncio.shield(asked)


async def _within(ended: asyncio.Future[Job | None], seconds: float) -> Job | None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await ended
    return None


async def patiently(answer: Answer, work: bytes) -> Outcome:
    """A full queue and a model that loads are no failures of a job: it has time."""
    while True:
        try:
            return await answer(work)
        except (Overloaded, Loading) as fault:
            await asyncio.sleep(fault.retry_after or PAUSE)
