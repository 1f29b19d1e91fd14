"""BGE-M3 (arXiv 2402.03216): dense, sparse and multi-vector from one pass of XLM-RoBERTa.

Dense is the first token's state. Sparse weighs the ids of the text itself, each by the largest
weight among its places. Multi-vector has a row for each token but the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from omnivec.core import torchfile
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.nouns import (
    Array,
    Card,
    Features,
    Kind,
    Output,
    Sparse,
    Unit,
    Vectors,
)
from omnivec.core.seams import Session
from omnivec.core.steps import Dense, Head, Normalize, Pool
from omnivec.families._files import vocabulary, window
from omnivec.families._rows import Row, Rows, Way, split
from omnivec.families._text import Prompts, pack

GRAPH = "main"
KINDS: tuple[Kind, ...] = ("dense", "sparse", "multivector")
SPARSE, MULTIVECTOR = "sparse_linear.pt", "colbert_linear.pt"
HEAD = Head(
    kind="pooled",
    steps=(Pool(modes=("cls",)),),
    also={
        "sparse": Head("tokens", (Dense(SPARSE, "ReLU"),)),
        "multivector": Head("tokens", (Dense(MULTIVECTOR, "Identity"), Normalize())),
    },
)


class BgeM3Family:
    name = "bge_m3"
    rank = 10

    def claims(self, checkpoint: Checkpoint) -> bool:
        files = checkpoint.has(SPARSE) and checkpoint.has(MULTIVECTOR)
        return files and checkpoint.architecture == "xlm-roberta"

    def card(self, checkpoint: Checkpoint) -> Card:
        prompts = Prompts.read(checkpoint)
        return Card(
            name=checkpoint.name,
            architecture=checkpoint.architecture,
            family=self.name,
            tasks=("encode", "score"),
            dims=_width(checkpoint),
            kinds=KINDS,
            sparse_dims=vocabulary(checkpoint),
            token_dims=_token_dims(checkpoint),
            max_tokens=window(checkpoint),
            vocabulary=vocabulary(checkpoint),
            prompts=prompts.texts,
            instructions=prompts.instructions,
            pooling="cls",
            scoring="cosine",
            revision=checkpoint.revision,
        )

    def graphs(self, checkpoint: Checkpoint) -> dict[str, Head]:  # noqa: ARG002 - all alike
        return {GRAPH: HEAD}

    def ready(self, checkpoint: Checkpoint, sessions: Mapping[str, Session]) -> BgeM3:
        return BgeM3(checkpoint, sessions[GRAPH])


class BgeM3:
    """Texts to up to three kinds of vectors: those that their units ask for."""

    def __init__(self, checkpoint: Checkpoint, session: Session) -> None:
        self.padding = session.padding
        self.streams = session.streams
        self.batch_cost = session.batch_cost
        self._session = session
        self._prompts = Prompts.read(checkpoint)
        self._rows = Rows(checkpoint)
        self._fill = {**self._rows.fill, "sparse_mask": 0, "multivector_mask": 0}
        frame, library = self._rows.tokeniser.single, self._rows.tokeniser.library
        unknown = library.token_to_id("<unk>")
        specials = [*frame.before, *frame.after, self._rows.tokeniser.padding]
        self._unweighted = np.array([*specials, *([] if unknown is None else [unknown])])
        self._first = frame.before[:1]

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        frame = self._rows.tokeniser.single
        ways = [
            Way(self._prompts.choose(unit.role, unit.instruction), frame, self._rows.window)
            for unit in units
        ]
        rows = self._rows.prepare(units, ways)
        return [self._features(unit, row) for unit, row in zip(units, rows, strict=True)]

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        found = self._session.run(pack(batch, self._fill, self._rows.most), alone=alone)
        weights = split(found["sparse"][:, 0], [one.arrays["sparse_mask"] for one in batch])
        masks = [one.arrays["multivector_mask"] for one in batch]
        vectors = split(found["multivector"], masks)
        return [
            _chosen(one.arrays, *made)
            for one, *made in zip(batch, found["output"], weights, vectors, strict=True)
        ]

    def close(self) -> None:
        self._session.close()

    def _features(self, unit: Unit, row: Row) -> Features:
        weighed = ~np.isin(row.ids, self._unweighted) & ("sparse" in unit.kinds)
        rowed = np.full(len(row.ids), "multivector" in unit.kinds)
        if row.ids[:1].tolist() == self._first:
            rowed[:1] = False
        arrays = {
            **self._rows.arrays(row.ids),
            "sparse_mask": weighed.astype(np.int64),
            "multivector_mask": rowed.astype(np.int64),
            "wanted": np.array([kind in unit.kinds for kind in KINDS]),
        }
        return Features(arrays=arrays, cost=len(row.ids), tokens=len(row.ids), cut=row.cut)


def _chosen(arrays: Mapping[str, Array], dense: Array, weights: Array, rows: Array) -> Vectors:
    wanted = arrays["wanted"]
    ids = arrays["input_ids"][arrays["sparse_mask"] == 1]
    return Vectors(
        dense=dense if wanted[0] else None,
        sparse=_heaviest(ids, weights) if wanted[1] else None,
        multivector=rows if wanted[2] else None,
    )


def _heaviest(ids: Array, weights: Array) -> Sparse:
    """Each id once, with the largest of its weights, where that is above 0."""
    indices, places = np.unique(ids, return_inverse=True)
    values = np.zeros(len(indices), np.float32)
    np.maximum.at(values, places, weights)
    return Sparse(indices[values > 0].astype(np.int32), values[values > 0])


def _width(checkpoint: Checkpoint) -> int:
    width = checkpoint.config.get("hidden_size")
    if not isinstance(width, int):
        raise CheckpointError(f"{checkpoint.name}: config.json has no hidden_size")
    return width


def _token_dims(checkpoint: Checkpoint) -> int:
    weight = torchfile.read(checkpoint.name, checkpoint.path(MULTIVECTOR)).get("linear.weight")
    if weight is None:
        raise CheckpointError(f"{checkpoint.name}: {MULTIVECTOR} holds no layer's weight")
    return int(weight.array.shape[0])


PLUGIN = BgeM3Family()
