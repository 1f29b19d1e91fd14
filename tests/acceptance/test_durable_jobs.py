"""Jobs that were accepted are done, once each, however often the server is killed.

OMNIVEC_TEST_JOBS and OMNIVEC_TEST_KILLS say how many (200 and 3 by default; the figures in
docs/experiments.md were taken with 1000 and 10).
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import sqlite3
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

import databases
import live
import wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JOBS = int(os.environ.get("OMNIVEC_TEST_JOBS", "200"))
KILLS = int(os.environ.get("OMNIVEC_TEST_KILLS", "3"))
CLIENTS = 4
SLOW = "fake:slow=0.05"
DEAD = (OSError, http.client.HTTPException)


class Crowd:
    """Submits jobs to whatever server is there, and remembers the ids that it was told."""

    def __init__(self) -> None:
        self.url = ""
        self.accepted: dict[str, str] = {}  # id to text
        self.refused: list[str] = []
        self._left = [f"text {number}" for number in range(JOBS)]
        self._pace = KILLS * 1.5 / JOBS * CLIENTS  # seconds between two jobs of one client
        self.threads = [threading.Thread(target=self._submit) for _ in range(CLIENTS)]

    @property
    def done(self) -> bool:
        return not any(thread.is_alive() for thread in self.threads)

    def _submit(self) -> None:
        while True:
            try:
                text = self._left.pop()
            except IndexError:
                return
            while not self._accepted(text):
                time.sleep(0.05)
            time.sleep(self._pace)

    def _accepted(self, text: str) -> bool:
        body = {"input": {"input": text}}
        try:
            answer = wire.request(self.url, "/v2/any/run", body, timeout=20)
            if answer.status == 200:
                self.accepted[answer.json["id"]] = text
                return True
            self.refused.append(answer.body.decode())
        except DEAD:
            pass  # nobody was told of an id
        return False


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "jobs.sqlite")
        return
    with databases.postgres() as url:
        yield url


def rows(place: str) -> list[Any]:
    """What the store has at the end, read without the server."""
    query = "SELECT id, status, finished IS NOT NULL FROM job"
    if place.startswith("postgresql:"):
        with databases.connect(place) as connection:
            cursor = connection.cursor()
            cursor.execute(query)
            return [tuple(row) for row in cursor.fetchall()]
    opened = sqlite3.connect(place)
    try:
        return opened.execute(query).fetchall()
    finally:
        opened.close()


def wait_for_work(url: str) -> None:
    end = time.monotonic() + 60
    while wire.request(url, "/v2/any/health").json["jobs"]["inProgress"] == 0:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_every_accepted_job_is_completed_once(place: str) -> None:
    crowd, chance = Crowd(), random.Random(7)
    arguments = (SLOW, "--jobs", place, "--max-jobs", "4")
    again = 0
    with ExitStack() as stack:
        for number in range(KILLS):
            server = stack.enter_context(live.launch(*arguments))
            live.wait_ready(server)
            crowd.url = server.url
            if not number:
                for thread in crowd.threads:
                    thread.start()
                wait_for_work(server.url)  # the first kill meets jobs that run
            else:
                time.sleep(chance.uniform(0.1, 1.5))
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
            again += "wait again" in server.printed()
        with live.serve(*arguments) as server:
            crowd.url = server.url
            again += "wait again" in server.printed()
            for thread in crowd.threads:
                thread.join(120)
            assert crowd.done
            told = {
                id_: wire.request(server.url, f"/status-sync/{id_}?wait=120000", timeout=180).json
                for id_ in crowd.accepted
            }
            right = {
                text: wire.request(server.url, "/v1/embeddings", {"input": text}).json["data"][0]
                for text in crowd.accepted.values()
            }
            health = wire.request(server.url, "/v2/any/health").json["jobs"]
    assert len(crowd.accepted) == JOBS
    assert crowd.refused == []
    assert {one["status"] for one in told.values()} == {"COMPLETED"}
    for id_, text in crowd.accepted.items():
        assert told[id_]["output"]["data"][0]["embedding"] == right[text]["embedding"]
    assert again > 0  # jobs were running when it died
    kept = rows(place)
    assert len({id_ for id_, _, _ in kept}) == len(kept) == health["completed"]
    assert {(status, bool(finished)) for _, status, finished in kept} == {("COMPLETED", True)}
    assert crowd.accepted.keys() <= {id_ for id_, _, _ in kept}
    print(f"{len(kept)} jobs, {KILLS} kills, {again} starts with jobs to run again")
