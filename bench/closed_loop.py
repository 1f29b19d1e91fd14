"""A load generator in one thread: each connection sends its next request when the last one
was answered (and, with a pause, a little later). It stops sending when the time is up and
waits for what is under way, so that slow servers are not counted short.

    python -m bench.closed_loop PORT PATH BODIES CONNECTIONS SECONDS PAUSE_MS
"""

from __future__ import annotations

import heapq
import json
import random
import selectors
import socket
import sys
import time
from pathlib import Path

FINE = range(200, 300)
LOST = 0  # in place of a status
PATIENCE = 300.0  # seconds for the answers that are still out at the end


class Connection:
    """One keep-alive connection and the request that is out on it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent = 0.0
        self.busy = False  # a request is out
        self.answer = bytearray()  # the last one's body
        self._received = bytearray()

    def send(self, request: bytes) -> None:
        self._received.clear()
        self.busy = True
        self.sent = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> int | None:
        """The answer's status when it is complete. Raises ConnectionError."""
        part = self.socket.recv(1 << 18)
        if not part:
            raise ConnectionError("the server closed the connection")
        self._received += part
        head = self._received.find(b"\r\n\r\n")
        if head < 0 or len(self._received) < head + 4 + _length(self._received[:head]):
            return None
        self.busy = False
        self.answer = self._received[head + 4 :]
        return int(self._received[9:12])


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    raise ConnectionError("an answer without Content-Length")


def requests_of(path: str, bodies: Path) -> list[bytes]:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    lines = bodies.read_bytes().splitlines()
    return [head.encode() + b"Content-Length: %d\r\n\r\n" % len(one) + one for one in lines]


class Loop:
    """Runs once. `latencies` in seconds; `bad` counts answers other than 2xx and connections
    that the server closed."""

    def __init__(self, port: int, requests: list[bytes], connections: int, pause: float) -> None:
        self.latencies: list[float] = []
        self.bad = 0
        self._port = port
        self._requests = requests
        self._next = 0
        self._pause = pause
        self._random = random.Random(0)
        self._waiting: list[tuple[float, int]] = []  # when to send again, on which connection
        self._selector = selectors.DefaultSelector()
        self._all: dict[int, Connection] = {}
        for at in range(connections):
            self._open(at)

    def run(self, seconds: float) -> float:
        """Returns the seconds from the first request to the last answer."""
        began = time.perf_counter()
        end, out, last = began + seconds, 0, began
        self._waiting = [(began + self._gap(), at) for at in range(len(self._all))]
        heapq.heapify(self._waiting)
        while time.perf_counter() < end or out:
            out += self._send_due(end)
            answered = self._receive(self._wait(end, out))
            out -= answered
            if answered:
                last = time.perf_counter()
        return last - began

    def _gap(self) -> float:
        return self._random.uniform(0.5, 1.5) * self._pause

    def _send_due(self, end: float) -> int:
        sent = 0
        while self._waiting and self._waiting[0][0] <= time.perf_counter() < end:
            _, at = heapq.heappop(self._waiting)
            self._send(at, self._requests[self._next % len(self._requests)])
            self._next += 1
            sent += 1
        return sent

    def _status(self, at: int) -> int | None:
        """None while an answer is under way; LOST where the server closed the connection
        instead of answering. A closed connection is replaced."""
        busy = self._all[at].busy
        try:
            return self._all[at].receive()
        except ConnectionError:
            self._reopen(at)
            return LOST if busy else None

    def _reopen(self, at: int) -> None:
        self._selector.unregister(self._all[at].socket)
        self._all[at].socket.close()
        self._open(at)

    def _open(self, at: int) -> None:
        self._all[at] = Connection(self._port)
        self._selector.register(self._all[at].socket, selectors.EVENT_READ, at)

    def _send(self, at: int, request: bytes) -> None:
        try:
            self._all[at].send(request)
        except ConnectionError:  # closed while it was idle, as servers may
            self._reopen(at)
            self._all[at].send(request)

    def _wait(self, end: float, out: int) -> float:
        now = time.perf_counter()
        if now >= end:
            return PATIENCE if out else 0.0
        due = self._waiting[0][0] if self._waiting else end
        return max(0.0, min(due, end) - now)

    def _receive(self, timeout: float) -> int:
        answered = 0
        for key, _ in self._selector.select(timeout):
            status = self._status(key.data)
            if status is None:
                continue
            now = time.perf_counter()
            self.latencies.append(now - self._all[key.data].sent)
            self.bad += status not in FINE
            heapq.heappush(self._waiting, (now + self._gap(), key.data))
            answered += 1
        return answered


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]


def main(argv: list[str]) -> None:
    port, path, bodies, connections, seconds, pause = argv
    loop = Loop(int(port), requests_of(path, Path(bodies)), int(connections), float(pause) / 1000)
    used = time.process_time()
    took = loop.run(float(seconds))
    used = time.process_time() - used
    ms = [1000 * one for one in loop.latencies] or [0.0]
    said = {"requests": len(loop.latencies), "seconds": took, "bad": loop.bad, "processor": used}
    said |= {name: percentile(ms, share) for name, share in SHARES.items()}
    print(json.dumps(said))


SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "worst": 1.0}

if __name__ == "__main__":
    main(sys.argv[1:])
