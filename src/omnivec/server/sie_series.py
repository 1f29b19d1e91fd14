"""The seven series of SIE, from the same numbers: its dashboards go on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from prometheus_client.core import Metric

from omnivec.core.errors import Overloaded
from omnivec.core.nouns import Card
from omnivec.server.metrics import Metrics
from omnivec.server.series import counter, gauges, histogram


def collect(metrics: Metrics, cards: tuple[Card, ...]) -> Iterator[Metric]:
    yield _requests(metrics)
    yield _durations(metrics)
    with metrics.lock:
        rows = {(model,): found.rows for model, found in metrics.batches.items()}
        sizes = histogram("sie_batch_size", "Items in a batch.", ["model"], rows)
    yield sizes
    tokens: defaultdict[tuple[str], int] = defaultdict(int)
    for (model, _), done in metrics.work.items():
        tokens[model,] += done.tokens
    yield counter("sie_tokens_processed", "Tokens of answered requests.", ["model"], tokens)
    queued = {(model,): found["queued"] for model, found in metrics.stats().items()}
    yield gauges("sie_queue_depth", "Items that wait.", ["model"], queued)
    where = {(card.name, card.device or "cpu"): card for card in cards}
    loaded = {labels: float(card.state == "loaded") for labels, card in where.items()}
    yield gauges("sie_model_loaded", "1 when it is loaded.", ["model", "device"], loaded)
    bytes_ = memory(metrics, cards)
    held = {labels: bytes_[card.name] for labels, card in where.items()}
    words = "Bytes; those of several models on one accelerator are divided evenly."
    yield gauges("sie_model_memory_bytes", words, ["model", "device"], held)


def _requests(metrics: Metrics) -> Metric:
    rows: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    for (model, endpoint), done in metrics.work.items():
        rows[model, endpoint, "success"] += done.requests
    for (model, endpoint, code), count in metrics.errors.items():
        rows[model, endpoint, "queue_full" if code == Overloaded.code else "error"] += count
    return counter("sie_requests", "Requests.", ["model", "endpoint", "status"], rows)


def _durations(metrics: Metrics) -> Metric:
    rows = {}
    for (model, endpoint), done in metrics.work.items():
        rows[model, endpoint, "total"] = done.total
        rows[model, endpoint, "queue"] = done.queue
        rows[model, endpoint, "tokenize"] = done.prepare
        rows[model, endpoint, "inference"] = done.inference
    words = "Time of a request by its phases."
    return histogram("sie_request_duration_seconds", words, ["model", "endpoint", "phase"], rows)


def memory(metrics: Metrics, cards: Sequence[Card]) -> dict[str, int]:
    """Bytes that each model takes, by its name, as /metrics and /ws/status tell them: what its
    accelerator holds, or about what its graphs take of the main memory."""
    there = Counter(card.device for card in cards if _is_there(card))
    held = metrics.memory() if there else 0
    return {
        card.name: held // there[card.device] if _is_there(card) else _beside(card)
        for card in cards
    }


def _is_there(card: Card) -> bool:
    return card.state == "loaded" and card.device not in {"", "cpu"}


def _beside(card: Card) -> int:
    return card.memory if card.state == "loaded" else 0
