"""What only the store in PostgreSQL has: its URL, and a server that throws it out."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest

import databases
from omnivec.core.errors import Loading
from omnivec.jobs import table
from omnivec.jobs.job import Order
from omnivec.jobs.opening import open_store
from omnivec.jobs.postgres import Postgres, place
from omnivec.jobs.store import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from omnivec.jobs.store import Store


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://ada:p%40ss%23@db.example:6432/jobs",
            {"user": "ada", "password": "p@ss#", "database": "jobs"}
            | {"host": "db.example", "port": 6432, "ssl_context": None},
        ),
        (
            "postgres://ada@[::1]/jobs?sslmode=disable",
            {"user": "ada", "password": "", "database": "jobs"}
            | {"host": "::1", "port": 5432, "ssl_context": False},
        ),
        (
            "postgresql://ada@/jobs?host=/run/postgresql&port=5433&sslmode=require",
            {"user": "ada", "password": "", "database": "jobs"}
            | {"unix_sock": "/run/postgresql/.s.PGSQL.5433", "ssl_context": False},
        ),
        (
            "postgresql://%2Frun%2FPostgres?user=ada&password=a+b",
            {"user": "ada", "password": "a+b", "database": None}
            | {"unix_sock": "/run/Postgres/.s.PGSQL.5432", "ssl_context": False},
        ),
    ],
)
def test_the_url_is_read_as_libpq_reads_it(url: str, expected: dict[str, Any]) -> None:
    assert place(url) == expected


@pytest.mark.parametrize(
    ("options", "verified", "named"),
    [
        ("sslmode=require", ssl.CERT_NONE, False),
        ("sslmode=require&sslrootcert=system", ssl.CERT_REQUIRED, False),
        ("sslmode=verify-ca", ssl.CERT_REQUIRED, False),
        ("sslmode=verify-full", ssl.CERT_REQUIRED, True),
    ],
)
def test_how_much_is_verified(options: str, verified: ssl.VerifyMode, named: bool) -> None:
    context = place(f"postgresql://ada@db.example/jobs?{options}")["ssl_context"]
    assert (context.verify_mode, context.check_hostname) == (verified, named)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://ada@db/jobs?hosts=two", "has hosts; known are"),
        ("postgresql://ada@one:5432,two:5432/jobs", "USER:PASSWORD@HOST:PORT/DATABASE"),
        ("postgresql://ada@db:port/jobs", "USER:PASSWORD@HOST:PORT/DATABASE"),
        ("postgresql://ada@db/jobs?sslmode", "USER:PASSWORD@HOST:PORT/DATABASE"),
        ("postgresql://db.example/jobs", "names no user"),
        ("postgresql://ada@db/jobs?channel_binding=require", "has channel_binding; known are"),
        ("postgresql://ada@db/jobs?sslmode=full", "sslmode is one of"),
        ("postgresql://ada@db/jobs?sslmode=require&sslrootcert=/none.pem", "cannot be read"),
    ],
)
def test_what_is_not_understood_is_refused(url: str, told: str) -> None:
    with pytest.raises(StoreError, match=told):
        Postgres(url)


def test_who_is_not_let_in_reads_why(cluster: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match='database "none" does not exist'):
        open_store(cluster.replace("/postgres?", "/none?"))
    with pytest.raises(StoreError, match="No such file"):
        open_store(f"postgresql://ada@/jobs?host={tmp_path}")
    with pytest.raises(StoreError, match="refused"):
        open_store("postgresql://ada@127.0.0.1:1/jobs")


def test_a_server_that_hangs_up_first_is_still_heard(tmp_path: Path) -> None:
    place = tmp_path / ".s.PGSQL.5432"
    told = b"SFATAL\0C53300\0Msorry, too many clients already\0\0"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        server.listen(1)

        def turn_away() -> None:
            guest, _ = server.accept()
            with guest:
                guest.recv(1024)
                guest.shutdown(socket.SHUT_RD)  # what the guest writes now ends in EPIPE
                guest.sendall(b"E" + (len(told) + 4).to_bytes(4, "big") + told)

        thread = threading.Thread(target=turn_away)
        thread.start()
        with pytest.raises(StoreError, match="too many clients already"):
            open_store(f"postgresql://ada@/jobs?host={tmp_path}")
        thread.join()


def ask(store: Store, work: Any, *arguments: Any) -> Any:
    async def asked() -> Any:
        return await store.run(work, *arguments)

    return asyncio.run(asked())


def test_a_lost_connection_is_made_anew(cluster: str) -> None:
    with databases.connect(cluster) as connection:
        connection.cursor().execute("CREATE DATABASE lost")
    store = open_store(cluster.replace("/postgres?", "/lost?"))
    accepted = Order("a", bytes(range(256)))
    ask(store, table.add, accepted, 1)
    with databases.connect(cluster) as connection:
        connection.cursor().execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'lost'"
        )
    with pytest.raises(Loading):
        ask(store, table.take, 9, 2)
    [job] = ask(store, table.take, 9, 2)
    store.close()
    assert (job.id, job.input) == ("a", accepted.input)
