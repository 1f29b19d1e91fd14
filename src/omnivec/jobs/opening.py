"""The store that the setting `jobs` names."""

from __future__ import annotations

from pathlib import Path

from omnivec.jobs.postgres import Postgres
from omnivec.jobs.sqlite import Sqlite
from omnivec.jobs.store import Store, StoreError


def open_store(where: str | None) -> Store:
    """None: in memory; a URL of PostgreSQL; else a file's path. Raises StoreError."""
    if where is None:
        return Store(Sqlite(None))
    if where.startswith(("postgresql://", "postgres://")):
        return Store(Postgres(where))
    if "://" in where:  # which would become a file with an odd name
        kind = where.partition("://")[0]
        raise StoreError(
            f"{kind!r} is no database that is known here; accepted: a file's path, for SQLite, "
            "or postgresql://USER@HOST/DATABASE"
        )
    return Store(Sqlite(Path(where).expanduser()))
