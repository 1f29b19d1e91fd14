"""Whether this server lives, is ready, and how it does: for orchestrators and people."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any

from omnivec.core.nouns import Call, Card, Reply
from omnivec.server.door import Door
from omnivec.server.exposition import Exposition
from omnivec.server.metrics import Metrics
from omnivec.server.replies import as_json

Serve = Callable[[Call], Awaitable[Reply]]

_FAILED = "failed; see the server's log"
RETRY = "2"
"""Seconds after which to ask again while a model is loading."""


def add_probes(door: Door, metrics: Metrics, exposition: Exposition) -> None:
    """GET /live, /ready (with their aliases), /ping, /health and /metrics."""
    probes = Probes(door, metrics, exposition)
    for path in ("/live", "/livez"):
        door.add_page(path, probes.live)
    door.add_page("/ready", probes.ready)
    door.add_page("/ping", probes.ping)
    door.add_page("/healthz", in_a_word(probes.live))
    door.add_page("/readyz", in_a_word(probes.ready))
    door.add_page("/health", probes.health)
    door.add_page("/metrics", probes.numbers)


class Probes:
    """Readiness is the engine's own word: a model counts as loaded after it has answered."""

    def __init__(self, door: Door, metrics: Metrics, exposition: Exposition) -> None:
        self._door = door
        self._metrics = metrics
        self._exposition = exposition
        self._since = time.monotonic()

    async def live(self, _call: Call) -> Reply:
        """200 as long as the event loop turns."""
        return as_json({"status": "alive"})

    async def ready(self, _call: Call) -> Reply:
        """200 once the models that were named were tried and one can be had; else 503. A model
        that is loaded later, when it is asked for, changes nothing. Says no names."""
        cards = (await self._door.cards()).cards
        return _answer({"status": readiness(cards, draining=self._door.draining)})

    async def ping(self, _call: Call) -> Reply:
        """As RunPod's load balancers ask: 200 when ready, 204 while a model is loading."""
        cards = (await self._door.cards()).cards
        status = readiness(cards, draining=self._door.draining)
        return Reply(b"", 204, {}) if status == "loading" else _answer({"status": status})

    async def health(self, _call: Call) -> Reply:
        """Every model with its state; the fields that Synesis's users look at, first."""
        cards = (await self._door.cards()).cards
        status = readiness(cards, draining=self._door.draining)
        memory = self._metrics.memory()
        device = next((card.device for card in cards if card.state == "loaded"), "cpu")
        facts: dict[str, Any] = {
            "status": status,
            "version": self._metrics.version,
            "unix": time.time(),  # all that Infinity says here
            "uptime_seconds": round(time.monotonic() - self._since, 3),
            "embedding_model": _brief(cards, "encode"),
            "reranker_model": _brief(cards, "score"),
            "gpu": {
                "available": not device.startswith("cpu"),
                "device_name": device or None,
                "memory_allocated_bytes": memory,
                "memory_allocated_mb": round(memory / 2**20, 1),
            },
            "api_key_needed": bool(self._door.keys),
            "models": [_whole(card, open_to_all=not self._door.keys) for card in cards],
        }
        return _answer(facts)

    async def numbers(self, call: Call) -> Reply:
        """Prometheus's text, or OpenMetrics where it is asked for."""
        cards = (await self._door.cards()).cards
        body, kind = self._exposition.render(cards, call.headers.get("accept", ""))
        return Reply(body, 200, {"content-type": kind, "cache-control": "no-store"})


def readiness(cards: Sequence[Card], *, draining: bool) -> str:
    """How it is with a server in one word; "ready" is the good one."""
    if draining:
        return "stopping"
    if any(card.awaited for card in cards):
        return "loading"
    if any(card.state != "failed" and not _is_retried(card) for card in cards):
        return "ready"
    return "loading" if any(card.state != "failed" for card in cards) else "failed"


def _is_retried(card: Card) -> bool:
    return card.state == "loading" and card.attempts > 0


def in_a_word(page: Serve) -> Serve:
    """The same in plain text: SIE's clients read "ok" there, as from Kubernetes' own servers."""

    async def said(call: Call) -> Reply:
        reply = await page(call)
        word = b"ok" if reply.status == HTTPStatus.OK else b"not ready"
        kind = {"content-type": "text/plain; charset=utf-8"}
        return Reply(word, reply.status, {**reply.headers, **kind})

    return said


def _answer(facts: dict[str, Any]) -> Reply:
    """A permanent failure carries no Retry-After: waiting would not help."""
    if facts["status"] == "ready":
        return as_json(facts)
    return as_json(facts, 503, {} if facts["status"] == "failed" else {"retry-after": RETRY})


def _brief(cards: tuple[Card, ...], task: str) -> dict[str, Any]:
    """The model that a request without a model's name would get, as Synesis tells of it."""
    able = [card for card in cards if task in card.tasks]
    able.sort(key=lambda card: task == "score" and card.scoring != "cross-encoder")
    if not able:
        return {"path": None, "loaded": False, "device": None}
    card = able[0]
    return {"path": card.name, "loaded": card.state == "loaded", "device": card.device or None}


def _whole(card: Card, *, open_to_all: bool) -> dict[str, Any]:
    """Why a model failed may name files of this machine: only who has a key is told."""
    return {
        "name": card.name,
        "state": card.state,
        "memory_bytes": card.memory,
        "reason": (_FAILED if open_to_all else card.reason) if card.reason else None,
        "tasks": card.tasks,
        "architecture": card.architecture or None,
        "device": card.device or None,
        "dtype": card.dtype or None,
        "runtime": card.runtime or None,
        "dimension": card.dims,
        "max_tokens": card.max_tokens,
        "revision": card.revision,
    }
