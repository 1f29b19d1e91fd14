"""BM25's weights as sparse vectors, without any model's weights: `omnivec/bm25`.

A word's place is the hash of its stem, so there is no vocabulary. The convention is that of
fastembed's Qdrant/bm25, so that stores which hold its vectors can go on: a document's value is
tf (k + 1) / (tf + k (1 - b + b n / average)) for a stem that comes tf times among its n, a
query's is 1, and the inverse document frequency is the store's to multiply (Robertson and
Zaragoza, The Probabilistic Relevance Framework, 2009).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from threading import local
from typing import Any

import numpy as np

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.errors import Unsupported
from omnivec.core.nouns import (
    Card,
    Features,
    Output,
    Sparse,
    Unit,
    Vectors,
)
from omnivec.core.seams import Session
from omnivec.core.steps import Head
from omnivec.families._text import is_query, read

ARCHITECTURE = "omnivec-bm25"
LONGEST_WORD = 40
"""Characters; what is longer is no word."""

_WORD = re.compile(r"\w+")


class Bm25Family:
    name = "bm25"
    rank = 5

    def claims(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.architecture == ARCHITECTURE

    def card(self, checkpoint: Checkpoint) -> Card:
        return Card(
            name=checkpoint.name,
            architecture=ARCHITECTURE,
            family=self.name,
            tasks=("encode", "score"),
            kinds=("sparse",),
            scoring="dot",
            revision=checkpoint.revision,
        )

    def graphs(self, checkpoint: Checkpoint) -> dict[str, Head]:  # noqa: ARG002 - it has none
        return {}

    def ready(self, checkpoint: Checkpoint, sessions: Mapping[str, Session]) -> Bm25:  # noqa: ARG002
        return Bm25(checkpoint)


class Bm25:
    """Texts to weighted stems."""

    padding = 0.0
    streams = 1
    batch_cost = 1 << 16

    def __init__(self, checkpoint: Checkpoint) -> None:
        config = checkpoint.config
        self._stopped = frozenset(checkpoint.read("stopwords.txt").decode().split())
        self._language = str(config.get("language", "english"))
        self._k = float(config.get("k", 1.2))
        self._b = float(config.get("b", 0.75))
        self._average = float(config.get("average_length", 256))
        self._stemmers = local()  # one remembers the word that it is at
        self._place = lru_cache(maxsize=1 << 16)(self._find_place)

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        return [self._features(index, unit) for index, unit in enumerate(units)]

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        del alone  # everything was done when the text was read
        return [Vectors(sparse=Sparse(**features.arrays)) for features in batch]

    def close(self) -> None:
        pass

    def _features(self, index: int, unit: Unit) -> Features:
        text = read(unit.parts, 0, f"[{index}]")
        if not isinstance(text, str):
            raise Unsupported("This model reads words, not token ids.", param=f"[{index}]")
        places = [
            self._place(word)
            for word in _WORD.findall(text.lower())
            if word not in self._stopped and len(word) <= LONGEST_WORD
        ]
        counts = sorted(Counter(places).items())
        found = np.array([count for _, count in counts], np.float32)
        values = np.ones_like(found) if is_query(unit.role) else self._weigh(found, len(places))
        indices = np.array([place for place, _ in counts], np.int32)
        cost = max(1, len(places))
        return Features({"indices": indices, "values": values}, cost, len(places))

    def _weigh(self, counts: np.ndarray[Any, np.dtype[np.float32]], length: int) -> Any:
        norm = self._k * (1 - self._b + self._b * length / self._average)
        return (counts * (self._k + 1) / (counts + norm)).astype(np.float32)

    def _find_place(self, word: str) -> int:
        return abs(murmur3(self._stemmer().stemWord(word).encode()))

    def _stemmer(self) -> Any:
        import snowballstemmer

        if not hasattr(self._stemmers, "own"):
            self._stemmers.own = snowballstemmer.stemmer(self._language)
        return self._stemmers.own


# ── hashing ──────────────────────────────────────────────────────────────────────────────

_MASK = 0xFFFFFFFF
_FIRST, _SECOND = 0xCC9E2D51, 0x1B873593


def murmur3(data: bytes) -> int:
    """MurmurHash3_x86_32 with seed 0 as a signed number (github.com/aappleby/smhasher)."""
    value, whole = 0, len(data) // 4 * 4
    for at in range(0, whole, 4):
        value ^= _mixed(int.from_bytes(data[at : at + 4], "little"))
        value = (_turned(value, 13) * 5 + 0xE6546B64) & _MASK
    if whole < len(data):
        value ^= _mixed(int.from_bytes(data[whole:], "little"))
    value ^= len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        value = ((value ^ value >> shift) * factor) & _MASK
    value ^= value >> 16
    return value - (1 << 32) if value >> 31 else value


def _mixed(word: int) -> int:
    return _turned(word * _FIRST & _MASK, 15) * _SECOND & _MASK


def _turned(word: int, by: int) -> int:
    return (word << by | word >> (32 - by)) & _MASK


PLUGIN = Bm25Family()
