"""Learned sparse encoders: a masked language model's words as weights (SPLADE and its kin).

A text's vector has a number for each word of the vocabulary that its tokens suggest. Where a
checkpoint says so, queries go through no model: each of their tokens has a weight of its own,
learned or counted (OpenSearch's doc-only models, sentence-transformers' SparseStaticEmbedding).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, cast, get_args

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
from omnivec.core.steps import Head, Vocabulary
from omnivec.families._files import (
    Module,
    architecture,
    modules,
    positions,
    segments,
    vocabulary,
    window,
)
from omnivec.families._text import SOURCE, Prompts, Tokeniser, is_query, limit, pack, read, refuse

Mode: TypeAlias = Literal["max", "sum"]
Function: TypeAlias = Literal["relu", "log1p_relu", "log1p_log1p_relu"]

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
        prompts = Prompts.read(checkpoint)
        self._reader = Reader(part, "", prompts)
        self._queries = None
        if layout.static is not None:
            self._queries = Reader(checkpoint, layout.static, prompts, bare=True)
            self._weights = read_weights(checkpoint, layout.static, self._queries.tokeniser)
        self._most = positions(part) or self._reader.window
        self._fill = {"input_ids": self._reader.tokeniser.padding}
        if segments(part):
            self._fill["token_type_ids"] = 0
        self._left_out = () if layout.specials else _specials(self._reader.tokeniser)
        self._active = _most_active(checkpoint)

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        asked = [self._queries is not None and is_query(unit.role) for unit in units]
        rows: dict[int, Features] = {}
        for query in set(asked):
            chosen = {i: unit for i, unit in enumerate(units) if asked[i] is query}
            if query and self._queries is not None:
                rows |= {i: self._weigh(row) for i, row in self._queries.read(chosen).items()}
            else:
                rows |= {i: self._row(row) for i, row in self._reader.read(chosen).items()}
        return [rows[i] for i in range(len(units))]

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        if batch[0].group == STATIC:
            return [self._vectors(**features.arrays) for features in batch]
        found = self._session.run(pack(batch, self._fill, self._most), alone=alone)
        ends = np.searchsorted(found["rows"], np.arange(1, len(batch)))
        columns = np.split(found["columns"].astype(np.int32), ends)
        values = np.split(found["output"], ends)
        return [self._vectors(*row) for row in zip(columns, values, strict=True)]

    def close(self) -> None:
        self._session.close()

    def _row(self, row: Row) -> Features:
        arrays = {"input_ids": row.ids}
        if "token_type_ids" in self._fill:
            arrays["token_type_ids"] = np.zeros_like(row.ids)
        return Features(arrays, len(row.ids), len(row.ids), cut=row.cut)

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


# ── texts ────────────────────────────────────────────────────────────────────────────────


class Row(NamedTuple):
    """int64 ids with their special tokens, and whether the text had more."""

    ids: Array
    cut: bool


class Reader:
    """Items to token ids. `bare`: without special tokens."""

    def __init__(
        self, checkpoint: Checkpoint, folder: str, prompts: Prompts, *, bare: bool = False
    ) -> None:
        self.tokeniser = Tokeniser(checkpoint, folder)
        self.window = window(checkpoint, folder)
        self._prompts = prompts
        self._bare = bare
        self._vocabulary = (None if bare else vocabulary(checkpoint)) or self.tokeniser.size

    def read(self, units: Mapping[int, Unit]) -> dict[int, Row]:
        """By the units' numbers in their request."""
        texts: list[str | list[int]] = []
        for i, unit in units.items():
            prompt = self._prompts.choose(unit.role, unit.instruction)
            text = read(unit.parts, self._vocabulary, f"[{i}]")
            texts.append(prompt + text if isinstance(text, str) else text)
        windows = [limit(self.window, unit.max_tokens) for unit in units.values()]
        encoded = self.tokeniser.encode(texts, windows)
        found = {}
        for (i, unit), text, ids, most in zip(units.items(), texts, encoded, windows, strict=True):
            framed = isinstance(text, str) and not self._bare
            room = max(0, most - self.tokeniser.single.size) if framed else most
            cut = ids.more or len(ids.tokens) > room
            if cut and unit.overflow == "refuse":
                raise refuse(most, f"[{i}]")
            kept = ids.tokens[:room]
            row = self.tokeniser.single.ids(kept) if framed else np.array(kept, np.int64)
            found[i] = Row(row, cut)
        return found


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
    if told not in get_args(Mode) or function not in get_args(Function):
        raise CheckpointError(
            f"{checkpoint.name}: a sparse encoder's pooling is {' or '.join(get_args(Mode))} of "
            f"{', '.join(get_args(Function))}"
        )
    return Vocabulary(cast("Mode", told), cast("Function", function))


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
