"""A load generator for jobs, in one thread: each connection submits its next job when its last
one has ended. A job is one POST of /runsync, or one of /run and as many of /status as it takes.

    python -m bench.job_loop PORT PATH BODIES CONNECTIONS SECONDS PAUSE_MS
"""

from __future__ import annotations

import heapq
import json
import re
import selectors
import sys
import time
from pathlib import Path

from bench.closed_loop import PATIENCE, SHARES, Connection, percentile, requests_of

OK = 200
POLL = "POST /status/{} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"
_STATUS = re.compile(rb'"status":\s*"([A-Z_]+)"')
_HEAD, _TAIL = 100, 60
"""Bytes of an answer among which its status is: before its output, or behind it."""


class Jobs:
    """Runs once. `latencies` in seconds, from a job's submission to its output; `bad` counts
    jobs that did not end COMPLETED. `pause`: seconds between an answer that a job has not ended
    yet and the next question."""

    def __init__(self, port: int, requests: list[bytes], connections: int, pause: float) -> None:
        self.latencies: list[float] = []
        self.bad = 0
        self._requests = requests
        self._pause = pause
        self._begun: dict[int, float] = {}  # when the job of a connection was submitted
        self._asked: set[int] = set()
        self._next = 0
        self._due: list[tuple[float, int, bytes]] = []  # questions to ask, when and where
        self._selector = selectors.DefaultSelector()
        self._all = [Connection(port) for _ in range(connections)]
        for at, one in enumerate(self._all):
            self._selector.register(one.socket, selectors.EVENT_READ, at)

    def run(self, seconds: float) -> float:
        """Returns the seconds from the first job to the end of the last. Raises ConnectionError
        when the server closes a connection, or says nothing for long."""
        began = time.perf_counter()
        for at in range(len(self._all)):
            self._submit(at)
        while self._begun:
            events = self._selector.select(self._patience())
            if not events and not self._due:
                raise ConnectionError("the server says nothing")
            for key, _ in events:
                if key.data not in self._begun:  # idle at the end, and closed as servers may
                    self._selector.unregister(key.fileobj)
                elif (status := self._all[key.data].receive()) is not None:
                    self._take(key.data, status, began + seconds)
            self._ask()
        return time.perf_counter() - began

    def _patience(self) -> float:
        return max(0.0, self._due[0][0] - time.perf_counter()) if self._due else PATIENCE

    def _submit(self, at: int) -> None:
        self._begun[at] = time.perf_counter()
        self._all[at].send(self._requests[self._next % len(self._requests)])
        self._next += 1

    def _ask(self) -> None:
        while self._due and self._due[0][0] <= time.perf_counter():
            _, at, request = heapq.heappop(self._due)
            self._all[at].send(request)

    def _take(self, at: int, status: int, end: float) -> None:
        answer = self._all[at].answer
        told = _STATUS.search(answer[:_HEAD] + answer[-_TAIL:])
        state = told[1] if status == OK and told else b"lost"
        if state in (b"IN_QUEUE", b"IN_PROGRESS"):
            request = POLL.format(json.loads(answer)["id"]).encode()
            pause = self._pause if at in self._asked else 0.0  # the first at once
            self._asked.add(at)
            heapq.heappush(self._due, (time.perf_counter() + pause, at, request))
            return
        now = time.perf_counter()
        self.bad += state != b"COMPLETED"
        self.latencies.append(now - self._begun.pop(at))
        self._asked.discard(at)
        if now < end:
            self._submit(at)


def main(argv: list[str]) -> None:
    port, path, bodies, connections, seconds, pause = argv
    requests = requests_of(path, Path(bodies))
    loop = Jobs(int(port), requests, int(connections), float(pause) / 1000)
    used = time.process_time()
    took = loop.run(float(seconds))
    used = time.process_time() - used
    ms = [1000 * one for one in loop.latencies]
    said = {"requests": len(ms), "seconds": took, "bad": loop.bad, "processor": used}
    said |= {name: percentile(ms, share) for name, share in SHARES.items()}
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1:])
