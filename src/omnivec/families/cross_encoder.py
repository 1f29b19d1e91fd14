"""Cross-encoder rerankers: `*ForSequenceClassification` with one output.

A score is answered as the sigmoid of the logit whatever activation the checkpoint names:
clients compare it with thresholds within 0..1, and an Identity (ms-marco) would break them.
The order is the same, and `raw` is the logit, from which any activation can be had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.errors import Unsupported
from omnivec.core.nouns import Card, Features, Output, Unit
from omnivec.core.seams import Session
from omnivec.core.steps import Head
from omnivec.families._adapters import Adapters
from omnivec.families._files import labels, vocabulary, window
from omnivec.families._pairs import Reader, relevance
from omnivec.families._text import Ids, Prompts

GRAPH = "main"
TOO_LONG = "The query and this document together are"


class CrossEncoderFamily:
    name = "cross_encoder"
    rank = 20

    def claims(self, checkpoint: Checkpoint) -> bool:
        return labels(checkpoint) == 1

    def card(self, checkpoint: Checkpoint) -> Card:
        prompts = Prompts.read(checkpoint)
        return Card(
            name=checkpoint.name,
            architecture=checkpoint.architecture,
            family=self.name,
            tasks=("score",),
            max_tokens=window(checkpoint),
            vocabulary=vocabulary(checkpoint),
            prompts=prompts.texts,
            instructions=prompts.instructions,
            scoring="cross-encoder",
            revision=checkpoint.revision,
            adapters=Adapters(checkpoint).names,
        )

    def graphs(self, checkpoint: Checkpoint) -> dict[str, Head]:  # noqa: ARG002 - all alike
        return {GRAPH: Head(kind="logits")}

    def ready(self, checkpoint: Checkpoint, sessions: Mapping[str, Session]) -> CrossEncoder:
        return CrossEncoder(checkpoint, sessions[GRAPH])


class CrossEncoder:
    """Pairs of a query (`Unit.parts`) and a document (`Unit.other`) to scores."""

    def __init__(self, checkpoint: Checkpoint, session: Session) -> None:
        self.padding = session.padding
        self.streams = session.streams
        self.batch_cost = session.batch_cost
        self._session = session
        self._reader = Reader(checkpoint)
        self._prompts = Prompts.read(checkpoint)

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        """A fault of the query names `query`, of a document its unit (`[3]`)."""
        windows = self._reader.windows(units)
        queries = self._queries(units)
        documents = [self._document(i, unit) for i, unit in enumerate(units)]
        seconds = self._reader.encode(documents, windows)
        return [
            self._reader.frame_two(i, unit, (first, second), window, TOO_LONG)
            for i, (unit, first, second, window) in enumerate(
                zip(units, queries, seconds, windows, strict=True)
            )
        ]

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        rows = self._session.run(self._reader.pack(batch), alone=alone)["output"]
        return [relevance(float(row[0])) for row in rows]

    def close(self) -> None:
        self._session.close()

    def _queries(self, units: Sequence[Unit]) -> list[Ids]:
        """Each unit's query as ids; one that many units share is tokenised once."""
        asked = [(unit.parts, unit.role, unit.instruction) for unit in units]
        distinct = list(dict.fromkeys(asked))
        texts: list[str | list[int]] = []
        for parts, role, instruction in distinct:
            text = self._reader.read(parts, "query")
            prompt = self._prompts.choose(role, instruction)
            texts.append(prompt + text if isinstance(text, str) else text)
        found = dict(zip(distinct, self._reader.encode(texts), strict=True))
        return [found[key] for key in asked]

    def _document(self, index: int, unit: Unit) -> str | list[int]:
        if unit.other is None:
            raise Unsupported("This model scores pairs of texts.", param=f"[{index}]")
        return self._reader.read(unit.other, f"[{index}]")


PLUGIN = CrossEncoderFamily()
