"""The store that the setting `jobs` names."""

from __future__ import annotations

import re
from pathlib import Path

from omnivec.jobs.postgres import Postgres
from omnivec.jobs.sqlite import Sqlite
from omnivec.jobs.store import Store, StoreError

POSTGRES = ("postgresql://", "postgres://")
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def check_place(where: str) -> None:
    """Raises StoreError for another URL: as a path it would make folders, of a password's name
    among others."""
    if URL.match(where) and not where.startswith(POSTGRES):
        raise StoreError(
            "jobs: a store is a file's path or postgresql://USER:PASSWORD@HOST:PORT/DATABASE; no "
            "other URL is understood"
        )


def open_store(where: str | None) -> Store:
    """None: in memory; a URL of PostgreSQL; else a file's path. Raises StoreError."""
    if where is None:
        return Store(Sqlite(None))
    check_place(where)
    if where.startswith(POSTGRES):
        return Store(Postgres(where))
    return Store(Sqlite(Path(where).expanduser()))
