"""ColBERT and its kin: a vector for each token, compared by MaxSim (arXiv 2004.12832).

A query begins with a marker and is filled with [MASK] up to a fixed length; what is filled in is
scored, though most models let no other token see it. A document begins with another marker, and
its punctuation gets no vectors. What is neither query nor document is read as a document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.nouns import (
    Array,
    Card,
    Features,
    Output,
    Unit,
    Vectors,
)
from omnivec.core.seams import Session
from omnivec.core.steps import Head
from omnivec.families._colbert import is_colbert, read_plan
from omnivec.families._files import labels, positions, tokenizer_settings, vocabulary, window
from omnivec.families._rows import Row, Rows, Way, split
from omnivec.families._text import Prompts, Tokeniser, is_query, limit, pack

GRAPH = "main"


class ColbertFamily:
    name = "colbert"
    rank = 15

    def claims(self, checkpoint: Checkpoint) -> bool:
        return not labels(checkpoint) and is_colbert(checkpoint)

    def card(self, checkpoint: Checkpoint) -> Card:
        plan = read_plan(checkpoint)
        width = checkpoint.config.get("hidden_size", checkpoint.config.get("dim"))
        return Card(
            name=checkpoint.name,
            architecture=checkpoint.architecture,
            family=self.name,
            tasks=("encode", "score"),
            kinds=("multivector",),
            token_dims=plan.dims or width,
            max_tokens=_window(checkpoint, plan.document_length),
            vocabulary=vocabulary(checkpoint),
            prompts=plan.prompts,
            scoring="maxsim",
            revision=checkpoint.revision,
        )

    def graphs(self, checkpoint: Checkpoint) -> dict[str, Head]:
        return {GRAPH: Head(kind="tokens", steps=read_plan(checkpoint).steps)}

    def ready(self, checkpoint: Checkpoint, sessions: Mapping[str, Session]) -> Colbert:
        return Colbert(checkpoint, sessions[GRAPH])


class Colbert:
    """Queries and documents to rows of vectors."""

    def __init__(self, checkpoint: Checkpoint, session: Session) -> None:
        self.padding = session.padding
        self.streams = session.streams
        self.batch_cost = session.batch_cost
        self._session = session
        self._plan = plan = read_plan(checkpoint)
        self._rows = Rows(checkpoint)
        self._fill = {**self._rows.fill, "seen": 0, "output_mask": 0}
        self._prompts = Prompts(plan.prompts)
        self._windows = {
            True: _window(checkpoint, plan.query_length),
            False: _window(checkpoint, plan.document_length),
        }
        library = self._rows.tokeniser.library
        found = (library.token_to_id(word) for word in plan.skipped)
        self._skipped = np.array(sorted({number for number in found if number is not None}))
        if plan.expansion is not None:
            self._filler = _filler(checkpoint, self._rows.tokeniser, plan.expansion.token)
        self._way = lru_cache(maxsize=256)(self._find_way)

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        ways = [self._way(unit.role or "document", unit.instruction) for unit in units]
        rows = self._rows.prepare(units, ways)
        return [self._features(unit, row) for unit, row in zip(units, rows, strict=True)]

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        arrays = pack(batch, self._fill, self._rows.most)
        arrays["attention_mask"] = arrays.pop("seen")
        found = self._session.run(arrays, alone=alone)["output"]
        rows = split(found, [one.arrays["output_mask"] for one in batch])
        return [Vectors(multivector=row) for row in rows]

    def close(self) -> None:
        self._session.close()

    def _find_way(self, role: str, instruction: str | None) -> Way:
        """A marker that is one token goes behind the first special ones, whatever it says."""
        prompt = self._prompts.choose(role, instruction)
        asks, frame = is_query(role), self._rows.tokeniser.single
        prefix = self._plan.markers.get("query" if asks else "document", "")
        if prompt.startswith(prefix):
            for marker in (prefix, *prefix.split(None, 1)[:1]):
                number = self._rows.tokeniser.library.token_to_id(marker)
                if number is not None:
                    kinds = ([*frame.types[0], frame.types[1]], *frame.types[1:])
                    frame = frame._replace(before=[*frame.before, number], types=kinds)
                    return Way(prompt[len(marker) :], frame, self._windows[asks])
        return Way(prompt, frame, self._windows[asks])

    def _features(self, unit: Unit, row: Row) -> Features:
        asks = is_query(unit.role)
        ids, kept = row.ids, np.ones(len(row.ids), bool)
        if not asks or self._plan.everywhere:
            kept = ~np.isin(ids, self._skipped)
        seen = np.ones(len(ids), np.int64)
        if asks:
            ids, seen, kept = self._expanded(ids, seen, kept, unit)
        arrays = {**self._rows.arrays(ids), "seen": seen, "output_mask": kept.astype(np.int64)}
        return Features(arrays=arrays, cost=len(ids), tokens=len(row.ids), cut=row.cut)

    def _expanded(
        self, ids: Array, seen: Array, kept: Array, unit: Unit
    ) -> tuple[Array, Array, Array]:
        expansion = self._plan.expansion
        if expansion is None:
            return ids, seen, kept
        length = limit(min(expansion.length, self._rows.most), unit.max_tokens)
        more = max(0, length - len(ids))
        return (
            np.append(ids, np.full(more, self._filler)),
            np.append(seen, np.full(more, int(expansion.attend))),
            np.append(kept, np.ones(more, bool)),
        )


def _window(checkpoint: Checkpoint, told: int | None) -> int:
    """A length of its own for queries, or documents, wins over the tokenizer's."""
    bounds = [told or window(checkpoint), positions(checkpoint)]
    most = checkpoint.overrides.get("max_tokens")
    if isinstance(most, int):
        bounds.append(most)
    return min(bound for bound in bounds if bound is not None)


def _filler(checkpoint: Checkpoint, tokeniser: Tokeniser, word: str | None) -> int:
    """The id that queries are filled with: [MASK] where no other is named."""
    if word is None:
        told = tokenizer_settings(checkpoint).get("mask_token", "[MASK]")
        word = told.get("content", "") if isinstance(told, dict) else str(told)
    number = tokeniser.library.token_to_id(word)
    if number is None:
        raise CheckpointError(
            f"{checkpoint.name}: the token that its queries are filled with is not in its "
            "tokenizer; download the model again"
        )
    return int(number)


PLUGIN = ColbertFamily()
