"""Finished vectors on disk: one SQLite file, up to a size, the longest unused given up first.

It must never stand in the way. Reading has a short deadline, after which the answer is "not
here"; writing happens on a thread of its own, and what does not fit into its queue is
forgotten. A disk that is full, slow or read-only costs a line in the log, and some rest for
the disk. SQLite's write-ahead log keeps the file whole when the process or the machine dies.

The texts themselves are not in the file, only digests of them; but vectors tell much about
texts, so the file is readable by its owner alone.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeAlias

log = logging.getLogger("omnivec.engine")

NAME = "vectors.sqlite"
MARK = 0x6F6D7665  # "omve", as SQLite's application_id: the file is ours
FORMAT = 1
PAGE = 8192  # bytes; 5 vectors of 384 numbers
PATIENCE = 0.05  # seconds that a request waits for the disk
OPENING = 1.0  # seconds that a start waits for it
REST = 5.0  # seconds in which a disk that failed or was slow is not asked
LINGER = 0.2  # seconds in which answers gather before they are written
BACKLOG = 4096  # answers that may wait to be written
ROWS = 128  # in one transaction
CREATE = f"""
    PRAGMA page_size={PAGE}; PRAGMA auto_vacuum=INCREMENTAL;
    BEGIN IMMEDIATE;
    PRAGMA application_id={MARK}; PRAGMA user_version={FORMAT};
    CREATE TABLE IF NOT EXISTS
        vector(id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL);
    COMMIT;
"""

Row: TypeAlias = tuple[bytes, bytes | None]  # a key and its value; None: it was used again
Found: TypeAlias = dict[bytes, bytes]
FAILURES = (sqlite3.Error, OSError)


class Store:
    """Values by key in `folder`, where they take at most `size` bytes. One for a process;
    several processes may share a folder. Never raises for what the disk does.

    `version` is the program's: its graphs may have changed, so another one's vectors are left.
    """

    def __init__(self, folder: Path, size: int, version: str) -> None:
        self.version = version
        self.path = folder / NAME
        self.errors = 0  # times that the disk failed or was too slow
        self.dropped = 0  # answers that were not written
        self._journal = min(size // 4, 16_000_000)
        self._pages = (size - self._journal) // PAGE
        self._middle = 0  # rows up to this one are the older half, once there is little room
        self._ours = self._spoilt = False
        self._told: set[str] = set()
        self._read_after = self._write_after = 0.0
        self._reading: sqlite3.Connection | None = None
        self._writing: sqlite3.Connection | None = None
        self._waiting: SimpleQueue[Row] = SimpleQueue()
        self._opened, self._closing = threading.Event(), threading.Event()
        self._asked: SimpleQueue[tuple[Sequence[bytes], SimpleQueue[Found]] | None] = SimpleQueue()
        # daemons: a disk that hangs must not keep the process from ending
        self._reader = threading.Thread(target=self._answer, daemon=True, name="recall")
        self._writer = threading.Thread(target=self._work, daemon=True, name="remember")
        self._reader.start()
        self._writer.start()
        self._opened.wait(OPENING)

    # ── for everyone ─────────────────────────────────────────────────────────────────────

    def get(self, keys: Sequence[bytes]) -> Found:
        """Those that are here and come soon. From any thread but an event loop's."""
        ready = self._ours and not self._spoilt and not self._closing.is_set()
        if not ready or not keys or time.monotonic() < self._read_after:
            return {}
        answer: SimpleQueue[Found] = SimpleQueue()
        self._asked.put((keys, answer))
        try:
            return answer.get(timeout=PATIENCE)
        except Empty:
            self._read_after = self._fail("reading takes too long")
            return {}

    def put(self, key: bytes, value: bytes) -> None:
        """Soon. Never waits."""
        if self._waiting.qsize() < BACKLOG and not self._closing.is_set():
            self._waiting.put((key, value))
        else:
            self.dropped += 1

    def close(self) -> None:
        """Write what waits, as far as the disk takes it within seconds."""
        self._closing.set()
        self._asked.put(None)
        self._waiting.put((b"", None))  # wakes the writer
        self._writer.join(timeout=5)

    # ── the reader's thread ──────────────────────────────────────────────────────────────

    def _answer(self) -> None:
        while (asked := self._asked.get()) is not None:
            keys, answer = asked
            answer.put(self._find(keys))
            del asked, keys, answer  # the rows found, for as long as nobody asks
        self._stop_reading()

    def _find(self, keys: Sequence[bytes]) -> Found:
        try:
            if self._reading is None:
                self._reading = self._connect(PATIENCE)
            places = ",".join("?" * len(keys))
            query = f"SELECT id, key, value FROM vector WHERE key IN ({places})"  # noqa: S608 - ?,?,?
            rows = self._reading.execute(query, keys).fetchall()
        except FAILURES as error:
            self._stop_reading()
            self._read_after = self._fail(error)
            return {}
        for number, key, _ in rows:
            if number <= self._middle:
                self._waiting.put((key, None))
        return {key: value for _, key, value in rows}

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    # ── the writer's thread ──────────────────────────────────────────────────────────────

    def _work(self) -> None:
        self._save([])
        self._opened.set()
        while not self._closing.is_set():
            self._write(self._waiting.get())
        if self._writing is not None:
            self._writing.close()

    def _write(self, first: Row) -> None:
        """It, and all that comes within a moment."""
        self._closing.wait(LINGER)
        rows = [first, *self._drain()]
        for start in range(0, len(rows), ROWS):
            self._save(rows[start : start + ROWS])

    def _drain(self) -> Iterator[Row]:
        with suppress(Empty):
            while True:
                yield self._waiting.get_nowait()

    def _save(self, rows: Sequence[Row]) -> None:
        if time.monotonic() < self._write_after:
            self.dropped += len(rows)
            return
        try:
            if self._spoilt:
                self._discard()
            if self._writing is None:
                self._writing = self._open()
            self._trim(self._writing)
            self._insert(self._writing, rows)
        except FAILURES as error:
            self.dropped += len(rows)
            self._write_after = self._fail(error)
            if self._writing is not None:
                self._writing.close()
                self._writing = None

    def _insert(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        new = [(key, value) for key, value in rows if value is not None]
        used = [(key,) for key, value in rows if value is None and key]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT OR IGNORE INTO vector(key, value) VALUES (?, ?)", new)
        connection.executemany(
            "UPDATE vector SET id = (SELECT max(id) + 1 FROM vector) WHERE key = ?", used
        )
        connection.execute("COMMIT")

    def _trim(self, connection: sqlite3.Connection) -> None:
        """Give up the oldest rows where room is short, some in each transaction."""
        while self._used(connection) > 0.95 * self._pages:
            connection.execute(
                "DELETE FROM vector WHERE id IN (SELECT id FROM vector ORDER BY id LIMIT ?)",
                (ROWS,),
            )
        if _number(connection, "PRAGMA page_count") > self._pages:  # it was allowed more before
            # `execute` would take one step of it, which is one page
            connection.executescript(f"PRAGMA incremental_vacuum({ROWS})")
        if self._used(connection) > 0.5 * self._pages:
            low, high = connection.execute("SELECT min(id), max(id) FROM vector").fetchone()
            self._middle = (low + high) // 2

    def _used(self, connection: sqlite3.Connection) -> int:
        """Pages that hold something."""
        return _number(connection, "PRAGMA page_count") - _number(
            connection, "PRAGMA freelist_count"
        )

    # ── the file ─────────────────────────────────────────────────────────────────────────

    def _open(self) -> sqlite3.Connection:
        """The file, made where there is none. Raises OSError for one that is not ours."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        connection = self._connect(OPENING)
        try:
            self._settle(connection)
        except FAILURES:
            connection.close()
            raise
        if not self._spoilt:
            return connection
        connection.close()
        self._discard()
        return self._open()

    def _settle(self, connection: sqlite3.Connection) -> None:
        mark = _number(connection, "PRAGMA application_id")
        if not _number(connection, "PRAGMA page_count"):
            connection.executescript(CREATE)
        elif mark != MARK:
            raise FileExistsError(f"{self.path} is not a cache of omnivec's; give another folder")
        elif _number(connection, "PRAGMA user_version") != FORMAT:
            self._spoilt = True
        self._ours = True
        connection.execute("PRAGMA journal_mode=WAL")

    def _connect(self, patience: float) -> sqlite3.Connection:
        """Each connection is used by one thread at a time. NORMAL: a power cut may cost the
        last entries, never the file."""
        connection = sqlite3.connect(
            self.path, patience, isolation_level=None, check_same_thread=False
        )
        for name, value in (
            ("synchronous", "NORMAL"),
            ("page_size", PAGE),
            ("max_page_count", self._pages),
            ("journal_size_limit", self._journal),
            ("wal_autocheckpoint", self._journal // (2 * PAGE)),
        ):
            connection.execute(f"PRAGMA {name}={value}")
        return connection

    def _discard(self) -> None:
        if self._writing is not None:
            self._writing.close()
            self._writing = None
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        self._spoilt = False

    def _fail(self, reason: Exception | str) -> float:
        """Count it, tell it once; until when the disk has rest."""
        self.errors += 1
        corrupt = getattr(reason, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT
        if corrupt and self._ours:
            self._spoilt = True  # the writer begins a new file
            self._waiting.put((b"", None))
        if str(reason) not in self._told:
            self._told.add(str(reason))
            log.warning("the cache in %s is left out for now: %s", self.path.parent, reason)
        return time.monotonic() + REST


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])
