"""BLIP-2 for retrieval (`Blip2ForImageTextRetrieval`): texts and pictures to vectors that can be
compared (arXiv 2301.12597).

A picture has as many vectors as the model has learnt questions to ask of it, a text has one. The
model's own score, ITC, is the best of them: MaxSim of a text with a picture. As a dense vector a
picture is the mean of them, taken before they are normalised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.errors import Unsupported
from omnivec.core.nouns import (
    Card,
    Features,
    Film,
    Kind,
    Output,
    Pixels,
    Unit,
    Vectors,
)
from omnivec.core.seams import Session
from omnivec.core.steps import Head, Normalize, Pool
from omnivec.families._files import architecture, part, window
from omnivec.families._patches import preprocessor, read_scale, resize
from omnivec.families._rows import Row, Rows, Way, split
from omnivec.families._text import pack

TEXT, IMAGE = "text", "image"
KINDS: tuple[Kind, ...] = ("dense", "multivector")
EACH = "multivector"  # the output that has a row for each vector


class Blip2Family:
    name = "blip2"
    rank = 14

    def claims(self, checkpoint: Checkpoint) -> bool:
        named = architecture(checkpoint)
        return checkpoint.architecture == "blip-2" and named == "Blip2ForImageTextRetrieval"

    def card(self, checkpoint: Checkpoint) -> Card:
        dims = int(checkpoint.config.get("image_text_hidden_size", 256))
        return Card(
            name=checkpoint.name,
            architecture=checkpoint.architecture,
            family=self.name,
            tasks=("encode", "score"),
            modalities=("text", "image"),
            kinds=KINDS,
            dims=dims,
            token_dims=dims,
            max_tokens=_window(checkpoint),
            scoring="maxsim",
            revision=checkpoint.revision,
        )

    def graphs(self, checkpoint: Checkpoint) -> dict[str, Head]:
        each = {EACH: Head("tokens", (Normalize(),))}
        scale = read_scale(checkpoint)
        return {
            TEXT: Head("pooled", (Pool(("cls",)),), also=each),
            IMAGE: Head("pooled", (scale, Pool(("mean",))), also=each),
        }

    def ready(self, checkpoint: Checkpoint, sessions: Mapping[str, Session]) -> Blip2:
        return Blip2(checkpoint, sessions)


class Blip2:
    """One text or one picture in each unit, to those kinds of vectors that it asks for."""

    def __init__(self, checkpoint: Checkpoint, sessions: Mapping[str, Session]) -> None:
        each = sessions.values()
        self.padding = sessions[TEXT].padding
        self.streams = min(session.streams for session in each)
        self.batch_cost = min(session.batch_cost for session in each)
        self._sessions = sessions
        self._rows = Rows(checkpoint)
        self._way = Way("", self._rows.tokeniser.single, _window(checkpoint))
        self._questions = int(checkpoint.config.get("num_query_tokens", 32))
        vision, told = part(checkpoint.config, "vision_config"), preprocessor(checkpoint)
        side, size = int(vision.get("image_size", 224)), told.get("size") or {}
        self._size = int(size.get("height", side)), int(size.get("width", side))
        self._how = int(told.get("resample") or 3)
        self._patches = (side // int(vision.get("patch_size", 14))) ** 2

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        """They are charged by tokens: of a picture those are its patches."""
        seen = {i: picture for i, unit in enumerate(units) if (picture := _picture(i, unit))}
        read = [index for index in range(len(units)) if index not in seen]
        rows = self._rows.prepare([units[i] for i in read], [self._way] * len(read), read)
        texts = dict(zip(read, rows, strict=True))
        return [
            self._shown(unit, seen[index]) if index in seen else _said(unit, texts[index])
            for index, unit in enumerate(units)
        ]

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        graph, kinds = cast("tuple[str, tuple[Kind, ...]]", batch[0].group)
        if graph == TEXT:
            arrays = pack(batch, {**self._rows.fill, f"{EACH}_mask": 0}, self._way.window)
        else:
            arrays = {name: np.stack([one.arrays[name] for one in batch]) for name in _SHOWN}
        found = self._sessions[graph].run(arrays, alone=alone)
        rows = split(found[EACH], [one.arrays[f"{EACH}_mask"] for one in batch])
        return [
            Vectors(
                dense=dense if "dense" in kinds else None,
                multivector=each if EACH in kinds else None,
            )
            for dense, each in zip(found["output"], rows, strict=True)
        ]

    def close(self) -> None:
        for session in self._sessions.values():
            session.close()

    def _shown(self, unit: Unit, picture: Pixels) -> Features:
        ones = np.ones(self._questions, np.int64)
        arrays = {
            "pixel_values": resize(picture, self._size, self._how),
            "attention_mask": ones,
            f"{EACH}_mask": ones * (EACH in unit.kinds),
        }
        count = self._patches
        return Features(arrays=arrays, cost=count, tokens=count, group=(IMAGE, unit.kinds))


_SHOWN = ("pixel_values", "attention_mask", f"{EACH}_mask")


def _said(unit: Unit, row: Row) -> Features:
    """A text is its first token."""
    count = len(row.ids)
    first = (np.arange(count) == 0) & (EACH in unit.kinds)
    arrays = {"input_ids": row.ids, f"{EACH}_mask": first.astype(np.int64)}
    return Features(arrays, count, count, (TEXT, unit.kinds), row.cut)


def _picture(index: int, unit: Unit) -> Pixels | None:
    """The unit's one part where that is a picture; None where there are texts. Raises Unsupported
    for anything else."""
    first = unit.parts[0] if unit.parts else None
    if isinstance(first, Pixels) and len(unit.parts) == 1:
        return first
    if any(isinstance(one, Pixels | Film) for one in unit.parts):
        raise Unsupported(
            "This model takes one text or one picture in each input, and not both.",
            param=f"[{index}]",
        )
    return None


def _window(checkpoint: Checkpoint) -> int:
    """The texts' own; the checkpoint's other sections are of a language model not used here."""
    told = part(checkpoint.config, "qformer_config").get("max_position_embeddings", 512)
    return min(int(told), window(checkpoint))


PLUGIN = Blip2Family()
