"""Classifiers: `*ForSequenceClassification` with more than one output.

One whose labels include entailment is an NLI model. It classifies by labels that the request
brings: it judges whether a text entails a hypothesis about each of them ("This example is
{}."; Yin et al., arXiv 1909.00161). Its own labels say nothing of one text, so it never answers
them. Any other model answers with its own labels.

The numbers are those of transformers' pipelines `zero-shot-classification` and
`text-classification`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.errors import Unsupported
from omnivec.core.nouns import (
    Array,
    Card,
    Class,
    Features,
    Findings,
    Loaded,
    Output,
    Relevance,
    Unit,
)
from omnivec.core.seams import Session
from omnivec.core.steps import Head
from omnivec.families._files import label_names, labels, vocabulary, window
from omnivec.families._pairs import Reader
from omnivec.families._text import Ids

GRAPH = "main"
TEMPLATE = "This example is {}."
TOO_LONG = "The text and its hypothesis together are"


class ClassifierFamily:
    name = "classifier"
    rank = 21

    def claims(self, checkpoint: Checkpoint) -> bool:
        return labels(checkpoint) > 1

    def card(self, checkpoint: Checkpoint) -> Card:
        nli = entailment(checkpoint) is not None
        return Card(
            name=checkpoint.name,
            architecture=checkpoint.architecture,
            family=self.name,
            tasks=("extract",),
            max_tokens=window(checkpoint),
            vocabulary=vocabulary(checkpoint),
            labels=() if nli else label_names(checkpoint),
            zero_shot=nli,
            template=template(checkpoint) if nli else "",
            revision=checkpoint.revision,
        )

    def graphs(self, checkpoint: Checkpoint) -> dict[str, Head]:  # noqa: ARG002 - all alike
        return {GRAPH: Head(kind="logits")}

    def ready(self, checkpoint: Checkpoint, sessions: Mapping[str, Session]) -> Classifier:
        kind = Classifier if entailment(checkpoint) is None else Entailment
        return kind(checkpoint, sessions[GRAPH])


def entailment(checkpoint: Checkpoint) -> int | None:
    """The output that says that the second text follows from the first."""
    names = enumerate(label_names(checkpoint))
    return next((at for at, name in names if name.lower().startswith("entail")), None)


def template(checkpoint: Checkpoint) -> str:
    """The catalogue's, config.json's `hypothesis_template`, or the one that most are used with."""
    for told in (checkpoint.overrides, checkpoint.config):
        found = told.get("hypothesis_template")
        if isinstance(found, str) and found.count("{}") == 1:
            return found
    return TEMPLATE


class Classifier:
    """Texts to a score for each of the model's own labels; `Unit.other` is not read."""

    def __init__(self, checkpoint: Checkpoint, session: Session) -> None:
        self.padding = session.padding
        self.streams = session.streams
        self.batch_cost = session.batch_cost
        self._session = session
        self._reader = Reader(checkpoint)
        self._labels = label_names(checkpoint)
        self._score = _SCORES.get(str(checkpoint.config.get("problem_type")), softmax)

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        windows = self._reader.windows(units)
        texts = [self._reader.read(unit.parts, f"[{i}]") for i, unit in enumerate(units)]
        ids = self._reader.encode(texts, windows)
        return [
            self._reader.frame_one(i, unit, text, window)
            for i, (unit, text, window) in enumerate(zip(units, ids, windows, strict=True))
        ]

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        scores = self._score(self._logits(batch, alone=alone)).tolist()
        pairs = (zip(self._labels, row, strict=True) for row in scores)
        return [Findings(tuple(Class(label, score) for label, score in row)) for row in pairs]

    def close(self) -> None:
        self._session.close()

    def _logits(self, batch: Sequence[Features], *, alone: bool) -> Array:
        """float64 [B, labels]"""
        rows = self._session.run(self._reader.pack(batch), alone=alone)["output"]
        return rows.astype(np.float64)


class Entailment(Classifier):
    """Pairs of a text (`Unit.parts`) and a hypothesis (`Unit.other`) to whether it follows."""

    def __init__(self, checkpoint: Checkpoint, session: Session) -> None:
        super().__init__(checkpoint, session)
        self._follows = entailment(checkpoint) or 0
        self._contradicts = 0 if self._follows else -1  # as transformers has it

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        """Each text and each hypothesis is tokenised once, however many units share it."""
        texts = self._encode([unit.parts for unit in units])
        hypotheses = self._encode([_hypothesis(i, unit) for i, unit in enumerate(units)])
        windows = self._reader.windows(units)
        return [
            self._reader.frame_two(i, unit, (text, hypothesis), window, TOO_LONG, keep_second)
            for i, (unit, text, hypothesis, window) in enumerate(
                zip(units, texts, hypotheses, windows, strict=True)
            )
        ]

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        rows = self._logits(batch, alone=alone).tolist()
        return [entailed(row[self._follows], row[self._contradicts]) for row in rows]

    def _encode(self, asked: Sequence[tuple[Loaded, ...]]) -> list[Ids]:
        first = {parts: i for i, parts in reversed(list(enumerate(asked)))}
        texts = [self._reader.read(parts, f"[{i}]") for parts, i in first.items()]
        found = dict(zip(first, self._reader.encode(texts), strict=True))
        return [found[parts] for parts in asked]


def _hypothesis(index: int, unit: Unit) -> tuple[Loaded, ...]:
    if unit.other is None:
        raise Unsupported("This model judges pairs of texts.", param=f"[{index}]")
    return unit.other


def keep_second(first: int, second: int, room: int) -> tuple[int, int]:
    """The first text gives way (`only_first`); the second only where it fills the room alone."""
    second = min(second, room)
    return min(first, room - second), second


# ── logits to scores ─────────────────────────────────────────────────────────────────────


def entailed(follows: float, contradicts: float) -> Relevance:
    """The softmax over the two; written so that no exponential overflows."""
    return Relevance(value=0.5 * (1 + math.tanh(0.5 * (follows - contradicts))), raw=follows)


def softmax(logits: Array) -> Array:
    """[B, labels]: each row's sum is 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def sigmoid(logits: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))


def _identity(logits: Array) -> Array:
    return logits


_SCORES = {"multi_label_classification": sigmoid, "regression": _identity}

PLUGIN = ClassifierFamily()
