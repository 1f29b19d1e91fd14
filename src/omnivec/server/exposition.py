"""The server's numbers as Prometheus families, made anew at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric, SummaryMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from omnivec.core.nouns import Card
from omnivec.server import sie_series
from omnivec.server.histogram import Histogram
from omnivec.server.metrics import FINE, Batches, Metrics, Traffic, Work
from omnivec.server.series import counter, gauge, gauges, histogram

COUNTED = ("embeddings", "similarity", "rerank")
"""The operations that Synesis's counters know from the start."""


class Exposition(Collector):
    """Prometheus's view of `Metrics`. `render` is what GET /metrics answers."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._cards: tuple[Card, ...] = ()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def render(self, cards: tuple[Card, ...], accept: str) -> tuple[bytes, str]:
        """The text and its content type, in the format that `accept` asks for; in the plain
        one where that cannot be understood."""
        self._cards = cards
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is no number
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering does not collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from self._synesis()
        yield from sie_series.collect(self._metrics, self._cards)
        yield from self._http()
        yield from self._models()
        yield from self._work()
        yield from self._batches()
        yield from self._process()

    # ── names that others chose ──────────────────────────────────────────────────────────

    def _synesis(self) -> Iterator[Metric]:
        loaded = [card for card in self._cards if card.state == "loaded"]
        yield gauge(
            "embedding_model_loaded",
            "Whether a model that embeds is loaded.",
            any("encode" in card.tasks for card in loaded),
        )
        yield gauge(
            "reranker_model_loaded",
            "Whether a model that reranks is loaded.",
            any("score" in card.tasks for card in loaded),
        )
        yield gauge(
            "embedding_gpu_memory_bytes",
            "Bytes held on accelerators.",
            self._metrics.memory(),
        )
        served = self._metrics.served
        empty = Histogram(FINE)
        rows = {(name,): served.get(name, empty) for name in dict.fromkeys((*COUNTED, *served))}
        yield counter(
            "embedding_inference_requests",
            "Inference requests that were answered.",
            ["endpoint"],
            {labels: sum(found.counts) for labels, found in rows.items()},
        )
        yield histogram(
            "embedding_inference_duration_seconds", "Time to an answer.", ["endpoint"], rows
        )

    def _http(self) -> Iterator[Metric]:
        """The names of prometheus-fastapi-instrumentator."""
        seen = [found for found in self._metrics.traffic.values() if any(found.statuses)]
        statuses = {
            (found.handler, found.method, f"{digit}xx"): count
            for found in seen
            for digit, count in enumerate(found.statuses)
            if count
        }
        yield counter(
            "http_requests", "Requests by route.", ["handler", "method", "status"], statuses
        )
        yield histogram(
            "http_request_duration_seconds",
            "Latency by route.",
            ["handler", "method"],
            {(found.handler, found.method): found.seconds for found in seen},
        )
        yield histogram(
            "http_request_duration_highr_seconds",
            "Latency of all requests, in many buckets.",
            [],
            {(): self._metrics.fine},
        )
        yield _sizes("http_request_size_bytes", "Request bodies.", seen, lambda t: t.received)
        yield _sizes("http_response_size_bytes", "Response bodies.", seen, lambda t: t.sent)

    # ── our own ──────────────────────────────────────────────────────────────────────────

    def _models(self) -> Iterator[Metric]:
        yield gauges(
            "omnivec_model_loaded",
            "Whether a model is loaded, and how.",
            ["model", "state", "device", "dtype", "runtime"],
            {
                (card.name, card.state, card.device, card.dtype, card.runtime): float(
                    card.state == "loaded"
                )
                for card in self._cards
            },
        )
        stats = self._metrics.stats()
        for key, words in (("queued", "Items that wait."), ("running", "Items in a batch.")):
            rows = {(model,): found.get(key, 0.0) for model, found in stats.items()}
            yield gauges(f"omnivec_items_{key}", words, ["model"], rows)
        for key, words in (
            ("joined", "Items that waited for the same one under way."),
            ("recalled", "Items that came from the cache on disk."),
        ):
            rows = {(model,): found.get(key, 0.0) for model, found in stats.items()}
            yield counter(f"omnivec_items_{key}", words, ["model"], rows)

    def _work(self) -> Iterator[Metric]:
        work = self._metrics.work
        labels = ["model", "endpoint"]
        for key in ("requests", "items", "tokens", "truncated"):
            words = f"{key.capitalize()} that a model answered."
            rows = {names: getattr(done, key) for names, done in work.items()}
            yield counter(f"omnivec_{key}", words, labels, rows)
        yield counter(
            "omnivec_errors",
            "Faults by their code.",
            [*labels, "code"],
            self._metrics.errors,
        )
        phases: dict[str, Callable[[Work], Histogram]] = {
            "prepare": lambda done: done.prepare,
            "queue": lambda done: done.queue,
            "inference": lambda done: done.inference,
        }
        for key, phase in phases.items():
            histograms = {names: phase(done) for names, done in work.items()}
            words = f"Time of a request's slowest item in the phase {key!r}."
            yield histogram(f"omnivec_{key}_seconds", words, labels, histograms)

    def _batches(self) -> Iterator[Metric]:
        kinds: dict[str, Callable[[Batches], Histogram]] = {
            "rows": lambda found: found.rows,
            "tokens": lambda found: found.tokens,
            "seconds": lambda found: found.seconds,
        }
        families = []
        with self._metrics.lock:  # not while anybody waits for the next family
            for key, kind in kinds.items():
                rows = {(model,): kind(found) for model, found in self._metrics.batches.items()}
                words = f"Batches by {key}."
                families.append(histogram(f"omnivec_batch_{key}", words, ["model"], rows))
        yield from families

    def _process(self) -> Iterator[Metric]:
        metrics = self._metrics
        yield gauge("omnivec_requests_in_flight", "Requests in work.", metrics.in_flight)
        yield gauge("omnivec_connections", "Open connections.", metrics.connections())
        yield gauge(
            "omnivec_event_loop_lag_seconds",
            "The latest that the loop woke up in the last 15 to 30 seconds.",
            metrics.lag.longest,
        )
        yield histogram(
            "omnivec_event_loop_delay_seconds",
            "How late the loop woke up, at each look.",
            [],
            {(): metrics.lag.seen},
        )
        yield gauge("omnivec_auth_disabled", "1 when no key is needed.", metrics.auth_disabled)
        yield counter(
            "omnivec_clients_left", "Requests whose client went away.", [], {(): metrics.left}
        )
        refusals = {(str(status),): count for status, count in metrics.refusals.items()}
        yield counter("omnivec_http_refused", "Refused while read.", ["status"], refusals)
        build = {(metrics.version,): 1.0}
        yield gauges("omnivec_build_info", "The version.", ["version"], build)


def _sizes(
    name: str, words: str, seen: Iterable[Traffic], size: Callable[[Traffic], int]
) -> Metric:
    """One row for each handler: its methods are added up, as the instrumentator has it."""
    sums: dict[str, tuple[int, int]] = {}
    for found in seen:
        count, total = sums.get(found.handler, (0, 0))
        sums[found.handler] = count + sum(found.statuses), total + size(found)
    family = SummaryMetricFamily(name, words, labels=["handler"])
    for handler, (count, total) in sums.items():
        family.add_metric([handler], count, float(total))
    return family
