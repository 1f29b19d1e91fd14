"""The table of jobs and what is done with it, in SQL that SQLite and PostgreSQL both speak.

Every function is given a connection inside a transaction that its caller begins and ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol

from omnivec.core.errors import Overloaded
from omnivec.jobs.job import KEPT_SYNC, SYNC, Health, Job, Order, Status

MOST_WAITING = 10_000
MOST_BYTES = 2**30
"""Jobs that may wait or run, and the bytes of their inputs; beyond that a submission is refused."""
SMALL = 2**16
"""Bytes of an input that is run beside however many large ones."""
MOST_STARTS = 20
"""Times that a job is begun again because the process died while it ran."""

COLUMNS = "id, status, created, started, finished, timeout, output, error, webhook, attempts"
"""All that is told of a job; its input, which may be large, is read when it is run."""
SPARE = f"keep <= {KEPT_SYNC} AND substr(id, 1, {len(SYNC)}) = '{SYNC}' AND hook_at IS NULL"
"""Jobs of /runsync that nobody is to be told of. `keep` says as much for the index only: that of
another is as small where its client said so."""
CREATE = (
    """CREATE TABLE IF NOT EXISTS job(
        seq {key}, id TEXT NOT NULL UNIQUE, status TEXT NOT NULL, low INTEGER NOT NULL,
        size INTEGER NOT NULL, created BIGINT NOT NULL, started BIGINT, finished BIGINT,
        timeout BIGINT NOT NULL, ttl BIGINT NOT NULL, keep BIGINT NOT NULL,
        expires BIGINT NOT NULL, input {blob} NOT NULL, output {blob}, error TEXT,
        webhook TEXT, hook_at BIGINT, hook_tries INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0, retries INTEGER NOT NULL DEFAULT 0,
        drained INTEGER NOT NULL DEFAULT 0)""",
    "CREATE INDEX IF NOT EXISTS job_queue ON job(status, low, seq, size)",
    "CREATE INDEX IF NOT EXISTS job_expires ON job(expires)",
    "CREATE INDEX IF NOT EXISTS job_kept ON job(keep, finished, size) WHERE finished IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS job_hook ON job(hook_at) WHERE hook_at IS NOT NULL",
)


class Cursor(Protocol):
    def fetchall(self) -> list[Any]: ...


class Connection(Protocol):
    """`?` stands for each of `values`."""

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Cursor: ...


def recover(db: Connection, now: int) -> int:
    """What was running when the process died waits again, in its old place; how many. A job
    that saw too many deaths may be their cause and has failed."""
    db.execute(
        "UPDATE job SET status = 'FAILED', finished = ?, expires = ? + keep, error = ?, "
        "hook_at = CASE WHEN webhook IS NULL THEN NULL ELSE CAST(? AS BIGINT) END "
        "WHERE status = 'IN_PROGRESS' AND attempts >= ?",
        (now, now, "The server died whenever it ran this job.", now, MOST_STARTS),
    )
    again = db.execute(
        "UPDATE job SET status = 'IN_QUEUE', started = NULL WHERE status = 'IN_PROGRESS' "
        "RETURNING id"
    )
    return len(again.fetchall())


class Room:
    """How much more may be submitted at least: only what is submitted makes it less, so all that
    waits or runs is counted when this is used up, not for each job. Of one store; `spare` is
    what its disk bears, which others write to as well."""

    def __init__(self, spare: Callable[[Connection], int] = lambda _: MOST_BYTES) -> None:
        self._jobs = self._size = 0
        self._spare = spare

    def admit(self, db: Connection, size: int) -> None:
        """One job more, of so many bytes. Raises Overloaded when the queue is full, or the disk."""
        if self._spare(db) < size:
            raise Overloaded("The disk of the store of jobs is full.", retry_after=60)
        if self._jobs < 1 or self._size < size:
            self._jobs, self._size = room(db)
        if self._jobs < 1 or self._size < size:
            raise Overloaded("The queue of jobs is full; try again later.", retry_after=5)
        self._jobs -= 1
        self._size -= size


def room(db: Connection) -> tuple[int, int]:
    """How many more jobs, and bytes of them, may be submitted; what runs has its input still."""
    [(count, size)] = db.execute(
        "SELECT count(*), coalesce(sum(size), 0) FROM job "
        "WHERE status IN ('IN_QUEUE', 'IN_PROGRESS')"
    ).fetchall()
    return MOST_WAITING - int(count), MOST_BYTES - int(size)


def add(db: Connection, order: Order, now: int, left: Room | None = None) -> Job:
    """Raises Overloaded when the queue is full."""
    (left or Room()).admit(db, len(order.input))
    db.execute(
        "INSERT INTO job(id, status, low, size, created, timeout, ttl, keep, expires, input, "
        "webhook) VALUES (?, 'IN_QUEUE', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(order.id, int(order.low), len(order.input), now, order.timeout, order.ttl),
            *(order.keep, now + order.ttl, order.input, order.webhook),
        ),
    )
    return Job(order.id, "IN_QUEUE", now, timeout=order.timeout)


def take(db: Connection, most: int, now: int, size: int = MOST_BYTES) -> list[Job]:
    """The next jobs of the queue, running from now on; of low priority the last. So many that
    their inputs reach `size` bytes; the last of them may be longer than what is left. Small
    ones wait for no room."""
    return _jobs(
        db.execute(
            "UPDATE job SET status = 'IN_PROGRESS', started = ?, attempts = attempts + 1 WHERE "  # noqa: S608 - names of ours
            "seq IN (SELECT seq FROM (SELECT seq, size, sum(size) OVER (ORDER BY low, seq) "
            "- size AS before FROM (SELECT seq, low, size FROM job WHERE status = 'IN_QUEUE' AND "
            "expires > ? ORDER BY low, seq LIMIT ?) AS next) AS sized "
            f"WHERE before < ? OR size <= {SMALL}) RETURNING {COLUMNS}, input",
            (now, now, most, size),
        )
    )


def take_again(
    db: Connection, most: int, now: int, running: Collection[str], size: int = MOST_BYTES
) -> list[Job]:
    """The same after an answer may have been lost: what the table has as running and is not
    among `running` waits again first, in its old place. It was never begun, or its end is what
    was lost."""
    for (id_,) in db.execute("SELECT id FROM job WHERE status = 'IN_PROGRESS'").fetchall():
        if id_ not in running:
            db.execute("UPDATE job SET status = 'IN_QUEUE', started = NULL WHERE id = ?", (id_,))
    return take(db, most, now, size)


def finish(
    db: Connection, id_: str, status: Status, output: bytes | None, error: str | None, now: int
) -> bool:
    """A running job ends; False when it runs no more. The input is kept for who tries again."""
    done = int(status == "COMPLETED")
    ended = db.execute(
        "UPDATE job SET status = ?, output = ?, error = ?, finished = ?, expires = ? + keep, "
        "hook_at = CASE WHEN webhook IS NULL THEN NULL ELSE CAST(? AS BIGINT) END, "
        "input = CASE WHEN ? = 1 THEN ? ELSE input END, "
        "size = CASE WHEN ? = 1 THEN ? ELSE size END "
        "WHERE id = ? AND status = 'IN_PROGRESS' RETURNING id",
        (
            *(status, output, error, now, now, now),
            *(done, b"", done, len(output or b""), id_),
        ),
    )
    return bool(ended.fetchall())


def cancel(db: Connection, id_: str, now: int) -> Job | None:
    """The job as it is then, without its input; one that has ended stays as it was."""
    db.execute(
        "UPDATE job SET status = 'CANCELLED', finished = ?, expires = ? + keep, "
        "size = 0, input = ? "
        "WHERE id = ? AND status IN ('IN_QUEUE', 'IN_PROGRESS') AND expires > ?",
        (now, now, b"", id_, now),
    )
    return get(db, id_, now)


def retry(db: Connection, id_: str, now: int, left: Room | None = None) -> bool:
    """Whether it was one that may be tried again: it failed or took too long. It waits like a
    new one: raises Overloaded when the queue is full."""
    found = db.execute(
        "SELECT size FROM job WHERE id = ? AND status IN ('FAILED', 'TIMED_OUT') AND expires > ?",
        (id_, now),
    ).fetchall()
    if not found:
        return False
    (left or Room()).admit(db, int(found[0][0]))
    db.execute(
        "UPDATE job SET status = 'IN_QUEUE', started = NULL, finished = NULL, output = NULL, "
        "error = NULL, drained = 0, attempts = 0, retries = retries + 1, created = ?, "
        "hook_at = NULL, hook_tries = 0, expires = ? + ttl WHERE id = ?",
        (now, now, id_),
    )
    return True


def purge(db: Connection, now: int) -> list[str]:
    """Cancels whatever waits, which keeps no input then; the ids."""
    gone = db.execute(
        "UPDATE job SET status = 'CANCELLED', finished = ?, expires = ? + keep, "
        "size = 0, input = ? "
        "WHERE status = 'IN_QUEUE' RETURNING id",
        (now, now, b""),
    )
    return [str(id_) for (id_,) in gone.fetchall()]


def get(db: Connection, id_: str, now: int) -> Job | None:
    query = f"SELECT {COLUMNS} FROM job WHERE id = ? AND expires > ?"  # noqa: S608 - names of ours
    found = _jobs(db.execute(query, (id_, now)))
    return found[0] if found else None


def shorten(db: Connection, id_: str, keep: int, now: int) -> None:
    """Its result is there for `keep` milliseconds and no longer: of one that ended from now on,
    of another from its end."""
    db.execute(
        "UPDATE job SET keep = ?, expires = CASE WHEN finished IS NULL OR expires < ? "
        "THEN expires ELSE ? END WHERE id = ? AND keep > ?",
        (keep, now + keep, now + keep, id_, keep),
    )


def keep(db: Connection, id_: str, now: int) -> Job | None:
    """The job, written once more: so what was written of it before need not have lasted."""
    db.execute("UPDATE job SET size = size WHERE id = ?", (id_,))
    return get(db, id_, now)


def drain(db: Connection, id_: str) -> bool:
    """Whether the output of an ended job was not yet given to who reads its stream."""
    done = db.execute(
        "UPDATE job SET drained = 1 WHERE id = ? AND drained = 0 AND output IS NOT NULL "
        "RETURNING id",
        (id_,),
    )
    return bool(done.fetchall())


def expire(db: Connection, now: int) -> list[str]:
    """Deletes what is past its time; the ids."""
    gone = db.execute("DELETE FROM job WHERE expires <= ? AND hook_at IS NULL RETURNING id", (now,))
    return [str(id_) for (id_,) in gone.fetchall()]


def kept(db: Connection, most: int) -> int:
    """How many bytes ended jobs take. Where that is more than `most`, results of /runsync,
    which were told already, go before their time, the oldest first."""
    [(total,)] = db.execute(
        "SELECT coalesce(sum(size), 0) FROM job WHERE finished IS NOT NULL"
    ).fetchall()
    if total <= most:
        return int(total)
    freed, last = 0, 0
    for finished, size in db.execute(
        f"SELECT finished, size FROM job WHERE finished IS NOT NULL AND {SPARE} ORDER BY finished"  # noqa: S608 - names of ours
    ).fetchall():
        if total - freed <= most:
            break
        freed, last = freed + size, finished
    db.execute(f"DELETE FROM job WHERE finished <= ? AND {SPARE}", (last,))  # noqa: S608 - as above
    return int(total - freed)


class Due(NamedTuple):
    """An ended job's webhook that is to be told, and how often that was tried."""

    id: str
    webhook: str
    tries: int


def hooks(db: Connection, now: int, most: int) -> list[Due]:
    """What is to be told now: what was never tried first, then the longest due. No outputs,
    which may be large: what is due is asked for more often than told."""
    rows = db.execute(
        "SELECT id, webhook, hook_tries FROM job WHERE hook_at <= ? AND finished IS NOT NULL "
        "ORDER BY hook_tries, hook_at LIMIT ?",
        (now, most),
    ).fetchall()
    return [Due(str(id_), str(webhook), int(tries)) for id_, webhook, tries in rows]


def ended(db: Connection, id_: str) -> Job | None:
    """An ended job, for its webhook; one past its time too. None where it was put back."""
    query = f"SELECT {COLUMNS} FROM job WHERE id = ? AND hook_at IS NOT NULL"  # noqa: S608 - names of ours
    found = _jobs(db.execute(query, (id_,)))
    return found[0] if found else None


def hooked(db: Connection, job: Job, again: int | None) -> None:
    """It was tried; `again`: when to try next, None for never. A job that was put back since, or
    has ended once more, has that told in its turn."""
    db.execute(
        "UPDATE job SET hook_tries = hook_tries + 1, hook_at = CAST(? AS BIGINT) "
        "WHERE id = ? AND finished = ?",
        (again, job.id, job.finished),
    )


def health(db: Connection) -> Health:
    rows = db.execute("SELECT status, count(*), sum(retries) FROM job GROUP BY status").fetchall()
    counts = {str(status): int(count) for status, count, _ in rows}
    return Health(counts, sum(int(retried) for _, _, retried in rows))


def _jobs(found: Cursor) -> list[Job]:
    """In the order of submission."""
    return sorted(map(_job, found.fetchall()), key=lambda job: job.created)


def _job(row: Sequence[Any]) -> Job:
    id_, status, created, started, finished, timeout, output, error, webhook, attempts, *rest = row
    return Job(
        *(id_, status, created, started, finished, timeout),
        input=bytes(rest[0]) if rest else b"",
        output=None if output is None else bytes(output),
        error=error,
        webhook=webhook,
        attempts=attempts,
    )
