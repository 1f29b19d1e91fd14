"""A task taken apart into units of model work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from omnivec.core.errors import BadRequest, Unsupported
from omnivec.core.nouns import (
    Card,
    Encode,
    Extract,
    Film,
    Image,
    Item,
    Kind,
    Loaded,
    Manifest,
    Overflow,
    Part,
    Pixels,
    Score,
    Text,
    Tokens,
    Unit,
    Video,
)
from omnivec.engine.findings import hypotheses
from omnivec.engine.vocabulary import Vocabulary

Work: TypeAlias = Encode | Score | Extract
"""A task that a model has to do with."""

LETTERS_PER_TOKEN = 4
"""Roughly: for judging what comes sooner, before it is known."""
BYTES_PER_LETTER = 192
"""Of a picture, as roughly: a photo of 640 by 480 is 4800 letters, and as long to prepare."""
SHORT = 512
"""Characters that are prepared in less time than handing them to another thread takes."""
FEW = 4
COMPARED: Mapping[str, tuple[Kind, ...]] = {"dot": ("sparse",), "maxsim": ("multivector",)}
"""What a query and a document are compared by, under each `Card.scoring` but the usual ones."""

_MAKERS: Mapping[Kind, str] = {
    "dense": "BAAI/bge-small-en-v1.5",
    "sparse": "omnivec/bm25 or BAAI/bge-m3",
    "multivector": "colbert-ir/colbertv2.0 or BAAI/bge-m3",
}


def items_of(task: Work) -> tuple[Item, ...]:
    """All of them, the query last."""
    return (*task.items, task.query) if isinstance(task, Score) else task.items


class Splitter:
    """Turns items into units under the server's settings for overflow and token ids."""

    def __init__(self, overflow: Overflow, token_ids: str, vocabulary: Vocabulary) -> None:
        self._overflow: Overflow = overflow
        self._token_ids = token_ids
        self._vocabulary = vocabulary

    def units(self, task: Work, card: Card) -> list[Unit]:
        """One for each item; pairs for a cross-encoder; the query and then the documents for
        a bi-encoder; for an NLI model each item with every label's hypothesis. Raises
        BadRequest, Unsupported."""
        if isinstance(task, Encode):
            return self._units(task, task.items, card, task.role)
        if isinstance(task, Extract):
            units = self._units(task, task.items, card, None)
            others = [(Text(hypothesis),) for hypothesis in hypotheses(task, card)]
            paired = [
                msgspec.structs.replace(one, other=other) for one in units for other in others
            ]
            return paired or units
        query = self._units(task, [task.query], card, "query", "query")[0]
        if card.scoring == "cross-encoder":
            documents = self._units(task, task.items, card, None)
            return [
                Unit(
                    parts=query.parts,
                    other=unit.parts,
                    instruction=query.instruction,
                    overflow=unit.overflow,
                    max_tokens=unit.max_tokens,
                    adapter=unit.adapter,
                )
                for unit in documents
            ]
        return [query, *self._units(task, task.items, card, "document")]

    def _units(
        self,
        task: Work,
        items: Sequence[Item],
        card: Card,
        role: str | None,
        field: str | None = None,
    ) -> list[Unit]:
        overflow = task.overflow or self._overflow
        kinds: tuple[Kind, ...] = ("dense",)  # of which an extraction takes no notice
        adapter = None
        if not isinstance(task, Extract):
            adapter = task.adapter
            kinds = task.kinds if isinstance(task, Encode) else compared(task, card)
        return [
            Unit(
                parts=self._parts(item, field or f"[{i}]"),
                role=role,
                instruction=item.instruction,
                overflow=overflow,
                max_tokens=task.max_tokens,
                kinds=kinds,
                adapter=adapter,
            )
            for i, item in enumerate(items)
        ]

    def _parts(self, item: Item, param: str) -> tuple[Loaded, ...]:
        first = item.parts[0] if item.parts else None
        if len(item.parts) == 1 and isinstance(first, Text):
            return (first,)  # nearly every request
        return tuple(self._part(part, param) for part in item.parts)

    def _part(self, part: Part, param: str) -> Loaded:
        if isinstance(part, Image | Video | Manifest):
            raise TypeError("pictures and videos are loaded before they come here")
        if not isinstance(part, Tokens):
            return part
        vocabulary = part.vocabulary or self._token_ids
        if vocabulary == "refuse":
            raise BadRequest("This server takes text, not token ids.", param=param)
        if vocabulary == "model":
            return part
        return Text(self._vocabulary.decode(part.ids, param))


def compared(task: Score, card: Card) -> tuple[Kind, ...]:
    """The kinds of vectors that a query and its documents are compared by."""
    return tuple(kind for kind, _ in task.weights) or COMPARED.get(card.scoring, ("dense",))


def lack(task: Work, cards: Sequence[Card]) -> str:
    """That none of the models served can do this, and which could."""
    if isinstance(task, Score):
        return "No model here can rerank."
    if isinstance(task, Extract):
        such = "facebook/bart-large-mnli" if task.labels else "SamLowe/roberta-base-go_emotions"
        return f"No model here classifies; serve one that does, such as {such}."
    made = {kind for card in cards for kind in card.kinds}
    for kind in task.kinds:
        if made and kind not in made:
            such = _MAKERS[kind]
            return f"No model here makes {kind} vectors; serve one that does, such as {such}."
    return "No model here can make embeddings."


def check_dims(dims: int | None, card: Card) -> None:
    if dims is not None and card.dims is not None and not 1 <= dims <= card.dims:
        raise Unsupported(
            f"This model's vectors can have 1 to {card.dims} dimensions.", param="dims"
        )


def check_kinds(kinds: Sequence[Kind], card: Card) -> None:
    if not set(kinds) <= set(card.kinds):
        made = ", ".join(card.kinds)
        raise Unsupported(f"This model makes {made} vectors only.", param="kinds")


def check_adapter(adapter: str | None, card: Card) -> None:
    if adapter is not None and adapter not in card.adapters:
        there = f"it has {', '.join(card.adapters)}" if card.adapters else "it has none"
        raise Unsupported(f"This model has no adapter of that name; {there}.", param="adapter")


def check_weights(task: Score, card: Card) -> None:
    if not {kind for kind, _ in task.weights} <= set(card.kinds):
        able = f"compares {', '.join(card.kinds)} vectors" if card.kinds else "compares no vectors"
        raise Unsupported(f"This model {able}.", param="weights")


def is_short(task: Work) -> bool:
    """Whether to prepare it where it is: a few short texts, in a tenth of a millisecond. Token
    ids are not: their vocabulary may have to be read first."""
    items = items_of(task)
    pairs = len(items) * len(task.labels) if isinstance(task, Extract) else 0
    if max(len(items), pairs) > FEW:
        return False
    left = SHORT
    for item in items:
        left -= len(item.instruction or "")
        for part in item.parts:
            if not isinstance(part, Text):
                return False
            left -= len(part.text)
    return left >= 0


def letters(items: Sequence[Item]) -> int:
    return sum(size(item.parts) for item in items)


def size(parts: Sequence[Part]) -> int:
    """Characters of text, and as many as token ids and pixels may stand for."""
    if len(parts) == 1 and isinstance(parts[0], Text):
        return len(parts[0].text)  # nearly every unit
    return sum(map(_size, parts))


def _size(part: Part) -> int:
    match part:
        case Text(text):
            return len(text)
        case Tokens(ids):
            return LETTERS_PER_TOKEN * len(ids)
        case Pixels(rgb):
            return int(rgb.size) // BYTES_PER_LETTER
        case Film(frames):
            return sum(map(_size, frames))
        case _:
            return 0
