"""What the server counts. An observation is a few additions to plain numbers.

Everything here is touched on the event loop's thread alone, except `Metrics.batch`, which
the engine calls from its own threads. `exposition.py` turns the numbers into Prometheus
families when somebody scrapes; that is the only time at which it costs something.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from omnivec.core.machine import Accelerator
from omnivec.core.nouns import Card, Result
from omnivec.server.histogram import Histogram
from omnivec.server.lag import Lag

COARSE = (0.1, 0.5, 1.0)
"""Seconds; those of prometheus-fastapi-instrumentator's http_request_duration_seconds."""
FINE = (
    *(0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5),
    *(5.0, 7.5, 10.0, 30.0, 60.0),
)
"""Seconds; from 0.01 on those of its http_request_duration_highr_seconds."""
PHASES = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    30.0,  # a request waits up to 20 for its model
)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
TOKENS = (16.0, 64.0, 128.0, 256.0, 512.0, 768.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0)


class Traffic:
    """The requests of one route (its template, never a path that a client sent)."""

    __slots__ = ("handler", "method", "received", "seconds", "sent", "statuses")

    def __init__(self, handler: str, method: str) -> None:
        self.handler = handler
        self.method = method
        self.statuses = [0] * 6  # by the status's first digit
        self.seconds = Histogram(COARSE)
        self.received = 0  # bytes
        self.sent = 0


class Work:
    """What one model did for one operation."""

    __slots__ = (
        "inference",
        "items",
        "prepare",
        "queue",
        "requests",
        "tokens",
        "total",
        "truncated",
    )

    def __init__(self) -> None:
        self.requests = self.items = self.tokens = self.truncated = 0
        self.prepare = Histogram(PHASES)
        self.queue = Histogram(PHASES)
        self.inference = Histogram(PHASES)
        self.total = Histogram(PHASES)


class Batches:
    """The batches of one model."""

    __slots__ = ("rows", "seconds", "tokens")

    def __init__(self) -> None:
        self.rows = Histogram(ROWS)
        self.tokens = Histogram(TOKENS)
        self.seconds = Histogram(PHASES)


class Metrics:
    """All of the server's numbers; a `Watch` for the engine.

    `stats` is asked at every scrape for {model: {"queued": items, "running": items}}, and
    `memory` for the bytes held on accelerators; `accelerators` tells of these, in a thread, as
    it may take a while. Whoever builds the server sets all three.
    """

    def __init__(self, *, version: str = "", auth_disabled: bool = False) -> None:
        self.version = version
        self.auth_disabled = auth_disabled
        self.stats: Callable[[], Mapping[str, Mapping[str, float]]] = dict
        self.memory: Callable[[], int] = int
        self.accelerators: Callable[[], Sequence[Accelerator]] = tuple
        self.connections: Callable[[], int] = int
        self.in_flight = 0
        self.left = 0
        self.lag = Lag(lambda: self.in_flight > 0)
        self.refusals: defaultdict[int, int] = defaultdict(int)
        self.traffic: dict[tuple[str, str], Traffic] = {}
        self.fine = Histogram(FINE)
        self.work: defaultdict[tuple[str, str], Work] = defaultdict(Work)
        self.served: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(FINE))
        self.errors: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.batches: defaultdict[str, Batches] = defaultdict(Batches)
        self.lock = threading.Lock()
        self._models: dict[str, str] = {}  # by each of their names

    def route(self, handler: str, method: str) -> Traffic:
        """The numbers of one route; asked for once, when the route is made."""
        found = self.traffic.get((handler, method))
        if found is None:
            found = self.traffic[handler, method] = Traffic(handler, method)
        return found

    def answered(
        self, traffic: Traffic, status: int, seconds: float, received: int, sent: int
    ) -> None:
        """A response is complete. `received` and `sent` are the bodies' bytes."""
        traffic.statuses[status // 100] += 1
        traffic.seconds.observe(seconds)
        traffic.received += received
        traffic.sent += sent
        self.fine.observe(seconds)

    def worked(self, operation: str, result: Result, seconds: float) -> None:
        """A model answered. `operation` is the endpoint's `counted` name."""
        usage, timing = result.usage, result.timing
        self._models.setdefault(result.card.name, result.card.name)
        work = self.work[result.card.name, operation]
        work.requests += 1
        work.items += usage.items
        work.tokens += usage.tokens
        work.truncated += usage.truncated
        work.prepare.observe(timing.prepare)
        work.queue.observe(timing.queue)
        work.inference.observe(timing.inference)
        work.total.observe(seconds)
        self.served[operation].observe(seconds)

    def failed(self, operation: str, model: str | None, code: str) -> None:
        """A request ended in a fault. A name that is no served model's is not a label."""
        self.errors[self._models.get(model or "", ""), operation, code] += 1

    def learn(self, cards: tuple[Card, ...]) -> None:
        """The models that there are, so that errors may carry their names."""
        for card in reversed(cards):  # the first that has an alias keeps it
            self._models.update(dict.fromkeys((*card.aliases, card.name), card.name))

    def refused(self, status: int) -> None:
        """The protocol answered for the application: too slow, too large, malformed."""
        self.refusals[status] += 1

    def batch(self, model: str, rows: int, tokens: int, seconds: float) -> None:
        """As `omnivec.core.seams.Watch` has it; from any thread."""
        with self.lock:
            batches = self.batches[model]
            batches.rows.observe(rows)
            batches.tokens.observe(tokens)
            batches.seconds.observe(seconds)
