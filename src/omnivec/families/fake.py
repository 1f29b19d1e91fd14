"""What takes pictures without having learnt to see: `fake:image=on`, for tests, ours and yours.

A picture becomes a few token ids that follow from its shape and its pixels, so two inputs have
one vector if, and only if, they are of the same words and the same pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.nouns import (
    Card,
    Features,
    Film,
    Output,
    Pixels,
    Unit,
    Vectors,
)
from omnivec.core.seams import Session
from omnivec.core.steps import Head, Pool
from omnivec.families._files import labels, vocabulary, window
from omnivec.families._text import Tokeniser, limit, pack, read, refuse

ARCHITECTURE = "omnivec-fake"
GRAPH = "main"
EACH = 16
"""Tokens of a picture."""
_FIRST = 16  # of the ids that are no special token and no marker


class FakePictures:
    name = "fake"
    rank = 1

    def claims(self, checkpoint: Checkpoint) -> bool:
        wanted = checkpoint.options.get("image", "off").lower() in ("on", "true", "1")
        return wanted and checkpoint.architecture == ARCHITECTURE and not labels(checkpoint)

    def card(self, checkpoint: Checkpoint) -> Card:
        return Card(
            name=checkpoint.name,
            architecture=checkpoint.architecture,
            family=self.name,
            tasks=("encode", "score"),
            modalities=("text", "image", "video"),
            dims=int(checkpoint.options.get("dims", 32)),
            max_tokens=window(checkpoint),
            vocabulary=vocabulary(checkpoint),
            pooling="mean",
            kinds=("dense",),
            scoring="cosine",
        )

    def graphs(self, checkpoint: Checkpoint) -> dict[str, Head]:  # noqa: ARG002 - always the same
        return {GRAPH: Head(kind="pooled", steps=(Pool(modes=("mean",)),))}

    def ready(self, checkpoint: Checkpoint, sessions: Mapping[str, Session]) -> Beholder:
        return Beholder(checkpoint, sessions[GRAPH])


class Beholder:
    """Words and pictures, in their order, to one vector."""

    def __init__(self, checkpoint: Checkpoint, session: Session) -> None:
        self.padding = session.padding
        self.streams = session.streams
        self.batch_cost = session.batch_cost
        self._session = session
        self._tokeniser = Tokeniser(checkpoint)
        self._window = window(checkpoint)
        self._vocabulary = vocabulary(checkpoint) or self._tokeniser.size

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        return [self._features(i, unit) for i, unit in enumerate(units)]

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        fill = {"input_ids": self._tokeniser.padding}
        rows = self._session.run(pack(batch, fill, self._window), alone=alone)["output"]
        return [Vectors(dense=row) for row in rows]

    def close(self) -> None:
        self._session.close()

    def _features(self, index: int, unit: Unit) -> Features:
        whole = [number for ids in self._ids(index, unit) for number in ids]
        most = limit(self._window, unit.max_tokens)
        room = max(0, most - self._tokeniser.single.size)
        if (cut := len(whole) > room) and unit.overflow == "refuse":
            raise refuse(most, f"[{index}]")
        row = self._tokeniser.single.ids(whole[:room])
        return Features(arrays={"input_ids": row}, cost=len(row), tokens=len(row), cut=cut)

    def _ids(self, index: int, unit: Unit) -> Iterator[list[int]]:
        for part in unit.parts:
            if isinstance(part, Pixels):
                yield self._seen(part)
            elif isinstance(part, Film):
                for frame in part.frames:
                    yield self._seen(frame)
            else:
                text = read([part], self._vocabulary, f"[{index}]")
                yield self._tokeniser.encode([text], [self._window])[0].tokens

    def _seen(self, picture: Pixels) -> list[int]:
        shape = np.array(picture.rgb.shape, "<i8").tobytes()
        said = shape + np.ascontiguousarray(picture.rgb).tobytes()
        numbers = np.frombuffer(hashlib.blake2b(said, digest_size=2 * EACH).digest(), "<u2")
        ids: list[int] = (_FIRST + numbers % (self._vocabulary - _FIRST)).tolist()
        return ids


PLUGIN = FakePictures()
