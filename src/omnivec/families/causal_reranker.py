"""Rerankers that are language models: asked in words whether a document answers a query, they
score by the logit of one answer, less that of the other (Qwen3-Reranker: arXiv 2506.05176).

The ids are those of the models' own code. That of Qwen3 tokenises the prompt's frame by itself
and cuts the end of what it frames; sentence-transformers' CrossEncoder makes the same of it. That
of bge-reranker-v2-gemma, on its model card, cuts a pair to the window and puts the prompt behind.
A score is answered as in cross_encoder.py; `raw` is the difference of the logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.errors import Unsupported
from omnivec.core.nouns import (
    Card,
    Features,
    Loaded,
    Output,
    Unit,
)
from omnivec.core.seams import Session
from omnivec.core.steps import Contrast, Head, Pool
from omnivec.families import _judgements
from omnivec.families._adapters import Adapters
from omnivec.families._files import (
    architecture,
    kind,
    labels,
    modules,
    positions,
    vocabulary,
    window,
)
from omnivec.families._judgements import IN_QUERY, KNOWN, QWEN3, Judgement
from omnivec.families._pairs import relevance
from omnivec.families._text import Ids, Prompts, Tokeniser, limit, pack, read, refuse

GRAPH = "main"
TOO_LONG = "The query and this document together are"

DECODERS = frozenset({"gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3"})
"""What a classifier must be made of to have a language model's prompt, whatever it is called."""


class CausalRerankerFamily:
    name = "causal_reranker"
    rank = 15

    def claims(self, checkpoint: Checkpoint) -> bool:
        """A language model that sentence-transformers' CrossEncoder has saved, or one with a
        prompt that is known here; that one may also have been turned into a classifier."""
        listed = [module.kind for module in modules(checkpoint)]
        if labels(checkpoint) == 1:
            return checkpoint.architecture in DECODERS and _judgements.find(checkpoint) is not None
        if not architecture(checkpoint).endswith("ForCausalLM"):
            return False
        if listed or kind(checkpoint):
            return "LogitScore" in listed or kind(checkpoint) == "CrossEncoder"
        return _judgements.find(checkpoint) is not None

    def card(self, checkpoint: Checkpoint) -> Card:
        judgement = judge(checkpoint)
        return Card(
            name=checkpoint.name,
            architecture=checkpoint.architecture,
            family=self.name,
            tasks=("score",),
            max_tokens=window(checkpoint),
            vocabulary=vocabulary(checkpoint),
            prompts=Prompts.read(checkpoint).texts,
            instructions=bool(judgement.instruction),
            scoring="cross-encoder",
            revision=checkpoint.revision,
            adapters=Adapters(checkpoint).names,
        )

    def graphs(self, checkpoint: Checkpoint) -> dict[str, Head]:
        if labels(checkpoint):
            return {GRAPH: Head(kind="logits")}
        steps = (Pool(modes=("last",)), answers(checkpoint, judge(checkpoint)))
        return {GRAPH: Head(kind="pooled", steps=steps)}

    def ready(self, checkpoint: Checkpoint, sessions: Mapping[str, Session]) -> CausalReranker:
        return CausalReranker(checkpoint, sessions[GRAPH])


def judge(checkpoint: Checkpoint) -> Judgement:
    """Raises CheckpointError for a prompt that is not known here."""
    found = _judgements.find(checkpoint)
    if found is None and checkpoint.architecture == "qwen3":
        found = None if _judgements.chat_template(checkpoint) else QWEN3
    if found is None:
        raise CheckpointError(
            f"{checkpoint.name}: a reranker whose prompt is not known here; set `judgement` in "
            f"the model's entry to one of {', '.join(KNOWN)}"
        )
    return found


def answers(checkpoint: Checkpoint, judgement: Judgement) -> Contrast:
    """The two answers' tokens: as a LogitScore names them, else the words of the prompt. Raises
    CheckpointError when the tokenizer has no such word, and for logits that are capped: of those
    the difference is none of a product."""
    if checkpoint.config.get("final_logit_softcapping"):
        raise CheckpointError(
            f"{checkpoint.name}: a reranker whose logits are capped (final_logit_softcapping) is "
            "not supported"
        )
    told = _logit_score(checkpoint)
    if isinstance(told.get("true_token_id"), int):
        minus = told.get("false_token_id")
        return Contrast(told["true_token_id"], minus if isinstance(minus, int) else None)
    library = Tokeniser(checkpoint).library
    ids = [None if word is None else library.token_to_id(word) for word in judgement.words]
    if ids[0] is None or (ids[1] is None and judgement.words[1] is not None):
        raise CheckpointError(
            f"{checkpoint.name}: its tokenizer has no token for one of the answers "
            f"{judgement.words}; tokenizer.json belongs to another model"
        )
    return Contrast(ids[0], ids[1])


def _logit_score(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Its config.json; empty where there is none at the place that modules.json names."""
    for module in modules(checkpoint):
        if module.kind == "LogitScore":
            found = checkpoint.json(module.file("config.json"))
            return found if isinstance(found, dict) else {}
    return {}


class CausalReranker:
    """Pairs of a query (`Unit.parts`) and a document (`Unit.other`) to scores."""

    def __init__(self, checkpoint: Checkpoint, session: Session) -> None:
        self.padding = session.padding
        self.streams = session.streams
        self.batch_cost = session.batch_cost
        self._session = session
        self._tokeniser = Tokeniser(checkpoint)
        self._judgement = judge(checkpoint)
        self._default = Prompts.read(checkpoint).choose(None)
        self._window = window(checkpoint)
        self._most = positions(checkpoint) or self._window
        self._vocabulary = vocabulary(checkpoint) or self._tokeniser.size
        self._adapters = Adapters(checkpoint)
        self._fill = {"input_ids": self._tokeniser.padding}
        self._before = self._ids(self._judgement.before)
        self._between = self._ids(self._judgement.between)
        self._after = self._ids(self._judgement.after)

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        """A fault of the query names `query`, of a document its unit (`[3]`)."""
        firsts = [self._first(unit) for unit in units]
        seconds = [self._second(i, unit) for i, unit in enumerate(units)]
        windows = [limit(self._window, unit.max_tokens) for unit in units]
        framed = self._joint if self._judgement.joint else self._apart
        return [
            self._features(i, unit, middle, cut, most)
            for i, (unit, (middle, cut), most) in enumerate(
                zip(units, framed(firsts, seconds, windows), windows, strict=True)
            )
        ]

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        rows = self._session.run(pack(batch, self._fill, self._most), alone=alone)["output"]
        return [relevance(float(row[0])) for row in rows]

    def close(self) -> None:
        self._session.close()

    # ── the prompt ───────────────────────────────────────────────────────────────────────

    def _first(self, unit: Unit) -> str:
        query = self._text(unit.parts, "query")
        return self._judgement.first(query, unit.instruction or self._default)

    def _second(self, index: int, unit: Unit) -> str:
        if unit.other is None:
            raise Unsupported("This model scores pairs of texts.", param=f"[{index}]")
        return self._judgement.document + self._text(unit.other, f"[{index}]")

    def _text(self, parts: Sequence[Loaded], param: str) -> str:
        """Token ids are spelled: they are to stand within a text."""
        found = read(parts, self._vocabulary, param)
        if isinstance(found, str):
            return found
        return str(self._tokeniser.library.decode(found, skip_special_tokens=False))

    def _joint(
        self, firsts: list[str], seconds: list[str], windows: list[int]
    ) -> list[tuple[list[int], bool]]:
        """The tokens between the frame's, and whether some had to go."""
        texts = [first + second for first, second in zip(firsts, seconds, strict=True)]
        return [
            _shortened(ids, self._room(most))
            for ids, most in zip(self._tokeniser.encode(texts, windows), windows, strict=True)
        ]

    def _apart(
        self, firsts: list[str], seconds: list[str], windows: list[int]
    ) -> list[tuple[list[int], bool]]:
        found = []
        queries = dict(zip(firsts, self._tokeniser.encode(firsts, windows), strict=True))
        documents = self._tokeniser.encode(seconds, windows)
        for first, second, most in zip(firsts, documents, windows, strict=True):
            room = max(0, self._room(most) - len(self._between))
            query, query_cut = _shortened(queries[first], min(room, int(most * IN_QUERY)))
            document, cut = _shortened(second, room - len(query))
            found.append(([*query, *self._between, *document], query_cut or cut))
        return found

    def _room(self, window: int) -> int:
        after = 0 if self._judgement.beyond else len(self._after)
        return max(0, window - len(self._before) - after)

    def _features(
        self, index: int, unit: Unit, middle: list[int], cut: bool, most: int
    ) -> Features:
        if cut and unit.overflow == "refuse":
            raise refuse(most, f"[{index}]", TOO_LONG)
        row = np.array([*self._before, *middle, *self._after], np.int64)
        arrays = {"input_ids": row, **self._adapters.arrays(unit)}
        return Features(arrays=arrays, cost=len(row), tokens=len(row), cut=cut)

    def _ids(self, texts: Sequence[str]) -> list[int]:
        """The frame's, whole."""
        rooms = [len(text) for text in texts]
        return [one for ids in self._tokeniser.encode(texts, rooms) for one in ids.tokens]


def _shortened(ids: Ids, room: int) -> tuple[list[int], bool]:
    return ids.tokens[:room], ids.more or len(ids.tokens) > room


PLUGIN = CausalRerankerFamily()
