"""Jobs in PostgreSQL (extra `postgres`), for who has one that is backed up and watched."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omnivec.jobs import table
from omnivec.jobs.store import StoreError
from omnivec.jobs.table import Connection, Cursor

if TYPE_CHECKING:
    import psycopg

LOCK = 0x6F6D766A
"""Of pg_advisory_lock: one server has the table, until its connection ends in whatever way."""
PATIENCE = 15.0
"""Seconds for the database to notice that the server before this one is gone."""


class Postgres:
    """`url` as libpq reads it: postgresql://USER:PASSWORD@HOST/DATABASE."""

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise StoreError(
                "jobs: PostgreSQL needs the extra: pip install 'omnivec[postgres]'"
            ) from None
        self.failures: tuple[type[Exception], ...] = (psycopg.Error, OSError)
        self._url = url

    def open(self) -> Connection:
        import psycopg

        try:
            connection = psycopg.connect(self._url, autocommit=True, connect_timeout=10)
        except psycopg.Error as error:
            raise StoreError(f"jobs: PostgreSQL does not let this server in: {error}") from error
        try:
            _own(connection)
            with connection.transaction():
                for statement in table.CREATE:
                    key = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
                    connection.execute(statement.format(key=key, blob="BYTEA").encode())
        except BaseException:
            connection.close()
            raise
        return _Spoken(connection)

    def shrink(self, connection: Connection) -> None:
        """PostgreSQL does so by itself."""

    def close(self, connection: Connection) -> None:
        assert isinstance(connection, _Spoken)  # noqa: S101 - `open` made it
        connection.inner.close()


class _Spoken:
    """Its connection, with `?` for each value."""

    def __init__(self, inner: psycopg.Connection[Any]) -> None:
        self.inner = inner

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Cursor:
        return self.inner.execute(statement.replace("?", "%s").encode(), values)


def _own(connection: psycopg.Connection[Any]) -> None:
    """Raises StoreError when another server keeps the table."""
    end = time.monotonic() + PATIENCE
    while True:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
        if row is not None and row[0]:
            return
        if time.monotonic() > end:
            raise StoreError("jobs: another server uses this database; give each its own")
        time.sleep(0.1)
