from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

import databases
from omnivec.jobs.opening import open_store
from omnivec.jobs.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NUMBER = itertools.count()


class Clock:
    """Milliseconds, told by the test."""

    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    with databases.postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where jobs are kept: an empty file, or an empty database."""
    if request.param == "sqlite":
        return str(tmp_path / "state" / "jobs.sqlite")
    url: str = request.getfixturevalue("cluster")
    name = f"jobs{next(NUMBER)}"
    with databases.connect(url) as connection:
        connection.cursor().execute(f"CREATE DATABASE {name}")
    return url.replace("/postgres?", f"/{name}?")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(place: str, clock: Clock) -> Iterator[Store]:
    opened = open_store(place)
    opened.clock = clock
    yield opened
    opened.close()
