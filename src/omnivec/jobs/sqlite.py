"""Jobs in one SQLite file, or in memory alone. The file is its owner's only: it holds texts."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from omnivec.jobs import table
from omnivec.jobs.store import StoreError
from omnivec.jobs.table import Connection

MARK = 0x6F6D766A  # "omvj", as SQLite's application_id: the file is ours
FORMAT = 1
FREED = 1024
"""Pages that are given back in one go."""
LOG = 1032 * 4120
"""Bytes of the write-ahead log: SQLite's thousand pages of 4096, and what one commit may add."""


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
        """Exclusive: one server has the file, until its process ends in whatever way. FULL:
        what is committed is there after a power cut."""
        [(pages,)] = connection.execute("PRAGMA page_count").fetchall()
        [(mark,)] = connection.execute("PRAGMA application_id").fetchall()
        [(version,)] = connection.execute("PRAGMA user_version").fetchall()
        if pages and (mark, version) != (MARK, FORMAT):
            raise OSError("it is not a store of jobs of this omnivec; give another path")
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        [(mode,)] = connection.execute("PRAGMA journal_mode=WAL").fetchall()
        self._logs = mode == "wal"  # or "memory", or what a file system has that bears none
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN EXCLUSIVE")
        for statement in table.CREATE:
            made = statement.format(key="INTEGER PRIMARY KEY AUTOINCREMENT", blob="BLOB")
            connection.execute(made)
        connection.execute(f"PRAGMA application_id={MARK}")
        connection.execute(f"PRAGMA user_version={FORMAT}")
        connection.execute("COMMIT")
        if self._logs and self._path is not None:
            _spread(self._path.with_name(f"{self._path.name}-wal"))


def _spread(path: Path) -> None:
    """Makes the write-ahead log as long as it becomes before SQLite begins it anew: where a file
    grows, waiting for the disk takes many times as long. It stops reading at zeros."""
    with path.open("r+b") as log:
        log.seek(0, os.SEEK_END)
        log.write(bytes(max(0, LOG - log.tell())))
        log.flush()
        os.fsync(log.fileno())
