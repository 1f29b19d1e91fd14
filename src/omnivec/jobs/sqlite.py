"""Jobs in one SQLite file, or in memory alone. The file is its owner's only: it holds texts."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

from omnivec.jobs import table
from omnivec.jobs.store import StoreError
from omnivec.jobs.table import Connection

MARK = 0x6F6D766A  # "omvj", as SQLite's application_id: the file is ours
FORMAT = 1
PAGE = 4096
FREED = 1024
"""Pages that are given back in one go."""
LOG = 1032 * 4120
"""Bytes of the write-ahead log: SQLite's thousand pages of 4096, and what one commit may add."""
RESERVE = 2**26
"""Bytes of the disk, or an eighth of it where that is less, that are left for ending jobs."""


class Sqlite:
    """`path` None: in memory, for as long as the process lives."""

    failures: tuple[type[Exception], ...] = (sqlite3.Error, OSError)

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._logs = False

    def open(self) -> Connection:
        try:
            self._create()
            connection = sqlite3.connect(
                self._path or ":memory:", timeout=5, isolation_level=None, check_same_thread=False
            )
            self._settle(connection)
        except (sqlite3.Error, OSError) as error:
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            why = "another server uses it" if busy else error
            raise StoreError(f"jobs: the store {self._path} cannot be used: {why}") from error
        return connection

    def last(self, connection: Connection, *, lasting: bool) -> None:
        """NORMAL: what is committed is the system's to write, and in the file's right order."""
        full = lasting or not self._logs  # NORMAL is safe in a log only
        connection.execute(f"PRAGMA synchronous={'FULL' if full else 'NORMAL'}")

    def shrink(self, connection: Connection) -> None:
        connection.execute(f"PRAGMA incremental_vacuum({FREED})").fetchall()

    def spare(self, connection: Connection) -> int:
        """Half of what the disk and the file have left: the log may take as much again."""
        if self._path is None:
            return table.MOST_BYTES
        disk = shutil.disk_usage(self._path.parent)
        [(pages,)] = connection.execute("PRAGMA freelist_count").fetchall()
        free = disk.free + int(pages) * PAGE
        return max(0, free - min(RESERVE, disk.total // 8)) // 2

    def close(self, connection: Connection) -> None:
        assert isinstance(connection, sqlite3.Connection)  # noqa: S101 - `open` made it
        connection.close()

    def _create(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))

    def _settle(self, connection: sqlite3.Connection) -> None:
        """Exclusive: one server has the file, until its process ends in whatever way; said
        before anything is read, for else SQLite makes another file, which a full disk has no
        room for. FULL: what is committed is there after a power cut."""
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        fresh = _is_fresh(connection)  # else what it says of itself need not be written again
        if fresh:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        [(mode,)] = connection.execute("PRAGMA journal_mode=WAL").fetchall()
        self._logs = mode == "wal"  # or "memory", or what a file system has that bears none
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN EXCLUSIVE")
        for statement in table.CREATE:
            made = statement.format(key="INTEGER PRIMARY KEY AUTOINCREMENT", blob="BLOB")
            connection.execute(made)
        if fresh:
            connection.execute(f"PRAGMA application_id={MARK}")
            connection.execute(f"PRAGMA user_version={FORMAT}")
        connection.execute("COMMIT")
        if self._logs and self._path is not None:
            with suppress(OSError):  # a full disk is read all the same
                _spread(self._path.with_name(f"{self._path.name}-wal"))


def _is_fresh(connection: sqlite3.Connection) -> bool:
    """Whether nothing is in it yet, as of a server that died while it made the file; else it is
    ours. Raises OSError where it is another program's."""
    [(mark,)] = connection.execute("PRAGMA application_id").fetchall()
    [(version,)] = connection.execute("PRAGMA user_version").fetchall()
    [(things,)] = connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    if (mark, version) == (MARK, FORMAT):
        return False
    if mark or version or things:
        raise OSError("it is not a store of jobs of this omnivec; give another path")
    return True


def _spread(path: Path) -> None:
    """Makes the write-ahead log as long as it becomes before SQLite begins it anew: where a file
    grows, waiting for the disk takes many times as long. It stops reading at zeros."""
    with path.open("r+b") as log:
        log.seek(0, os.SEEK_END)
        log.write(bytes(max(0, LOG - log.tell())))
        log.flush()
        os.fsync(log.fileno())
