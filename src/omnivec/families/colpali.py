"""ColPali and ColQwen2: pages as pictures, a vector for each of their tokens, compared by MaxSim
with those of a question (arXiv 2407.01449).

A text is always read as a question: the models know no other. Their prompts are those of
transformers' processors; what is too long of a question is cut at its end, before its filling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.errors import Unsupported
from omnivec.core.nouns import (
    Array,
    Card,
    Features,
    Output,
    Pixels,
    Unit,
    Vectors,
)
from omnivec.core.seams import Session
from omnivec.core.steps import Head, Normalize
from omnivec.families._chat import Mark, Piece, Scribe, Words, parse, sort
from omnivec.families._files import part, tokenizer_settings, window
from omnivec.families._patches import (
    Budget,
    fit,
    join,
    preprocessor,
    read_cutter,
    read_scale,
    resize,
)
from omnivec.families._rows import split
from omnivec.families._text import pack

GRAPH = "main"
FILLING = 10  # tokens behind every question, for what it does not say
WINDOW = 8192  # where the files name none


class ColPaliFamily:
    name = "colpali"
    rank = 13

    def claims(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.architecture in SIGHTS

    def card(self, checkpoint: Checkpoint) -> Card:
        return Card(
            name=checkpoint.name,
            architecture=checkpoint.architecture,
            family=self.name,
            tasks=("encode", "score"),
            modalities=("text", "image"),
            kinds=("multivector",),
            token_dims=int(checkpoint.config.get("embedding_dim", 128)),
            max_tokens=_window(checkpoint),
            vocabulary=_text(checkpoint).get("vocab_size"),
            scoring="maxsim",
            revision=checkpoint.revision,
        )

    def graphs(self, checkpoint: Checkpoint) -> dict[str, Head]:
        # they normalise by themselves, but in the type of their weights
        return {GRAPH: Head("tokens", (read_scale(checkpoint), Normalize()))}

    def ready(self, checkpoint: Checkpoint, sessions: Mapping[str, Session]) -> ColPali:
        return ColPali(checkpoint, sessions[GRAPH])


class ColPali:
    """Questions and pages to rows of vectors."""

    def __init__(self, checkpoint: Checkpoint, session: Session) -> None:
        self.padding = session.padding
        self.streams = session.streams
        self.batch_cost = session.batch_cost
        self._session = session
        self._sight: Sight = SIGHTS[checkpoint.architecture](checkpoint)
        self._scribe = Scribe(checkpoint, self._sight.marks, framed=self._sight.framed)
        self._window = _window(checkpoint)

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        return [self._features(index, unit) for index, unit in enumerate(units)]

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        arrays = pack(batch, {"input_ids": self._scribe.padding}, self._window)
        if self._sight.segments:
            arrays["token_type_ids"] = np.zeros_like(arrays["input_ids"])
        found = self._session.run(arrays | join(batch), alone=alone)["output"]
        rows = split(found, [np.ones(one.tokens) for one in batch])
        return [Vectors(multivector=row) for row in rows]

    def close(self) -> None:
        self._session.close()

    def _features(self, index: int, unit: Unit) -> Features:
        content = sort(unit.parts, f"[{index}]")
        arrays: dict[str, Array] = {}
        if content.pictures and not content.text and len(content.pictures) == 1:
            page = self._sight.page(content.pictures[0], f"[{index}]")
            pieces, arrays = page.pieces, page.arrays
        elif content.texts and not content.pictures and not content.films:
            pieces = self._sight.question(content.text)
        else:
            raise Unsupported("This model takes a text, or one picture.", param=f"[{index}]")
        row = self._scribe.write(index, unit, pieces, self._window)
        arrays = {"input_ids": row.ids, **arrays}
        return Features(arrays=arrays, cost=len(row.ids), tokens=len(row.ids), cut=row.cut)


# ── the two architectures ────────────────────────────────────────────────────────────────
#
# How each is shown pages and asked questions. `framed`: with the tokens that its tokenizer puts
# around texts. `segments`: it is told token types, all of them 0.


class Page(NamedTuple):
    """`arrays` are those of one picture, as a session wants them of many."""

    pieces: list[Piece]
    arrays: dict[str, Array]


class PaliGemma:
    """Every page becomes a square, and a picture's tokens come before the words."""

    framed = False
    segments = True

    def __init__(self, checkpoint: Checkpoint) -> None:
        vision, told = part(_vlm(checkpoint), "vision_config"), preprocessor(checkpoint)
        prompts, size = _prompts(checkpoint), told.get("size") or {}
        side = int(vision.get("image_size", 448))
        self._size = int(size.get("height", side)), int(size.get("width", side))
        self._how = int(told.get("resample") or 3)
        start, filling = _word(checkpoint, "bos_token", "<bos>"), _filling(checkpoint, "<pad>")
        self.marks: tuple[str, ...] = ("<image>", start, filling)
        sights = Mark("<image>", (side // int(vision.get("patch_size", 14))) ** 2)
        shown = prompts.get("visual_prompt_prefix") or "Describe the image."
        self._page = [sights, Mark(start), *parse(f"{shown}\n", self.marks)]
        asked = prompts.get("query_prefix") or "Question: "
        self._before: list[Piece] = [Mark(start), *parse(asked, self.marks)]
        self._after: list[Piece] = [Mark(filling, FILLING), Words("\n")]

    def page(self, picture: Pixels, param: str) -> Page:  # noqa: ARG002 - any shape is taken
        square = resize(picture, self._size, self._how)
        return Page(self._page, {"pixel_values": square[None]})

    def question(self, text: str) -> list[Piece]:
        return [*self._before, Words(text, own=True), *self._after]


class Qwen2VL:
    """A page keeps its shape, and has as many tokens as its size asks for."""

    framed = True
    segments = False
    picture = "<|image_pad|>"
    prompt = (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image."
        "<|im_end|><|endoftext|>"
    )

    def __init__(self, checkpoint: Checkpoint) -> None:
        told, prompts = preprocessor(checkpoint), _prompts(checkpoint)
        size = told.get("size") or {}
        least = told.get("min_pixels") or size.get("shortest_edge") or 56 * 56
        most = told.get("max_pixels") or size.get("longest_edge") or 28 * 28 * 1280
        self._budget = Budget(int(least), int(most))
        self._cutter = read_cutter(checkpoint, part(_vlm(checkpoint), "vision_config"))
        filling = _filling(checkpoint, "<|endoftext|>")
        words = ("im_start", "im_end", "vision_start", "vision_end", "image_pad", "endoftext")
        self.marks: tuple[str, ...] = (*(f"<|{word}|>" for word in words), filling)
        self._page = parse(prompts.get("visual_prompt_prefix") or self.prompt, self.marks)
        self._before = parse(prompts.get("query_prefix") or "Query: ", self.marks)
        self._after: list[Piece] = [Mark(filling, FILLING), Words("\n")]

    def page(self, picture: Pixels, param: str) -> Page:
        size = fit(picture, self._cutter.factor, self._budget, param, floor=False)
        patches = self._cutter.cut((picture,), size)
        sights = Mark(self.picture, self._cutter.tokens(size))
        pieces = [sights if piece == Mark(self.picture) else piece for piece in self._page]
        grids = np.array([patches.grid], np.int64)
        return Page(pieces, {"pixel_values": patches.pixels, "image_grid_thw": grids})

    def question(self, text: str) -> list[Piece]:
        return [*self._before, Words(text, own=True), *self._after]


Sight: TypeAlias = PaliGemma | Qwen2VL
SIGHTS: Mapping[str, type[Sight]] = {"colpali": PaliGemma, "colqwen2": Qwen2VL}


# ── files ────────────────────────────────────────────────────────────────────────────────


def _vlm(checkpoint: Checkpoint) -> Mapping[str, Any]:
    return part(checkpoint.config, "vlm_config")


def _text(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The language model's config; older files have it beside the vision tower's."""
    vlm = _vlm(checkpoint)
    return part(vlm, "text_config") or vlm


def _window(checkpoint: Checkpoint) -> int:
    told = window(checkpoint, usual=checkpoint.overrides.get("max_tokens") or WINDOW)
    return min(told, int(_text(checkpoint).get("max_position_embeddings", told)))


def _prompts(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """processor_config.json, where a prompt is told that is not the usual one."""
    found = checkpoint.json("processor_config.json")
    return found if isinstance(found, dict) else {}


def _filling(checkpoint: Checkpoint, usual: str) -> str:
    return _word(checkpoint, "pad_token", usual)


def _word(checkpoint: Checkpoint, name: str, usual: str) -> str:
    """A special token of tokenizer_config.json by its role."""
    told = tokenizer_settings(checkpoint).get(name) or usual
    return str(told["content"] if isinstance(told, dict) else told)


PLUGIN = ColPaliFamily()
