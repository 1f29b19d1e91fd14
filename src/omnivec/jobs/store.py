"""Jobs on disk. What was accepted is written before its id is told, and is there after the
process or the machine died; how it ended is there after the process died.

One thread has the database. Whatever is asked of it while it writes becomes one transaction
with what follows, so many small requests share the wait for the disk.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar

from omnivec.core.errors import Fault, Loading
from omnivec.jobs import table
from omnivec.jobs.table import Connection

log = logging.getLogger("omnivec.jobs")

P = ParamSpec("P")
T = TypeVar("T")
TOGETHER = 256
"""Requests in one transaction."""
QUIET = 60.0
"""Seconds for which a store that goes on failing is not told of in the log again: where a disk
is full, each line makes it worse."""


class StoreError(OSError):
    """The store cannot be opened; the message says why and what to do."""


class _Asked(NamedTuple):
    """`lasting`: what it writes is to outlive the machine, not only this process."""

    work: Callable[[Connection], Any]
    answer: Future[Any]
    lasting: bool


class Database(Protocol):
    """Where the table is: jobs/sqlite.py or jobs/postgres.py. Used by one thread."""

    failures: tuple[type[Exception], ...]

    def open(self) -> Connection:
        """A connection outside of any transaction, the table made where it is not yet there.
        Raises StoreError, also where another server uses the store."""
        ...

    def last(self, connection: Connection, *, lasting: bool) -> None:
        """Whether the transactions from now on wait until the disk has them and all before
        them, which they do at first. What need not wait is safe from this process's end all
        the same."""
        ...

    def shrink(self, connection: Connection) -> None:
        """Give room back that deleted jobs had."""
        ...

    def spare(self, connection: Connection) -> int:
        """How many bytes more may be accepted. What ends a job or deletes it is written beyond
        that, or a full disk would never be less full."""
        ...

    def close(self, connection: Connection) -> None: ...


def steady() -> Callable[[], int]:
    """Milliseconds of the Unix clock as it is now, from now on at an even pace: whoever sets the
    machine's clock ends no job and no result before its time."""
    ahead = time.time_ns() - time.monotonic_ns()
    return lambda: (ahead + time.monotonic_ns()) // 1_000_000


class Store:
    """Opens at once: raises StoreError. `clock` gives milliseconds of the Unix clock."""

    def __init__(self, database: Database, clock: Callable[[], int] | None = None) -> None:
        self.clock = clock or steady()
        self.recovered = 0  # jobs that were running when the process died
        self.losses = 0  # of the database: what was written last before one may be there or not
        self._database = database
        self._connection: Connection | None = None
        self._lasting = True
        self._told = -QUIET  # when the log was last told of a failure
        self._asked: SimpleQueue[_Asked | None] = SimpleQueue()
        opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, args=(opened,), name="jobs", daemon=True)
        self._thread.start()
        opened.result()

    def run(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **named: P.kwargs
    ) -> asyncio.Future[T]:
        """What a function of jobs/table.py gives, once that outlives this process. Raises its
        Fault, or Loading when the database fails. It is asked for at once; a caller that is
        cancelled has still asked, and it is done."""
        return self._ask(partial(_call, work, args, named), lasting=False)

    def secure(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **named: P.kwargs
    ) -> asyncio.Future[T]:
        """The same, once that and all before it outlives the machine."""
        return self._ask(partial(_call, work, args, named), lasting=True)

    def close(self) -> None:
        """After what was asked so far. From any thread but an event loop's."""
        self._asked.put(None)
        self._thread.join(timeout=10)

    def _ask(self, work: Callable[[Connection], T], *, lasting: bool) -> asyncio.Future[T]:
        answer: Future[T] = Future()
        answer.set_running_or_notify_cancel()  # or a caller that leaves would take it back
        self._asked.put(_Asked(work, answer, lasting))
        return asyncio.wrap_future(answer)

    # ── the thread ───────────────────────────────────────────────────────────────────────

    def _work(self, opened: Future[None]) -> None:
        try:
            self._connection = self._database.open()
            self.recovered = self._commit(partial(table.recover, now=self.clock()), lasting=True)
        except Exception as error:  # noqa: BLE001 - told to who opens the store
            opened.set_exception(error)
            return
        opened.set_result(None)
        more = True
        while more:
            group = [self._asked.get()]
            with suppress(Empty):
                while len(group) < TOGETHER:
                    group.append(self._asked.get_nowait())
            self._answer([asked for asked in group if asked is not None])
            more = None not in group
            del group  # else what a job was given would stay until the next question
        if self._connection is not None:
            self._database.close(self._connection)

    def _answer(self, group: list[_Asked]) -> None:
        """One transaction; nobody is told of anything before it is written."""
        told: list[Callable[[], None]] = []

        def all_of(connection: Connection) -> None:
            for asked in group:
                try:
                    told.append(partial(asked.answer.set_result, asked.work(connection)))
                except Fault as fault:
                    told.append(partial(asked.answer.set_exception, fault))

        try:
            self._commit(all_of, lasting=any(asked.lasting for asked in group))
        except Exception as error:  # noqa: BLE001 - told to who asked, and to the log
            self._note(error)
            if self._connection is not None and len(group) > 1:
                for asked in group:  # what only reads need not fail with what cannot be written
                    self._answer([asked])
                return
            fault = Loading("The store of jobs does not answer; try again.", retry_after=2)
            told = [partial(asked.answer.set_exception, fault) for asked in group]
        for tell in told:
            tell()

    def _note(self, error: Exception) -> None:
        """A traceback only for what is no failure of the database but a bug."""
        if (now := time.monotonic()) - self._told < QUIET:
            return
        self._told = now
        known = isinstance(error, (*self._database.failures, StoreError))
        log.error("the store of jobs failed: %s", error, exc_info=None if known else error)

    def _commit(self, work: Callable[[Connection], T], *, lasting: bool) -> T:
        if self._connection is None:
            self._connection = self._database.open()
            self._lasting = True
        if lasting != self._lasting:
            self._database.last(self._connection, lasting=lasting)
            self._lasting = lasting
        try:
            self._connection.execute("BEGIN")
            found = work(self._connection)
            self._connection.execute("COMMIT")
        except BaseException:
            self._undo(self._connection)
            raise
        return found

    def _undo(self, connection: Connection) -> None:
        """Where that fails, some of it may have been written; a new connection is made for the
        next request."""
        try:
            connection.execute("ROLLBACK")
        except self._database.failures:
            self.losses += 1
            self._connection = None
            with suppress(*self._database.failures):
                self._database.close(connection)

    async def shrink(self) -> None:
        await self.run(self._database.shrink)

    def spare(self, connection: Connection) -> int:
        """How many bytes more may be accepted. On the database's thread."""
        return self._database.spare(connection)


def _call(
    work: Callable[..., T], args: tuple[Any, ...], named: dict[str, Any], connection: Connection
) -> T:
    return work(connection, *args, **named)
