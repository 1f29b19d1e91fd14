"""The store that the setting `jobs` names."""

from __future__ import annotations

from pathlib import Path

from omnivec.jobs.postgres import Postgres
from omnivec.jobs.sqlite import Sqlite
from omnivec.jobs.store import Store


def open_store(where: str | None) -> Store:
    """None: in memory; a URL of PostgreSQL; else a file's path. Raises StoreError."""
    if where is None:
        return Store(Sqlite(None))
    if where.startswith(("postgresql://", "postgres://")):
        return Store(Postgres(where))
    return Store(Sqlite(Path(where).expanduser()))
