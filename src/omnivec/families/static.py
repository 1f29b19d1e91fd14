"""Static embeddings: a text's vector is the mean of its tokens' rows in one table. No graph.

model2vec drops unknown tokens, truncates (512 tokens, and before that as many characters as
its median token would make of them) and can map tokens to fewer rows and weigh them;
sentence-transformers' StaticEmbedding does neither and has no end, so one is set here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.nouns import (
    Array,
    Card,
    Features,
    Floats,
    Output,
    Unit,
    Vectors,
)
from omnivec.core.seams import Session
from omnivec.core.steps import Head
from omnivec.families._files import Module, modules
from omnivec.families._text import Ids, Prompts, Tokeniser, limit, read, refuse

ENDLESS = 1 << 16
"""The window of a model that has none: 65,536 tokens."""

_WINDOW = 512  # model2vec's, where config.json does not say


class Layout(NamedTuple):
    """Where the table is and how it is used."""

    folder: str
    model2vec: bool
    window: int


class StaticFamily:
    name = "static"
    rank = 10

    def claims(self, checkpoint: Checkpoint) -> bool:
        if checkpoint.architecture == "model2vec":
            return True
        return any(module.kind == "StaticEmbedding" for module in modules(checkpoint))

    def card(self, checkpoint: Checkpoint) -> Card:
        layout = read_layout(checkpoint)
        rows, dims = _shape(checkpoint, layout)
        prompts = Prompts.read(checkpoint)
        return Card(
            name=checkpoint.name,
            architecture="model2vec" if layout.model2vec else "static",
            family=self.name,
            tasks=("encode", "score"),
            dims=dims,
            max_tokens=layout.window,
            vocabulary=rows,
            prompts=prompts.texts,
            instructions=prompts.instructions,
            pooling="mean",
            kinds=("dense",),
            scoring="cosine",
            revision=checkpoint.revision,
        )

    def graphs(self, checkpoint: Checkpoint) -> dict[str, Head]:  # noqa: ARG002 - none has one
        return {}

    def ready(self, checkpoint: Checkpoint, sessions: Mapping[str, Session]) -> Static:  # noqa: ARG002
        return Static(checkpoint)


class Static:
    """Texts to vectors, by looking up and averaging."""

    padding = 0.0
    streams = 1
    batch_cost = 1 << 16

    def __init__(self, checkpoint: Checkpoint) -> None:
        layout = read_layout(checkpoint)
        self._window = layout.window
        self._tokeniser = Tokeniser(checkpoint, layout.folder)
        self._prompts = Prompts.read(checkpoint)
        self._table = _read(checkpoint, layout)
        self._vocabulary = self._table.tokens
        self._unknown = _unknown(self._tokeniser) if layout.model2vec else None
        self._letters = _median_letters(self._tokeniser) if layout.model2vec else None

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        windows = [limit(self._window, unit.max_tokens) for unit in units]
        whole = [self._text(i, unit) for i, unit in enumerate(units)]
        texts = [self._shorten(text, most) for text, most in zip(whole, windows, strict=True)]
        encoded = self._tokeniser.encode(texts, windows)
        return [
            self._features(i, unit, ids, most, shortened=len(text) < len(full))
            for i, (unit, ids, most, text, full) in enumerate(
                zip(units, encoded, windows, texts, whole, strict=True)
            )
        ]

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        del alone  # one core is enough for a few additions
        return [Vectors(dense=self._table.mean(row.arrays["input_ids"])) for row in batch]

    def close(self) -> None:
        pass

    def _text(self, index: int, unit: Unit) -> str | list[int]:
        text = read(unit.parts, self._vocabulary, f"[{index}]")
        if not isinstance(text, str):
            return text
        return self._prompts.choose(unit.role, unit.instruction) + text

    def _shorten(self, text: str | list[int], window: int) -> str | list[int]:
        if self._letters is None or not isinstance(text, str):
            return text
        return text[: window * self._letters]

    def _features(
        self, index: int, unit: Unit, ids: Ids, window: int, *, shortened: bool
    ) -> Features:
        cut = shortened or ids.more or len(ids.tokens) > window
        if cut and unit.overflow == "refuse":
            raise refuse(window, f"[{index}]")
        row = np.array(ids.tokens[:window], np.int64)
        known = row if self._unknown is None else row[row != self._unknown]
        return Features(
            arrays={"input_ids": known}, cost=max(1, len(row)), tokens=len(row), cut=cut
        )


class Table(NamedTuple):
    """`rows` [R, d]; `mapping` [V] from token to row and `weights` [V] where there are any."""

    rows: Array
    mapping: Array | None
    weights: Array | None

    @property
    def tokens(self) -> int:
        return len(self.rows if self.mapping is None else self.mapping)

    def mean(self, ids: Array) -> Floats:
        """float32 [d]; zeros where there are no ids."""
        if not len(ids):
            return np.zeros(self.rows.shape[1], np.float32)
        vectors = self.rows[ids if self.mapping is None else self.mapping[ids]]
        if self.weights is not None:
            vectors = vectors * self.weights[ids][:, None]
        # summed in the precision of both references, so that long texts come out as theirs do
        precision = np.result_type(vectors.dtype, np.float32)
        mean: Floats = vectors.mean(axis=0, dtype=precision).astype(np.float32)
        return mean


# ── files ────────────────────────────────────────────────────────────────────────────────


def read_layout(checkpoint: Checkpoint) -> Layout:
    """Raises CheckpointError for a module other than the table and a Normalize.

    A Normalize is the engine's to do, and it does it after a Matryoshka cut.
    """
    listed = modules(checkpoint) or [Module("StaticEmbedding", "")]
    for module in listed[1:]:
        if module.kind not in ("Normalize", "Dropout"):
            raise CheckpointError(
                f"{checkpoint.name}: modules.json has a {module.kind}, which is not supported "
                "after a StaticEmbedding; there is Normalize"
            )
    model2vec = checkpoint.architecture == "model2vec"
    told = checkpoint.config.get("max_length", _WINDOW) if model2vec else ENDLESS
    asked = checkpoint.overrides.get("max_tokens", ENDLESS)
    return Layout(listed[0].folder, model2vec, min(told or ENDLESS, asked))


def _file(checkpoint: Checkpoint, layout: Layout) -> str:
    file = Module("", layout.folder).file("model.safetensors")
    if not checkpoint.has(file):
        raise CheckpointError(f"{checkpoint.name}: {file} is missing; download the model again")
    return str(checkpoint.path(file))


def _names(stored: Sequence[str], checkpoint: Checkpoint) -> str:
    for name in ("embeddings", "embedding.weight"):
        if name in stored:
            return name
    raise CheckpointError(
        f"{checkpoint.name}: model.safetensors has neither 'embeddings' nor 'embedding.weight'"
    )


def _shape(checkpoint: Checkpoint, layout: Layout) -> tuple[int, int]:
    """Tokens and dimensions, from the file's header alone."""
    with _opened(checkpoint, layout) as file:
        stored = list(file.keys())
        rows, dims = file.get_slice(_names(stored, checkpoint)).get_shape()
        if "mapping" in stored:
            (rows,) = file.get_slice("mapping").get_shape()
        return int(rows), int(dims)


def _read(checkpoint: Checkpoint, layout: Layout) -> Table:
    with _opened(checkpoint, layout) as file:
        stored = list(file.keys())
        try:
            rows = file.get_tensor(_names(stored, checkpoint))
            mapping = file.get_tensor("mapping") if "mapping" in stored else None
            weights = file.get_tensor("weights") if "weights" in stored else None
        except (TypeError, AttributeError) as error:  # a dtype that numpy does not have
            raise CheckpointError(
                f"{checkpoint.name}: model.safetensors has a number format that numpy cannot "
                "read; convert it to float32"
            ) from error
    return Table(rows, mapping, weights)


def _opened(checkpoint: Checkpoint, layout: Layout) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(_file(checkpoint, layout), framework="numpy")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{checkpoint.name}: model.safetensors cannot be read ({error}); download it again"
        ) from error


def _unknown(tokeniser: Tokeniser) -> int | None:
    """The id of the unknown token, which model2vec leaves out of the mean."""
    model = tokeniser.library.model
    if hasattr(model, "unk_token"):  # WordPiece, BPE, WordLevel
        return tokeniser.library.token_to_id(model.unk_token) if model.unk_token else None
    found = json.loads(tokeniser.library.to_str())["model"].get("unk_id")
    return found if isinstance(found, int) else None


def _median_letters(tokeniser: Tokeniser) -> int:
    """The median length of a token of the vocabulary, in characters, at least 1."""
    lengths = [len(token) for token in tokeniser.library.get_vocab()]
    return max(1, int(np.median(lengths)))


PLUGIN = StaticFamily()
