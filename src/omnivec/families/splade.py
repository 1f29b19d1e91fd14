"""Learned sparse encoders: a masked language model's words as weights (SPLADE and its kin).

A text's vector has a number for each word of the vocabulary that its tokens suggest. Where a
checkpoint says so, queries go through no model: each of their tokens has a weight of its own,
learned or counted (OpenSearch's doc-only models, sentence-transformers' SparseStaticEmbedding).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast, get_args

import numpy as np

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.nouns import (
    Array,
    Card,
    Features,
    Floats,
    Output,
    Sparse,
    Unit,
    Vectors,
)
from omnivec.core.seams import Session
from omnivec.core.steps import Function, Head, Reduction, Vocabulary
from omnivec.families._files import (
    Module,
    architecture,
    modules,
    vocabulary,
    window,
)
from omnivec.families._frames import Frame
from omnivec.families._rows import BARE, Row, Rows, Way
from omnivec.families._text import SOURCE, Prompts, Tokeniser, is_query, pack

GRAPH = "main"
STATIC = "static"
"""The group of those features that go through no model."""
WEIGHTS = "idf.json"  # OpenSearch's: tokens and their weights

_TRANSFORMERS = ("Transformer", "MLMTransformer")
# SpladePooling's activation_function, which does not count the log1p that always follows
_FUNCTIONS: Mapping[str, Function] = {"relu": "log1p_relu", "log1p_relu": "log1p_log1p_relu"}


class Layout(NamedTuple):
    """`graph` is the folder of the language model, or GRAPH for the root. `static` is the folder
    of the queries' weights, None where queries are encoded as documents are."""

    step: Vocabulary
    graph: str = GRAPH
    static: str | None = None
    specials: bool = True  # whether special tokens are words among others


class SpladeFamily:
    name = "splade"
    rank = 40

    def claims(self, checkpoint: Checkpoint) -> bool:
        """A chain of modules with a SpladePooling, or a bare `*ForMaskedLM`."""
        if chain := modules(checkpoint):
            routed = chain[0].kind == "Router"
            found = _routed(checkpoint) if routed else chain
            return any(module.kind == "SpladePooling" for module in found)
        return architecture(checkpoint).endswith("ForMaskedLM")

    def card(self, checkpoint: Checkpoint) -> Card:
        layout = read_layout(checkpoint)
        part = checkpoint.part(layout.graph)
        prompts = Prompts.read(checkpoint)
        return Card(
            name=checkpoint.name,
            architecture=part.architecture,
            family=self.name,
            tasks=("encode", "score"),
            kinds=("sparse",),
            sparse_dims=vocabulary(part),
            max_tokens=window(part),
            vocabulary=vocabulary(part),
            prompts=prompts.texts,
            instructions=prompts.instructions,
            pooling=f"{layout.step.mode}+{layout.step.function}",
            scoring="dot",
            revision=checkpoint.revision,
        )

    def graphs(self, checkpoint: Checkpoint) -> dict[str, Head]:
        layout = read_layout(checkpoint)
        return {layout.graph: Head(kind="words", steps=(layout.step,))}

    def ready(self, checkpoint: Checkpoint, sessions: Mapping[str, Session]) -> Splade:
        layout = read_layout(checkpoint)
        return Splade(checkpoint, layout, sessions[layout.graph])


class Splade:
    """Texts to weighted words, through one session or, for queries, through a table."""

    def __init__(self, checkpoint: Checkpoint, layout: Layout, session: Session) -> None:
        self.padding = session.padding
        self.streams = session.streams
        self.batch_cost = session.batch_cost
        self._session = session
        part = checkpoint.part(layout.graph)
        self._prompts = Prompts.read(checkpoint)
        self._rows = Rows(part)
        self._queries: Rows | None = None
        if layout.static is not None:
            self._queries = Rows(checkpoint, layout.static, by_tokenizer=True)
            self._weights = read_weights(checkpoint, layout.static, self._queries.tokeniser)
        self._left_out = () if layout.specials else _specials(self._rows.tokeniser)
        self._active = _most_active(checkpoint)

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        asked = [self._queries is not None and is_query(unit.role) for unit in units]
        made: dict[int, Features] = {}
        for query in set(asked):
            places = [place for place, one in enumerate(asked) if one is query]
            chosen = [units[place] for place in places]
            if query and self._queries is not None:
                rows = self._read(self._queries, BARE, chosen, places)
                found = map(self._weigh, rows)
            else:
                rows = self._read(self._rows, self._rows.tokeniser.single, chosen, places)
                found = map(self._row, rows)
            made |= zip(places, found, strict=True)
        return [made[place] for place in range(len(units))]

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        if batch[0].group == STATIC:
            return [self._vectors(**features.arrays) for features in batch]
        found = self._session.run(pack(batch, self._rows.fill, self._rows.most), alone=alone)
        ends = np.searchsorted(found["rows"], np.arange(1, len(batch)))
        columns = np.split(found["columns"].astype(np.int32), ends)
        values = np.split(found["output"], ends)
        return [self._vectors(*row) for row in zip(columns, values, strict=True)]

    def close(self) -> None:
        self._session.close()

    def _read(
        self, rows: Rows, frame: Frame, units: Sequence[Unit], places: Sequence[int]
    ) -> list[Row]:
        prompts = [self._prompts.choose(unit.role, unit.instruction) for unit in units]
        return rows.prepare(units, [Way(one, frame, rows.window) for one in prompts], places)

    def _row(self, row: Row) -> Features:
        return Features(self._rows.arrays(row.ids), len(row.ids), len(row.ids), cut=row.cut)

    def _weigh(self, row: Row) -> Features:
        indices = np.unique(row.ids)
        values = self._weights[indices]
        arrays = {"indices": indices[values != 0].astype(np.int32), "values": values[values != 0]}
        return Features(arrays, max(1, len(row.ids)), len(row.ids), STATIC, cut=row.cut)

    def _vectors(self, indices: Array, values: Array) -> Vectors:
        if len(self._left_out):
            kept = ~np.isin(indices, self._left_out)
            indices, values = indices[kept], values[kept]
        if self._active is not None and len(values) > self._active:
            kept = np.sort(np.argpartition(-np.abs(values), self._active - 1)[: self._active])
            indices, values = indices[kept], values[kept]
        return Vectors(sparse=Sparse(indices, values))


def _specials(tokeniser: Tokeniser) -> list[int]:
    added = tokeniser.library.get_added_tokens_decoder()
    return [number for number, token in added.items() if token.special]


# ── files ────────────────────────────────────────────────────────────────────────────────


def read_layout(checkpoint: Checkpoint) -> Layout:
    """Raises CheckpointError for modules that are not supported, naming them."""
    chain = modules(checkpoint)
    if not chain:
        static = "" if checkpoint.has(WEIGHTS) else None
        return Layout(_step(checkpoint, {}), static=static, specials=static is None)
    if chain[0].kind != "Router":
        return _chained(checkpoint, chain)
    routes = _routes(checkpoint)
    layout = _chained(checkpoint, routes.get("document", []))
    query = routes.get("query", [])
    if query == routes["document"]:
        return layout
    if [module.kind for module in query] != ["SparseStaticEmbedding"]:
        raise _unknown(checkpoint, query, "for queries a SparseStaticEmbedding")
    return layout._replace(static=query[0].folder)


def _chained(checkpoint: Checkpoint, chain: Sequence[Module]) -> Layout:
    if len(chain) != 2 or chain[0].kind not in _TRANSFORMERS or chain[1].kind != "SpladePooling":  # noqa: PLR2004
        raise _unknown(checkpoint, chain, "a Transformer and a SpladePooling")
    config = checkpoint.json(chain[1].file("config.json"))
    step = _step(checkpoint, config if isinstance(config, dict) else {})
    return Layout(step, chain[0].folder or GRAPH)


def _unknown(checkpoint: Checkpoint, chain: Sequence[Module], wanted: str) -> CheckpointError:
    named = " and ".join(module.kind for module in chain) or "nothing"
    return CheckpointError(f"{checkpoint.name}: a sparse encoder is {wanted} here, not {named}")


def _routed(checkpoint: Checkpoint) -> list[Module]:
    return [module for route in _routes(checkpoint).values() for module in route]


def _routes(checkpoint: Checkpoint) -> dict[str, list[Module]]:
    """The modules of each role of a Router. Raises CheckpointError."""
    found = checkpoint.json("router_config.json")
    try:
        kinds = {path: str(kind).rpartition(".")[2] for path, kind in found["types"].items()}
        return {
            str(role): [Module(kinds[path], str(path).strip("./")) for path in route]
            for role, route in found["structure"].items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{checkpoint.name}: router_config.json lacks its types or structure"
        ) from error


def _step(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Vocabulary:
    """As SpladePooling's config says, SPLADE's own (v2) where there is none. The catalogue's
    `pooling` wins: "sum", "max", or with a function "max+log1p_log1p_relu"."""
    mode = config.get("pooling_strategy", "max")
    function = _FUNCTIONS.get(str(config.get("activation_function", "relu")), "")
    told, _, named = str(checkpoint.overrides.get("pooling") or mode).partition("+")
    function = named or function
    if told not in get_args(Reduction) or function not in get_args(Function):
        raise CheckpointError(
            f"{checkpoint.name}: a sparse encoder's pooling is "
            f"{' or '.join(get_args(Reduction))} of {', '.join(get_args(Function))}"
        )
    return Vocabulary(cast("Reduction", told), cast("Function", function))


def read_weights(checkpoint: Checkpoint, folder: str, tokeniser: Tokeniser) -> Floats:
    """float32 [V], by token id: a SparseStaticEmbedding's own, or those of idf.json, where a
    token that is not named has 0. Raises CheckpointError."""
    place = Module("", folder)
    if folder and checkpoint.has(file := place.file("model.safetensors")):
        return _read_tensor(checkpoint, file, tokeniser.size)
    file = place.file(WEIGHTS)
    listed = checkpoint.json(file if checkpoint.has(file) else WEIGHTS)
    if not isinstance(listed, dict):
        raise CheckpointError(f"{checkpoint.name}: the queries' weights are in no {WEIGHTS}")
    weights = np.zeros(tokeniser.size, np.float32)
    for token, weight in listed.items():
        number = tokeniser.library.token_to_id(token)
        if number is not None:
            weights[number] = weight
    return weights


def _read_tensor(checkpoint: Checkpoint, file: str, size: int) -> Floats:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        weights = load(checkpoint.read(file))["weight"].astype(np.float32)
    except (SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{checkpoint.name}: {file} has no weight that numpy reads; download it again"
        ) from error
    if weights.ndim != 1 or len(weights) < size:
        raise CheckpointError(f"{checkpoint.name}: {file} has not one weight for each token")
    return weights


def _most_active(checkpoint: Checkpoint) -> int | None:
    """How many words a vector has at most; None: no end."""
    told = checkpoint.json(SOURCE)
    found = told.get("max_active_dims") if isinstance(told, dict) else None
    return found if isinstance(found, int) and found > 0 else None


PLUGIN = SpladeFamily()
