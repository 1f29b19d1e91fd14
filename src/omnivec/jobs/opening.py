"""The store that the setting `jobs` names."""

from __future__ import annotations

from pathlib import Path

from omnivec.jobs.postgres import Postgres
from omnivec.jobs.sqlite import Sqlite
from omnivec.jobs.store import Store, StoreError

POSTGRES = ("postgresql://", "postgres://")


def check_place(where: str) -> None:
    """Raises StoreError for a URL of another database: it would become a file of an odd name."""
    kind, url, _ = where.partition("://")
    if url and not where.startswith(POSTGRES):
        raise StoreError(
            f"{kind!r} is no database that is known here; accepted: a file's path, for SQLite, "
            "or postgresql://USER@HOST/DATABASE"
        )


def open_store(where: str | None) -> Store:
    """None: in memory; a URL of PostgreSQL; else a file's path. Raises StoreError."""
    if where is None:
        return Store(Sqlite(None))
    check_place(where)
    if where.startswith(POSTGRES):
        return Store(Postgres(where))
    return Store(Sqlite(Path(where).expanduser()))
