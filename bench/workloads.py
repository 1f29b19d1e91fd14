"""The workloads: what is sent, over how many connections, and what is read off."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from bench import photos, texts
from bench.generators import Counted, Load, drive_loop, drive_wrk, finish_loop, start_loop
from bench.processes import Running

PICTURE = "pictures/s"
EMBED, RERANK = "/v1/embeddings", "/v1/rerank"


class Workload(NamedTuple):
    """`items`: texts in one request. `drive` is None for the mix, which has two loads.
    `stretch`: how much longer than the others it runs, because its requests are slow."""

    name: str
    title: str
    path: str
    connections: int
    items: int
    bodies: Callable[[], list[bytes]]
    drive: Callable[[int, Load], Counted] | None = drive_loop
    stretch: float = 1.0
    unit: str = "texts/s"


def _singles(size: int, count: int) -> Callable[[], list[bytes]]:
    return lambda: [texts.embed_body([one]) for one in texts.windows(size, count)]


def _batches(size: int, items: int, count: int) -> Callable[[], list[bytes]]:
    def make() -> list[bytes]:
        every = texts.windows(size, items * count)
        return [texts.embed_body(every[at : at + items]) for at in range(0, len(every), items)]

    return make


def _corpus() -> list[bytes]:
    return [texts.embed_body([one]) for one in texts.corpus()]


def _reranks() -> list[bytes]:
    queries, documents = texts.windows(12, 32, 2), texts.windows(100, 32 * 50, 2)
    return [
        texts.rerank_body(query, documents[50 * at : 50 * at + 50])
        for at, query in enumerate(queries)
    ]


def _pictures(items: int) -> Callable[[], list[bytes]]:
    def make() -> list[bytes]:
        every = photos.uris()
        return [texts.embed_body(every[at : at + items]) for at in range(0, len(every), items)]

    return make


QUERIES = _singles(12, 4096)
PASSAGES = _singles(100, 2048)
BULK = _batches(100, 32, 64)

ALL = (
    Workload("query-1", "12 words, 1 connection", EMBED, 1, 1, QUERIES, drive_wrk),
    Workload("query-64", "12 words, 64 connections", EMBED, 64, 1, QUERIES, drive_wrk),
    Workload("query-512", "12 words, 512 connections", EMBED, 512, 1, QUERIES, drive_wrk, 1.5),
    Workload("passage-32", "100 words, 32 connections", EMBED, 32, 1, PASSAGES),
    Workload(
        "batch-4", "batches of 32 x 100 words, 4 connections", EMBED, 4, 32, BULK, stretch=1.5
    ),
    Workload("corpus-32", "XQuAD en, de, zh, mixed lengths, 32 connections", EMBED, 32, 1, _corpus),
    Workload("long-8", "400 words, 8 connections", EMBED, 8, 1, _singles(400, 512)),
    Workload("mix", "queries (4 connections) beside bulk (4 x 32)", EMBED, 4, 1, QUERIES, None),
    Workload("rerank-4", "1 x 50 passages, 4 connections", RERANK, 4, 50, _reranks, stretch=1.5),
    # for the large shapes, of which a peer does a few texts a second
    Workload("passage-8", "100 words, 8 connections", EMBED, 8, 1, PASSAGES),
    Workload(
        "batch-8x2", "batches of 8 x 100 words, 2 connections", EMBED, 2, 8, _batches(100, 8, 64)
    ),
    Workload("long-2", "400 words, 2 connections", EMBED, 2, 1, _singles(400, 512)),
    Workload("query-8", "12 words, 8 connections", EMBED, 8, 1, QUERIES),
    Workload(
        "batch-16", "batches of 16 x 100 words, 1 connection", EMBED, 1, 16, _batches(100, 16, 64)
    ),
    Workload("picture-1", "a picture, 1 connection", EMBED, 1, 1, _pictures(1), unit=PICTURE),
    Workload("picture-32", "a picture, 32 connections", EMBED, 32, 1, _pictures(1), unit=PICTURE),
    Workload(
        "pictures-16",
        "batches of 16 pictures, 2 connections",
        EMBED,
        2,
        16,
        _pictures(16),
        unit=PICTURE,
    ),
)
NAMED: Mapping[str, Workload] = {one.name: one for one in ALL}
SMALL = (
    "query-1",
    "query-64",
    "query-512",
    "passage-32",
    "batch-4",
    "corpus-32",
    "long-8",
    "mix",
)
QUICK = ("query-1", "query-64", "passage-32", "batch-4")
FEW = ("query-1", "query-64", "batch-4")
LARGE = ("query-1", "query-64", "passage-8", "batch-8x2")
DECODER = ("query-1", "query-8", "passage-8", "batch-16")
PICTURES = ("picture-1", "picture-32", "pictures-16")
SMOKE = ("query-1", "query-64", "passage-8", "batch-8x2", "corpus-32", "mix")


def bodies(workload: Workload) -> Path | None:
    """The file with its requests; None where the data for it is not there."""
    made = workload.bodies()
    return texts.write(workload.name, made) if made else None


def measure(server: Running, workload: Workload, file: Path, seconds: float) -> dict[str, float]:
    """Warms up, waits until the server is idle, and measures."""
    load = Load(workload.path, file, workload.connections, seconds * workload.stretch)
    warm = load._replace(seconds=min(1.0, seconds))
    (workload.drive or drive_loop)(server.port, warm)
    server.settle()
    if workload.drive is None:
        return _measure_mix(server, load)
    spent = server.processor()
    counted = workload.drive(server.port, load)
    return figures(counted, server.processor() - spent, workload.items)


def figures(counted: Counted, spent: float, items: int) -> dict[str, float]:
    """`*_cores` are cores' worth of processor time; `cpu_us` that of the server for one text."""
    done = max(1, counted.requests * items)
    return {
        "texts_per_second": counted.rate * items,
        "requests": counted.requests,
        "seconds": counted.seconds,
        "bad": counted.bad,
        "p50_ms": counted.p50,
        "p99_ms": counted.p99,
        "worst_ms": counted.worst,
        "generator_cores": counted.processor / max(counted.seconds, 1e-9),
        "server_cores": spent / max(counted.seconds, 1e-9),
        "cpu_us": 1e6 * spent / done,
    }


PAUSE = 40.0  # ms between a query's answer and the next: about 100 queries a second


def _measure_mix(server: Running, queries: Load) -> dict[str, float]:
    """Queries alone, then beside four connections that send 32 passages at a time."""
    queries = queries._replace(pause=PAUSE, seconds=2 * queries.seconds)
    alone = drive_loop(server.port, queries)
    file = bodies(NAMED["batch-4"])
    assert file is not None
    # the bulk begins before the queries and ends after them
    bulk = start_loop(server.port, Load(EMBED, file, 4, queries.seconds + 1))
    try:
        beside = _beside(server, queries)
    finally:
        counted = finish_loop(bulk)
    return {
        "p99_ms": beside.p99,
        "p50_ms": beside.p50,
        "idle_p99_ms": alone.p99,
        "idle_p50_ms": alone.p50,
        "bulk_texts_per_second": 32 * counted.rate,
        "requests": beside.requests,
        "idle_requests": alone.requests,
        "bad": alone.bad + beside.bad + counted.bad,
        "generator_cores": beside.processor / beside.seconds + counted.processor / counted.seconds,
    }


def _beside(server: Running, queries: Load) -> Counted:
    time.sleep(0.5)
    return drive_loop(server.port, queries)
