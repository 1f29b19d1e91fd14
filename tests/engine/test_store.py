"""The file of finished vectors: what it keeps, what it gives up, what it survives."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

import pytest

from omnivec.engine import store as module
from omnivec.engine.store import Store

SIZE = 16_000_000


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test machine may be busy; what is found must not depend on it."""
    monkeypatch.setattr(module, "PATIENCE", 10.0)
    monkeypatch.setattr(module, "OPENING", 30.0)


@contextmanager
def opened(folder: Path, size: int = SIZE) -> Iterator[Store]:
    store = Store(folder, size, "1")
    try:
        yield store
    finally:
        store.close()


def key(number: int) -> bytes:
    return number.to_bytes(20, "big")


def value(number: int, size: int = 1544) -> bytes:
    return number.to_bytes(4, "big") * (size // 4)


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path / "new" / "folder") as store:
        for i in range(300):
            store.put(key(i), value(i))
    with opened(tmp_path / "new" / "folder") as store:
        assert store.get([key(i) for i in range(64)]) == {key(i): value(i) for i in range(64)}
        assert store.get([key(999), key(299)]) == {key(299): value(299)}
        assert store.get([]) == {}
        assert (store.errors, store.dropped) == (0, 0)


def test_it_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.put(key(1), value(1))
        until(lambda: store.get([key(1)]))
        store.put(key(1), value(2))  # a key's value never changes
        store.put(key(2), value(2))
        until(lambda: store.get([key(2)]))
        assert store.get([key(1)]) == {key(1): value(1)}


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    with opened(tmp_path / "folder") as store:
        store.put(key(1), value(1))
        until(lambda: store.get([key(1)]))
        modes = {path.name: path.stat().st_mode & 0o777 for path in store.path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700


def test_it_stays_below_its_size_and_keeps_what_is_used(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.put(key(0), value(0))
        for start in range(1, 15_001, 1000):  # 23 MB
            for i in range(start, start + 1000):
                store.put(key(i), value(i))
            until(lambda last=i: store.get([key(last)]))
            assert store.get([key(0)]) == {key(0): value(0)}
            assert on_disk(tmp_path) <= SIZE
        assert store.get([key(0), key(1)]) == {key(0): value(0)}
        assert (store.errors, store.dropped) == (0, 0)


def test_a_smaller_size_than_before_shrinks_the_file(tmp_path: Path) -> None:
    with opened(tmp_path, 40_000_000) as store:
        for i in range(15_000):
            until(lambda: store._waiting.qsize() < 2000)
            store.put(key(i), value(i))
    before = on_disk(tmp_path)
    assert before > SIZE
    with opened(tmp_path) as store:
        for i in range(15_000, 19_000):
            store.put(key(i), value(i))
    assert on_disk(tmp_path) <= SIZE
    with opened(tmp_path) as store:
        assert store.get([key(18_999), key(0)]) == {key(18_999): value(18_999)}


WRITER = """
import sys
from pathlib import Path
from omnivec.engine.store import Store
store = Store(Path(sys.argv[1]), 16_000_000, "1")
number = 0
while True:
    if store._waiting.qsize() < 1000:
        store.put(number.to_bytes(20, "big"), number.to_bytes(4, "big") * 386)
        number += 1
        if number % 1000 == 0:
            print(number, flush=True)
"""


def test_a_kill_spoils_nothing(tmp_path: Path) -> None:
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        while int(child.stdout.readline()) < 6000:
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with opened(tmp_path) as store:
            found = {i: store.get([key(i)]).get(key(i)) for i in range(0, 6000, 97)}
            assert sum(one is not None for one in found.values()) > 10
            assert all(one in (None, value(i)) for i, one in found.items())
            assert store.errors == 0
        connection = sqlite3.connect(tmp_path / module.NAME)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()


FULL = """
import logging, resource, sys, time
from pathlib import Path
from omnivec.engine import store as module
from omnivec.engine.store import Store
module.PATIENCE = 30.0  # however slow this machine is
logging.basicConfig()
store = Store(Path(sys.argv[1]), 16_000_000, "1")
store.put(bytes(20), b"early" * 4)
while not store.get([bytes(20)]):
    time.sleep(0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # as a full disk: writes fail
for number in range(1, 1000):
    store.put(number.to_bytes(20, "big"), bytes(1544))
while not store.errors:
    time.sleep(0.01)
print(store.get([bytes(20)]) == {bytes(20): b"early" * 4}, store.dropped > 0)
store.close()
"""


def test_a_full_disk_is_no_obstacle(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["True", "True"]
    assert done.stderr.count("the cache in") == 1
    with opened(tmp_path) as store:
        assert store.get([bytes(20)]) == {bytes(20): b"early" * 4}
        store.put(key(5), value(5))
        until(lambda: store.get([key(5)]))


def test_a_file_of_somebody_else_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / module.NAME
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs(x)")
    other.commit()
    other.close()
    text = tmp_path / "text" / module.NAME
    text.parent.mkdir()
    text.write_text("not a database, and long enough to be one " * 50)
    before = path.read_bytes(), text.read_bytes()
    with caplog.at_level(logging.WARNING, "omnivec.engine"):
        for folder in (tmp_path, text.parent):
            with opened(folder) as store:
                store.put(key(1), value(1))
                assert store.get([key(1)]) == {}
                assert store.errors > 0
    assert (path.read_bytes(), text.read_bytes()) == before
    assert "give another folder" in caplog.text


def test_a_spoilt_file_of_ours_is_begun_anew(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for i in range(500):
            store.put(key(i), value(i))
    with (tmp_path / module.NAME).open("r+b") as file:
        file.seek(module.PAGE)
        file.write(os.urandom(50 * module.PAGE))
    with opened(tmp_path) as store:
        assert store.get([key(1)]) in ({}, {key(1): value(1)})
        until(lambda: _comes_back(store))
    connection = sqlite3.connect(tmp_path / module.NAME)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def _comes_back(store: Store) -> dict[bytes, bytes]:
    store._read_after = store._write_after = 0.0  # no rest
    store.put(key(1000), value(1000))
    return store.get([key(1000)])


def test_a_file_of_another_format_is_begun_anew(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.put(key(1), value(1))
    connection = sqlite3.connect(tmp_path / module.NAME)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with opened(tmp_path) as store:
        assert store.get([key(1)]) == {}
        store.put(key(2), value(2))
        until(lambda: store.get([key(2)]))


class Stuck:
    """Somebody whose answer cannot be delivered: the reading thread hangs, as on a dead disk."""

    def __init__(self) -> None:
        self.free = Event()

    def put(self, found: object) -> None:
        self.free.wait()


def test_a_disk_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as store:
        store.put(key(1), value(1))
        until(lambda: store.get([key(1)]))
        stuck = Stuck()
        monkeypatch.setattr(module, "PATIENCE", 0.05)
        store._asked.put(([key(1)], stuck))  # type: ignore[arg-type]
        assert store.get([key(1)]) == {}
        assert store.errors == 1
        assert store.get([key(1)]) == {}  # it rests: nobody asks
        assert store.errors == 1
        stuck.free.set()
        monkeypatch.setattr(module, "PATIENCE", 10.0)
        store._read_after = 0.0
        assert store.get([key(1)]) == {key(1): value(1)}


def test_what_cannot_be_written_in_time_is_forgotten(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for i in range(4 * module.BACKLOG):
            store.put(key(i), b"")
        assert store.dropped > 0
        assert isinstance(store._waiting, SimpleQueue)


def test_two_processes_worth_of_stores_share_a_file(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as two:
        for i in range(200):
            (one if i % 2 else two).put(key(i), value(i))
        until(lambda: len(one.get([key(i) for i in range(200)])) == 200)
        until(lambda: len(two.get([key(i) for i in range(200)])) == 200)
        assert (one.errors, two.errors) == (0, 0)
    assert two.get([key(1)]) == {}  # closed
