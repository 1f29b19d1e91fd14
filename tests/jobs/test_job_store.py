"""The table of jobs, in SQLite and in PostgreSQL alike."""

from __future__ import annotations

import asyncio
import resource
import shutil
import sqlite3
import stat
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pg8000.dbapi
import pytest

from omnivec.core.errors import Loading, Overloaded
from omnivec.jobs import table
from omnivec.jobs.job import DAY, KEPT, KEPT_SYNC, SYNC, Health, Order
from omnivec.jobs.opening import open_store
from omnivec.jobs.sqlite import LOG, RESERVE
from omnivec.jobs.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Clock
    from omnivec.jobs.store import Store
    from omnivec.jobs.table import Connection

NOW = 1_000_000


def run(store: Store, *calls: Any) -> list[Any]:
    """Each of (function, arguments), one after the other."""

    async def all_of() -> list[Any]:
        return [await store.run(function, *arguments) for function, *arguments in calls]

    return asyncio.run(all_of())


def order(id_: str, **told: Any) -> Order:
    return Order(id_, b'{"input":"a"}', **told)


def test_a_job_from_its_order_to_its_end(store: Store) -> None:
    added, [taken], waits = run(
        store,
        (table.add, order("a", timeout=7000), NOW),
        (table.take, 5, NOW + 3),
        (table.take, 5, NOW + 4),
    )
    assert (added.status, added.created, added.timeout) == ("IN_QUEUE", NOW, 7000)
    assert (taken.status, taken.started, taken.input) == ("IN_PROGRESS", NOW + 3, b'{"input":"a"}')
    assert waits == []
    first, second, job = run(
        store,
        (table.finish, "a", "COMPLETED", b'{"x":"\x00"}', None, NOW + 9),
        (table.finish, "a", "FAILED", None, "twice", NOW + 10),
        (table.get, "a", NOW + 10),
    )
    assert (first, second) == (True, False)
    assert (job.status, job.output, job.error) == ("COMPLETED", b'{"x":"\x00"}', None)
    assert (job.finished, job.attempts, job.is_final) == (NOW + 9, 1, True)


def test_what_is_taken_and_not_run_is_taken_again(store: Store) -> None:
    for number in range(5):
        run(store, (table.add, order(str(number)), NOW + number))
    run(store, (table.take, 4, NOW), (table.finish, "0", "COMPLETED", b"1", None, NOW))
    [taken, health] = run(store, (table.take_again, 2, NOW + 9, {"2"}), (table.health,))
    assert [(job.id, job.started) for job in taken] == [("1", NOW + 9), ("3", NOW + 9)]
    assert health.counts == {"COMPLETED": 1, "IN_PROGRESS": 3, "IN_QUEUE": 1}


def test_jobs_are_taken_until_their_inputs_are_large_enough(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "SMALL", 12)
    for id_ in ("a", "b", "c", "d"):
        run(store, (table.add, order(id_), NOW))  # of 13 bytes
    for size, expected in ((14, ["a", "b"]), (1, ["c"]), (0, []), (99, ["d"])):
        [taken] = run(store, (table.take, 9, NOW, size))
        assert [job.id for job in taken] == expected
    small = Order("f", b"{}")
    run(store, (table.add, order("e"), NOW), (table.add, small, NOW))
    [taken] = run(store, (table.take, 9, NOW, -5))
    assert [job.id for job in taken] == ["f"]


def test_jobs_of_low_priority_come_last(store: Store) -> None:
    for number in range(6):
        run(store, (table.add, order(str(number), low=number < 3), NOW + number))
    taken = [[job.id for job in jobs] for jobs in run(store, *[(table.take, 2, NOW)] * 4)]
    assert taken == [["3", "4"], ["0", "5"], ["1", "2"], []]


def test_a_result_is_kept_for_a_while_and_a_job_lives_for_its_ttl(store: Store) -> None:
    run(store, (table.add, order("a"), NOW), (table.add, order("b", ttl=10_000), NOW))
    assert run(store, (table.get, "b", NOW + 9_999))[0].id == "b"
    assert run(store, (table.get, "b", NOW + 10_000), (table.expire, NOW + 10_000)) == [None, ["b"]]
    run(store, (table.take, 1, NOW), (table.finish, "a", "COMPLETED", b"1", None, NOW + DAY // 2))
    end = NOW + DAY // 2 + KEPT
    assert run(store, (table.expire, end - 1), (table.expire, end)) == [[], ["a"]]


def test_what_waits_or_runs_is_cancelled_and_what_ended_is_not(store: Store) -> None:
    for id_ in "abc":
        run(store, (table.add, order(id_), NOW))
    run(store, (table.take, 2, NOW), (table.finish, "a", "COMPLETED", b"1", None, NOW))
    found = run(store, *[(table.cancel, id_, NOW) for id_ in "abcd"])
    assert [job and job.status for job in found] == ["COMPLETED", "CANCELLED", "CANCELLED", None]
    assert run(store, (table.finish, "b", "COMPLETED", b"1", None, NOW)) == [False]
    assert run(store, (table.take, 5, NOW)) == [[]]


def test_only_what_failed_is_tried_again(store: Store) -> None:
    for id_ in "abc":
        run(store, (table.add, order(id_), NOW))
    run(store, (table.take, 3, NOW), (table.finish, "a", "COMPLETED", b"1", None, NOW))
    run(store, (table.finish, "b", "FAILED", None, "why", NOW))
    run(store, (table.finish, "c", "TIMED_OUT", None, "long", NOW))
    assert run(store, *[(table.retry, id_, NOW + 5) for id_ in "abcd"]) == [
        False,
        True,
        True,
        False,
    ]
    [again] = run(store, (table.take, 5, NOW + 6))
    assert [(job.id, job.input, job.error) for job in again] == [
        ("b", b'{"input":"a"}', None),
        ("c", b'{"input":"a"}', None),
    ]
    health = Health({"COMPLETED": 1, "IN_PROGRESS": 2}, 2)
    assert run(store, (table.health,)) == [health]


def test_what_is_tried_again_waits_like_a_new_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(store, (table.add, order("a"), NOW), (table.take, 1, NOW))
    run(store, (table.finish, "a", "FAILED", None, "why", NOW), (table.add, order("b"), NOW))
    monkeypatch.setattr(table, "MOST_WAITING", 1)
    with pytest.raises(Overloaded) as caught:
        run(store, (table.retry, "a", NOW))
    assert caught.value.retry_after == 5
    assert run(store, (table.get, "a", NOW))[0].status == "FAILED"
    assert run(store, (table.retry, "b", NOW)) == [False]  # which is not even looked for
    monkeypatch.setattr(table, "MOST_WAITING", 2)
    assert run(store, (table.retry, "a", NOW)) == [True]


def test_a_result_may_be_let_go_before_its_time(store: Store) -> None:
    for id_ in "abc":
        run(store, (table.add, order(id_, keep=KEPT), NOW))
    run(store, (table.take, 2, NOW), (table.finish, "a", "COMPLETED", b"1", None, NOW))
    run(store, *[(table.shorten, id_, 6000, NOW + 100) for id_ in "abcd"])
    run(store, (table.shorten, "a", DAY, NOW + 100))  # never for longer
    found = run(store, (table.get, "a", NOW + 6099), (table.get, "a", NOW + 6100))
    assert [job is not None for job in found] == [True, False]
    late = NOW + DAY // 2  # of the others it is the end that counts
    run(store, (table.finish, "b", "COMPLETED", b"1", None, late), (table.cancel, "c", late))
    for id_ in "bc":
        found = run(store, (table.get, id_, late + 5999), (table.get, id_, late + 6000))
        assert [job is not None for job in found] == [True, False]


def test_a_purge_takes_what_waits(store: Store) -> None:
    for id_ in "abc":
        run(store, (table.add, order(id_), NOW))
    run(store, (table.take, 1, NOW))
    assert [sorted(ids) for ids in run(store, (table.purge, NOW), (table.purge, NOW))] == [
        ["b", "c"],
        [],
    ]


def test_what_was_cancelled_keeps_no_bytes(store: Store) -> None:
    for id_ in "abc":
        run(store, (table.add, order(id_), NOW))
    run(store, (table.take, 1, NOW), (table.cancel, "a", NOW), (table.purge, NOW))
    assert run(store, (table.kept, 0), (table.room,)) == [
        0,
        (table.MOST_WAITING, table.MOST_BYTES),
    ]
    assert run(store, *[(table.retry, id_, NOW) for id_ in "abc"]) == [False] * 3


def test_an_output_is_streamed_once(store: Store) -> None:
    run(store, (table.add, order("a"), NOW), (table.take, 1, NOW))
    assert run(store, (table.drain, "a")) == [False]
    run(store, (table.finish, "a", "COMPLETED", b"1", None, NOW))
    assert run(store, (table.drain, "a"), (table.drain, "a")) == [True, False]


def test_webhooks_are_due_until_they_were_told(store: Store) -> None:
    run(store, (table.add, order("a", webhook="http://x/y", keep=1), NOW), (table.take, 1, NOW))
    assert run(store, (table.hooks, NOW, 9)) == [[]]
    run(store, (table.finish, "a", "COMPLETED", b"1", None, NOW))
    [[due], job] = run(store, (table.hooks, NOW, 9), (table.ended, "a"))
    assert due == ("a", "http://x/y", 0)
    assert (job.id, job.webhook, job.output) == ("a", "http://x/y", b"1")
    assert run(store, (table.expire, NOW + DAY)) == [[]]  # not before it was told
    run(store, (table.hooked, job, NOW + 10))
    assert run(store, (table.hooks, NOW + 9, 9)) == [[]]
    assert run(store, (table.hooks, NOW + 10, 9)) == [[("a", "http://x/y", 1)]]
    run(store, (table.hooked, job, None))
    assert run(store, (table.ended, "a")) == [None]
    assert run(store, (table.hooks, NOW + DAY, 9), (table.expire, NOW + DAY)) == [[], ["a"]]


@pytest.mark.parametrize("again", [None, NOW + 10])
def test_what_a_webhook_said_of_an_end_changes_nothing_of_the_next(
    store: Store, again: int | None
) -> None:
    run(store, (table.add, order("a", webhook="http://x/y"), NOW), (table.take, 1, NOW))
    run(store, (table.finish, "a", "FAILED", None, "why", NOW))
    [first] = run(store, (table.ended, "a"))
    run(store, (table.retry, "a", NOW + 1), (table.hooked, first, again))
    waits = run(store, (table.hooks, NOW + 20, 9), (table.ended, "a"))
    assert waits == [[], None]  # it is in the queue
    run(store, (table.take, 1, NOW + 2), (table.finish, "a", "COMPLETED", b"1", None, NOW + 3))
    run(store, (table.hooked, first, again))
    [[due], second] = run(store, (table.hooks, NOW + 3, 9), (table.ended, "a"))
    assert (second.status, due.tries) == ("COMPLETED", 0)


def test_what_was_never_told_is_told_before_what_is_told_again(store: Store) -> None:
    for id_ in ("a", "b", "c"):
        run(store, (table.add, order(id_, webhook="http://x/y"), NOW), (table.take, 1, NOW))
        run(store, (table.finish, id_, "COMPLETED", b"1", None, NOW))
    [first] = run(store, (table.ended, "a"))
    run(store, (table.hooked, first, NOW - 10))
    [due] = run(store, (table.hooks, NOW, 9))
    assert [one.id for one in due] == ["b", "c", "a"]


def test_a_job_that_timed_out_is_counted_as_failed() -> None:
    health = Health({"FAILED": 2, "TIMED_OUT": 1, "COMPLETED": 5})
    assert health.count("FAILED", "TIMED_OUT") == 3
    assert health.count("IN_QUEUE") == 0


def test_the_queue_has_an_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MOST_WAITING", 2)
    run(store, (table.add, order("a"), NOW), (table.add, order("b"), NOW))
    with pytest.raises(Overloaded) as caught:
        run(store, (table.add, order("c"), NOW))
    assert caught.value.retry_after == 5
    assert run(store, (table.get, "c", NOW)) == [None]
    run(store, (table.take, 1, NOW))
    with pytest.raises(Overloaded):  # what runs has its input still
        run(store, (table.add, order("c"), NOW))
    run(store, (table.finish, "a", "COMPLETED", b"1", None, NOW), (table.add, order("c"), NOW))
    monkeypatch.setattr(table, "MOST_BYTES", 30)
    monkeypatch.setattr(table, "MOST_WAITING", 100)
    with pytest.raises(Overloaded):
        run(store, (table.add, order("d"), NOW))


def test_what_waits_is_counted_when_the_room_is_used_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "MOST_WAITING", 4)
    monkeypatch.setattr(table, "MOST_BYTES", 200)
    counted: list[tuple[int, int]] = []
    count = table.room

    def room(db: Connection) -> tuple[int, int]:
        counted.append(count(db))
        return counted[-1]

    monkeypatch.setattr(table, "room", room)
    left = table.Room()
    run(store, *[(table.add, order(str(number)), NOW, left) for number in range(4)])
    assert counted == [(4, 200)]
    with pytest.raises(Overloaded):
        run(store, (table.add, order("4"), NOW, left))
    run(store, (table.take, 2, NOW), (table.finish, "0", "FAILED", None, "why", NOW))
    run(store, (table.cancel, "1", NOW), (table.retry, "0", NOW, left))
    run(store, (table.add, order("4"), NOW, left))  # for which there was room at that count
    assert counted == [(4, 200), (0, 148), (2, 174)]
    run(store, (table.cancel, "2", NOW))
    with pytest.raises(Overloaded):  # a place, but too few bytes
        run(store, (table.add, Order("5", bytes(162)), NOW, left))
    assert counted[3:] == [(1, 161)]
    run(store, (table.add, order("5"), NOW, left))
    assert counted[4:] == []


def test_results_of_runsync_go_first_where_there_is_little_room(store: Store) -> None:
    ids = [f"{SYNC}{number}" if number % 2 else str(number) for number in range(6)]
    for number, id_ in enumerate(ids):
        keep = KEPT_SYNC if number % 2 else KEPT
        run(store, (table.add, order(id_, keep=keep), NOW), (table.take, 1, NOW))
        run(store, (table.shorten, id_, KEPT_SYNC, NOW))  # which makes no /runsync of a /run
        run(store, (table.finish, id_, "COMPLETED", b"x" * 100, None, NOW + number))
    assert run(store, (table.kept, 600), (table.kept, 450)) == [600, 400]
    found = run(store, *[(table.get, id_, NOW) for id_ in ids])
    assert [job is not None for job in found] == [True, False, True, False, True, True]
    assert run(store, (table.kept, 50)) == [300]  # the others stay for their time


def test_one_that_is_refused_does_not_undo_its_neighbours(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "MOST_WAITING", 3)

    async def together() -> list[Any]:
        calls = [store.run(table.add, order(str(number)), NOW) for number in range(5)]
        return await asyncio.gather(*calls, return_exceptions=True)

    found = asyncio.run(together())
    assert [isinstance(one, Overloaded) for one in found] == [False, False, False, True, True]
    assert len(run(store, (table.take, 9, NOW))[0]) == 3


def test_what_was_asked_is_done_also_when_who_asked_has_left(store: Store) -> None:
    async def left() -> None:
        store.run(lambda _: time.sleep(0.2))  # the thread is busy: the next is in its queue
        await asyncio.sleep(0.05)
        leaving = store.run(table.add, order("a"), NOW)
        assert leaving.cancel()
        await asyncio.sleep(0)

    asyncio.run(left())
    assert run(store, (table.health,)) == [Health({"IN_QUEUE": 1}, 0)]


def waits_for_the_disk(connection: Connection) -> bool:
    """Whether its transactions do, in the database's own words."""
    try:
        [(told,)] = connection.execute("PRAGMA synchronous").fetchall()
        return bool(told == 2)
    except pg8000.dbapi.Error:
        connection.execute("ROLLBACK")
        connection.execute("BEGIN")
        [(told,)] = connection.execute("SHOW synchronous_commit").fetchall()
        return bool(told == "on")


def test_what_is_secured_waits_for_the_disk_and_all_with_it(store: Store) -> None:
    async def asked() -> list[list[bool]]:
        alone = [await store.run(waits_for_the_disk), await store.secure(waits_for_the_disk)]
        again = [await store.run(waits_for_the_disk)]
        store.run(lambda _: time.sleep(0.2))  # the next two become one transaction
        together = [store.run(waits_for_the_disk), store.secure(waits_for_the_disk)]
        return [alone, again, await asyncio.gather(*together)]

    assert asyncio.run(asked()) == [[False, True], [False], [True, True]]


def test_what_ran_when_the_process_died_waits_again(place: str, clock: Clock) -> None:
    first = open_store(place)
    for id_ in "abc":
        run(first, (table.add, order(id_, ttl=7 * DAY), first.clock()))
    run(first, (table.take, 2, first.clock()))
    first.close()
    second = open_store(place)
    assert second.recovered == 2
    [taken] = run(second, (table.take, 9, second.clock()))
    assert [(job.id, job.attempts) for job in taken] == [("a", 2), ("b", 2), ("c", 1)]
    second.close()


def test_a_job_that_may_be_the_cause_of_deaths_fails(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "MOST_STARTS", 2)
    for recovered in (0, 1):
        opened = open_store(place)
        assert opened.recovered == recovered
        if not recovered:
            run(opened, (table.add, order("a", webhook="http://x/"), opened.clock()))
        assert len(run(opened, (table.take, 1, opened.clock()))[0]) == 1
        opened.close()
    opened = open_store(place)
    job, due = run(opened, (table.get, "a", opened.clock()), (table.hooks, opened.clock(), 9))
    opened.close()
    assert (opened.recovered, job.status) == (0, "FAILED")
    assert due == [("a", "http://x/", 0)]  # and its webhook is told so
    assert "died" in job.error


def test_a_second_server_is_refused(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnivec.jobs.postgres.PATIENCE", 0.3)
    first = open_store(place)
    with pytest.raises(StoreError, match="another server uses"):
        open_store(place)
    first.close()
    open_store(place).close()


def test_a_statement_that_fails_costs_its_callers_a_503_and_nothing_else(store: Store) -> None:
    run(store, (table.add, order("a"), NOW))
    with pytest.raises(Loading) as caught:
        run(store, (lambda connection: connection.execute("SELECT nothing FROM nowhere"),))
    assert caught.value.retry_after == 2
    assert run(store, (table.health,)) == [Health({"IN_QUEUE": 1}, 0)]


def test_the_file_is_its_owners_alone_and_no_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    open_store(str(path)).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE job(x)")
    connection.close()
    with pytest.raises(StoreError, match="not a store of jobs"):
        open_store(str(other))


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://ada:secret@db/jobs", "sqlite:///jobs.sqlite", "MySQL://db/jobs"]
)
def test_another_url_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="postgresql://") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_a_server_died_over_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # writes a page before there is a table
    connection.close()
    assert path.stat().st_size > 0
    opened = open_store(str(path))
    assert run(opened, (table.health,)) == [Health({}, 0)]
    opened.close()


@contextmanager
def full_disk() -> Iterator[None]:
    """No byte of a file can be written, as far as this process is concerned."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_read_and_goes_on_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_store(str(tmp_path / "jobs.sqlite"))
    run(opened, (table.add, order("a"), opened.clock()))
    with full_disk():
        for _ in range(3):
            with pytest.raises(Loading):
                run(opened, (table.take, 9, opened.clock()))
            [job] = run(opened, (table.get, "a", opened.clock()))
            assert job.status == "IN_QUEUE"
    assert len(run(opened, (table.take, 9, opened.clock()))[0]) == 1
    opened.close()
    assert [one.levelname for one in caplog.records] == ["ERROR"]
    assert len(caplog.text.splitlines()) == 1  # or the log would fill what is left


def test_what_cannot_be_written_costs_nobody_beside_it_an_answer(store: Store) -> None:
    async def scene() -> list[Any]:
        slow = store.run(lambda _: time.sleep(0.2))
        wrong = store.run(lambda connection: connection.execute("SELECT nothing FROM nowhere"))
        right = store.run(table.add, order("a"), NOW)
        return await asyncio.gather(slow, wrong, right, return_exceptions=True)

    _, wrong, right = asyncio.run(scene())
    assert (type(wrong), right.id) == (Loading, "a")
    assert run(store, (table.health,)) == [Health({"IN_QUEUE": 1}, 0)]


def test_the_last_of_a_disk_is_left_for_ending_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_store(str(tmp_path / "jobs.sqlite"))
    room = table.Room(opened.spare)
    run(opened, (table.add, order("a"), NOW, room))
    left = SimpleNamespace(total=2**40, free=RESERVE + 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: left)
    with pytest.raises(Overloaded):
        run(opened, (table.add, order("b"), NOW, room))
    ended = (table.finish, "a", "COMPLETED", b"{}", None, NOW)
    assert run(opened, (table.take, 9, NOW), ended)[1]
    opened.close()


def test_jobs_in_memory_outlive_a_statement_that_fails() -> None:
    opened = open_store(None)
    run(opened, (table.add, order("a"), NOW))
    with pytest.raises(Loading):
        run(opened, (lambda connection: connection.execute("SELECT nothing FROM nowhere"),))
    assert run(opened, (table.health,)) == [Health({"IN_QUEUE": 1}, 0)]
    opened.close()


def test_a_file_system_that_bears_no_log_holds_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def without(path: Path, **told: Any) -> sqlite3.Connection:
        """As on such a file system: SQLite keeps no log where it may lock nothing."""
        return connect(f"file:{path}?nolock=1", uri=True, **told)

    monkeypatch.setattr(sqlite3, "connect", without)
    path = tmp_path / "jobs.sqlite"
    opened = open_store(str(path))
    run(opened, (table.add, order("a"), opened.clock()))
    assert run(opened, (waits_for_the_disk,)) == [True]
    opened.close()
    assert not path.with_name("jobs.sqlite-wal").exists()
    again = open_store(str(path))
    assert run(again, (table.health,)) == [Health({"IN_QUEUE": 1}, 0)]
    again.close()


def test_setting_the_clock_of_the_machine_ends_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_store(str(tmp_path / "jobs.sqlite"))
    before, now = opened.clock(), time.time_ns()
    assert abs(before - now // 10**6) < DAY
    run(opened, (table.add, order("a", ttl=DAY), before))
    monkeypatch.setattr(time, "time_ns", lambda: now + 9 * DAY * 10**6)
    monkeypatch.setattr(time, "time", lambda: now / 10**9 + 9 * DAY / 1000)
    gone, found = run(opened, (table.expire, opened.clock()), (table.get, "a", opened.clock()))
    opened.close()
    assert gone == []
    assert found is not None
    assert opened.clock() >= before


def test_the_log_of_the_file_does_not_grow_under_its_first_jobs(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    opened = open_store(str(path))
    log = path.with_name("jobs.sqlite-wal")
    size = log.stat().st_size
    run(opened, *[(table.add, order(str(number)), opened.clock()) for number in range(100)])
    assert log.stat().st_size == size == LOG
    left = tmp_path / "left"  # what there is when the process dies, zeros at the log's end
    left.mkdir()
    for name in (path.name, log.name):
        shutil.copy(tmp_path / name, left)
    opened.close()
    again = open_store(str(left / path.name))
    assert run(again, (table.health,)) == [Health({"IN_QUEUE": 100}, 0)]
    again.close()
