"""Jobs in PostgreSQL (extra `postgres`), for who has one that is backed up and watched."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from omnivec.jobs import table
from omnivec.jobs.store import StoreError
from omnivec.jobs.table import Connection, Cursor

LOCK = 0x6F6D766A
"""Of pg_advisory_lock: one server has the table, until its connection ends in whatever way."""
PATIENCE = 15.0
"""Seconds for the database to notice that the server before this one is gone."""
OPTIONS = ("host", "port", "user", "password", "dbname", "sslmode", "sslrootcert")
MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
SETTINGS = (
    "SET client_encoding = 'UTF8'",
    "SET bytea_output = 'hex'",  # the one form of bytes that pg8000 reads
)


class Postgres:
    """`url` as libpq reads it: postgresql://USER:PASSWORD@HOST:PORT/DATABASE, a socket's folder
    as ?host=/run/postgresql, and `sslmode` and `sslrootcert`. Raises StoreError for any other
    option: one that is passed over may be the one that keeps others out."""

    def __init__(self, url: str) -> None:
        try:
            import pg8000.dbapi
        except ImportError:
            raise StoreError(
                "jobs: PostgreSQL needs the extra: pip install 'omnivec[postgres]'"
            ) from None
        self.failures: tuple[type[Exception], ...] = (pg8000.dbapi.Error, OSError)
        self._place = place(url)

    def open(self) -> Connection:
        import pg8000.dbapi

        try:
            inner = pg8000.dbapi.connect(**self._place, timeout=10)
        except self.failures as error:
            raise StoreError(
                f"jobs: PostgreSQL does not let this server in: {_reason(error)}"
            ) from error
        inner._usock.settimeout(None)  # noqa: SLF001 - or it would also end slow statements
        inner.autocommit = True  # Store begins and ends its transactions
        connection = _Spoken(inner)
        try:
            self._prepare(connection)
        except BaseException:
            with suppress(*self.failures):
                inner.close()
            raise
        return connection

    def _prepare(self, connection: Connection) -> None:
        for setting in SETTINGS:
            connection.execute(setting)
        _own(connection)
        connection.execute("BEGIN")
        for statement in table.CREATE:
            key = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
            connection.execute(statement.format(key=key, blob="BYTEA"))
        connection.execute("COMMIT")

    def last(self, connection: Connection, *, lasting: bool) -> None:
        """DEFAULT: as its owner has it, who may want it on a second machine too."""
        connection.execute(f"SET synchronous_commit TO {'DEFAULT' if lasting else 'off'}")

    def shrink(self, connection: Connection) -> None:
        """PostgreSQL does so by itself."""

    def spare(self, connection: Connection) -> int:  # noqa: ARG002 - the same for each
        """Its disk is its owner's to watch."""
        return table.MOST_BYTES

    def close(self, connection: Connection) -> None:
        assert isinstance(connection, _Spoken)  # noqa: S101 - `open` made it
        connection.inner.close()


class _Spoken:
    """Its connection of pg8000, with `?` for each value."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Cursor:
        cursor = self.inner.cursor()
        cursor.execute(statement.replace("?", "%s"), values)
        return cast("Cursor", cursor)


def _own(connection: Connection) -> None:
    """Raises StoreError when another server keeps the table."""
    end = time.monotonic() + PATIENCE
    while True:
        [(owned,)] = connection.execute("SELECT pg_try_advisory_lock(?)", (LOCK,)).fetchall()
        if owned:
            return
        if time.monotonic() > end:
            raise StoreError("jobs: another server uses this database; give each its own")
        time.sleep(0.1)


def _reason(error: BaseException) -> str:
    """The server's sentence, else that of the system, else pg8000's. pg8000 takes its leave of
    a server that turned it away; where that one has already hung up, the broken pipe is what is
    raised and the server's sentence its context."""
    link: BaseException | None = error
    while link is not None:
        told = link.args[0] if link.args else None
        if isinstance(told, dict) and "M" in told:
            return str(told["M"])
        link = link.__cause__ or link.__context__
    return str(error.__cause__ or error)


# ── the URL ──────────────────────────────────────────────────────────────────────────────


def place(url: str) -> dict[str, Any]:
    """What pg8000's `connect` is to be called with. Raises StoreError."""
    try:
        options = _options(urlsplit(url, allow_fragments=False))
        port = int(options.get("port") or 5432)
    except ValueError:
        raise StoreError(
            "jobs: PostgreSQL's URL is postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        ) from None
    if unknown := options.keys() - set(OPTIONS):
        raise StoreError(f"jobs: PostgreSQL's URL has {min(unknown)}; known are {_list(OPTIONS)}")
    if not options.get("user"):
        raise StoreError("jobs: PostgreSQL's URL names no user: postgresql://USER@HOST/DATABASE")
    host = options.get("host") or "localhost"
    known = {
        "user": options["user"],
        "password": options.get("password", ""),  # None, when it is asked for, is an AttributeError
        "database": options.get("dbname") or None,
    }
    context = _context(options.get("sslmode", "prefer"), options.get("sslrootcert"))
    if host.startswith("/"):  # nobody listens in between: there is no TLS, as with libpq
        return known | {"unix_sock": f"{host}/.s.PGSQL.{port}", "ssl_context": False}
    return known | {"host": host, "port": port, "ssl_context": context}


def _options(url: SplitResult) -> dict[str, str]:
    """What it says before `?`, and after it, which has the last word. Raises ValueError."""
    server = re.fullmatch(
        r"(?P<host>\[[^]]+]|[^][:]*)(:(?P<port>\d*))?", url.netloc.rpartition("@")[2]
    )
    if server is None:
        raise ValueError
    said = {
        "host": server["host"].strip("[]"),
        "port": server["port"],
        "user": url.username,
        "password": url.password,
        "dbname": url.path.removeprefix("/"),
    }
    return {name: unquote(value) for name, value in said.items() if value} | dict(
        parse_qsl(url.query.replace("+", "%2B"), strict_parsing=bool(url.query))
    )


def _context(mode: str, root: str | None) -> ssl.SSLContext | bool | None:
    """Of pg8000: False for no TLS, None for TLS where the server has it. Only `verify-ca` and
    `verify-full`, or an authority in `root`, make sure of whom it is spoken with; without a
    `root` the authorities of the system are believed. Raises StoreError."""
    if mode not in MODES:
        raise StoreError(f"jobs: PostgreSQL's sslmode is one of {_list(MODES)}")
    if mode == "disable":
        return False
    if mode in ("allow", "prefer"):
        return None
    try:
        context = ssl.create_default_context(cafile=None if root in (None, "system") else root)
    except OSError as error:
        raise StoreError(f"jobs: PostgreSQL's sslrootcert cannot be read: {error}") from error
    context.check_hostname = mode == "verify-full"
    if mode == "require" and root is None:
        context.verify_mode = ssl.CERT_NONE
    return context


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1]
