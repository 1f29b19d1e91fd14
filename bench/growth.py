"""How our own figures grow with connections, inputs and tokens, and what a request costs
without its model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bench import servers, texts
from bench.generators import Load, drive_loop, drive_wrk
from bench.processes import Running, ServerLostError
from bench.suites import _plain, started
from bench.workloads import EMBED, NAMED, bodies, figures
from omnivec.core.nouns import Text, Unit
from omnivec.core.plugins import discover
from omnivec.core.settings import Settings
from omnivec.engine import hub
from omnivec.engine.catalog import catalog
from omnivec.engine.resident import Opener

CONNECTIONS = (1, 2, 4, 8, 16, 64, 256, 1024)
INPUTS = (1, 4, 16, 64, 256, 1024, 2048)
TOKENS = (8, 32, 128, 512, 2048, 8192)
LONG = 2048  # tokens; from here on two texts keep two cores busy
FAKE = "fake:dims=384"


class Curve(NamedTuple):
    """`x` names what grows; from `saturated` on the rate should be level."""

    name: str
    title: str
    x: str
    saturated: float


CURVES = (
    Curve("connections", "12-word texts, 1 to 1024 connections", "connections", 64),
    Curve("inputs", "12-word texts, 1 to 2048 inputs a request, 2 connections", "inputs", 256),
    Curve("tokens", "8 to 8192 tokens a text, ModernBERT-base shape", "tokens", 128),
)


def measure(repeats: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Samples of ours alone; the long curve of tokens, whose points take seconds, once."""
    for repeat in range(repeats):
        for name, model, walk in (
            ("growth", "default", _growth),
            ("growth", "modernbert", _tokens),
            ("cost", FAKE, _cost),
        ):
            if walk is _tokens and repeat:
                continue
            about = {"suite": name, "server": "omnivec", "repeat": repeat}
            try:
                with started(servers.NAMED["omnivec"], model) as running:
                    for sample in walk(running, seconds):
                        yield {**about, **sample}
            except (ServerLostError, OSError, RuntimeError) as error:
                yield {**about, "workload": "lost", "why": _plain(str(error))}


def _growth(running: Running, seconds: float) -> Iterator[dict[str, Any]]:
    queries = bodies(NAMED["query-64"])
    assert queries is not None
    drive_wrk(running.port, Load(EMBED, queries, 16, seconds))
    for count in CONNECTIONS:
        running.settle()
        spent = running.processor()
        counted = drive_wrk(running.port, Load(EMBED, queries, count, seconds))
        found = figures(counted, running.processor() - spent, 1)
        yield {"workload": "connections", "x": count, **found}
    for count in INPUTS:
        yield {"workload": "inputs", "x": count, **_inputs(running, count, seconds)}


def _inputs(running: Running, count: int, seconds: float) -> dict[str, float]:
    every = texts.windows(12, max(4096, 4 * count))
    parts = [every[at : at + count] for at in range(0, len(every) - count + 1, count)]
    file = texts.write("inputs", map(texts.embed_body, parts))
    running.settle()
    spent = running.processor()
    counted = drive_loop(running.port, Load(EMBED, file, 2, seconds))
    return figures(counted, running.processor() - spent, count)


def _tokens(running: Running, seconds: float) -> Iterator[dict[str, Any]]:
    """Texts of one short word repeated have two tokens more than words."""
    for count in TOKENS:
        rows = [" ".join(_short_words(count - 2, seed)) for seed in range(32)]
        file = texts.write("tokens", (texts.embed_body([row]) for row in rows))
        connections = 8 if count < LONG else 2
        drive_loop(running.port, Load(EMBED, file, connections, 0.3))
        running.settle()
        spent = running.processor()
        counted = drive_loop(running.port, Load(EMBED, file, connections, seconds))
        found = figures(counted, running.processor() - spent, 1)
        rate = found["texts_per_second"] * count
        yield {"workload": "tokens", "x": count, "tokens_per_second": rate, **found}


WORDS = ("the", "of", "and", "in", "to", "was", "is", "for", "as", "on", "with", "by", "he", "at")


def _short_words(count: int, seed: int) -> Sequence[str]:
    """Each of them is one token of the vocabulary."""
    return [WORDS[(at * at + seed * (at + 1)) % len(WORDS)] for at in range(count)]


def _cost(running: Running, seconds: float) -> Iterator[dict[str, Any]]:
    """The fake model answers at once: what is left is the server and the engine."""
    queries = bodies(NAMED["query-64"])
    assert queries is not None
    drive_wrk(running.port, Load(EMBED, queries, 64, seconds))
    spent = running.processor()
    counted = drive_wrk(running.port, Load(EMBED, queries, 64, seconds))
    found = figures(counted, running.processor() - spent, 1)
    yield {"workload": "cost", "model_us": _model_alone(), **found}


def _model_alone() -> float:
    """What the fake model itself takes for a query, to read and to answer it, in batches of 8."""
    name = f"m={FAKE}"
    checkpoint = hub.locate(catalog().specs((name,))[0], offline=True)
    opener = Opener(discover("families"), discover("runtimes"), Settings())
    model, _ = opener.open(checkpoint)
    queries = [Unit(parts=(Text(one),)) for one in texts.windows(12, 4096)]
    spent = time.process_time()
    features = [model.prepare([query])[0] for query in queries]
    for at in range(0, len(features), 8):
        model.forward(features[at : at + 8])
    return 1e6 * (time.process_time() - spent) / len(queries)
