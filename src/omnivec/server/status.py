"""What a frame of /ws/status says: the fields of SIE's documentation and of its code.

Where the two call one thing by two names, both are sent.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from prometheus_client.core import Metric

from omnivec.core.machine import Accelerator
from omnivec.core.nouns import Card
from omnivec.core.settings import Settings
from omnivec.server import sie_series
from omnivec.server.door import Door
from omnivec.server.metrics import Metrics
from omnivec.server.probes import readiness

Totals = dict[str, dict[str, float]]


class Status:
    """Snapshots of a server. `facts` are those of a server that never change."""

    def __init__(self, door: Door, settings: Settings, metrics: Metrics) -> None:
        self._door = door
        self._metrics = metrics
        self._queue = settings.queue
        self._since = time.monotonic()
        # One frame goes to all listeners alike, so what strangers must not know is left out for
        # all. Who runs the server and where is told only where each listener has shown a key;
        # that a server is on loopback does not tell who is behind a proxy before it.
        self._user = _user() if door.keys else ""
        self._folder = _folder() if door.keys else ""

    async def snapshot(self) -> bytes:
        """The frame's JSON."""
        cards = (await self._door.cards()).cards
        gpus = await asyncio.to_thread(self._gpus) if _accelerated(cards) else []
        return orjson.dumps(self._facts(cards, gpus))

    def _facts(self, cards: Sequence[Card], gpus: list[dict[str, Any]]) -> dict[str, Any]:
        families = list(sie_series.collect(self._metrics, tuple(cards)))
        kind = gpus[0]["gpu_type"] if gpus else "cpu"
        return {
            "timestamp": time.time(),
            "ready": readiness(cards, draining=self._door.draining) == "ready",
            "name": "omnivec",
            "machine_profile": kind,
            "pool_name": "",
            "gpu": kind,
            "gpu_count": len(gpus),
            "bundle": "default",
            "bundle_config_hash": "",
            "loaded_models": [card.name for card in cards if card.state == "loaded"],
            "max_batch_requests": self._queue,  # items: nothing else bounds their number
            "server": self._server(),
            "gpus": gpus,
            "models": self._models(cards),
            "counters": counters(families),
            "histograms": histograms(families),
        }

    def _server(self) -> dict[str, Any]:
        return {
            "version": self._metrics.version,
            "uptime_seconds": int(time.monotonic() - self._since),
            "user": self._user,
            "working_dir": self._folder,
            "pid": os.getpid(),
        }

    def _models(self, cards: Sequence[Card]) -> list[dict[str, Any]]:
        """Those with the most memory first."""
        held, stats = sie_series.memory(self._metrics, cards), self._metrics.stats()
        found = [_model(card, held[card.name], stats.get(card.name, {})) for card in cards]
        return sorted(found, key=lambda model: -int(model["memory_bytes"]))

    def _gpus(self) -> list[dict[str, Any]]:
        return [_gpu(index, found) for index, found in enumerate(self._metrics.accelerators())]


def counters(families: Sequence[Metric]) -> Totals:
    """{name without _total: {model: sum over all other labels}}."""
    found: Totals = {}
    for family in families:
        if family.type == "counter":
            sums: defaultdict[str, float] = defaultdict(float)
            for sample in family.samples:
                sums[sample.labels["model"]] += sample.value
            found[family.name] = {model: value for model, value in sums.items() if model}
    return found


def histograms(families: Sequence[Metric]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """{name: {model: buckets and their cumulative counts}}: of durations the phase "total",
    and the last bucket, which has no bound, left out."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for family in families:
        if family.type == "histogram":
            sums: defaultdict[str, Counter] = defaultdict(lambda: defaultdict(float))
            for sample in family.samples:
                if _is_bucket(sample.name, sample.labels):
                    sums[sample.labels["model"]][float(sample.labels["le"])] += sample.value
            found[family.name] = {model: _split(counted) for model, counted in sums.items()}
    return found


Counter = defaultdict[float, float]


def _split(counted: Counter) -> dict[str, list[float]]:
    edges = sorted(counted)
    return {"buckets": edges, "counts": [counted[edge] for edge in edges]}


def _is_bucket(name: str, labels: Mapping[str, str]) -> bool:
    return (
        name.endswith("_bucket")
        and labels["le"] != "+Inf"
        and labels.get("phase") in (None, "total")
    )


def _model(card: Card, held: int, stats: Mapping[str, float]) -> dict[str, Any]:
    queued = int(stats.get("queued", 0))
    return {
        "name": card.name,
        "state": card.state,
        "device": card.device or None if card.state == "loaded" else None,
        "memory_bytes": held,
        "queue_depth": queued,
        "queue_pending_items": queued,
        "config": _config(card),
    }


_WORDS = {"score": "score", "extract": "json"}
"""What /v1/models calls the outputs that are no vectors."""


def _config(card: Card) -> dict[str, Any]:
    widths = {"dense": card.dims, "sparse": card.sparse_dims, "multivector": card.token_dims}
    return {
        "hf_id": card.name,
        "adapter": card.family or None,
        "inputs": card.modalities,
        "outputs": [*card.kinds, *(word for task, word in _WORDS.items() if task in card.tasks)],
        "dims": {kind: widths[kind] for kind in card.kinds if widths[kind] is not None},
        "max_sequence_length": card.max_tokens,
    }


def _gpu(index: int, found: Accelerator) -> dict[str, Any]:
    return {
        "index": index,
        "device": found.device,
        "name": found.name,
        "gpu_type": _kind(found.name),
        "utilization_pct": found.utilization,
        "utilization_percent": found.utilization,
        "memory_used_bytes": found.used,
        "memory_total_bytes": found.total,
        "memory_threshold_pct": 100.0,  # nothing is put out for the sake of memory
        "temperature_c": found.temperature,
    }


def _kind(name: str) -> str:
    """ "NVIDIA A100-SXM4-80GB" is an "a100-80gb", as SIE's clients name it when they choose one:
    how it is built is not said, and its memory where one name stands for two sizes."""
    words = [word for word in re.split(r"[\s-]+", name.lower()) if not _UNSAID.fullmatch(word)]
    return "-".join(word for word in words if words[0] == "a100" or not _SIZE.fullmatch(word))


_UNSAID = re.compile(r"nvidia|tesla|geforce|sxm\d*|pcie|nvl|hbm\d\w*|")
_SIZE = re.compile(r"\d+gb")


def _accelerated(cards: Sequence[Card]) -> bool:
    return any(card.state == "loaded" and "cuda" in card.device for card in cards)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


def _folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it may be gone
        return ""
