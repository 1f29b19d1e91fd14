"""Reranking as Text Embeddings Inference does it: bare arrays out, errors of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NotRequired, TypedDict

import msgspec
from msgspec import Meta

from omnivec.core.errors import (
    BadRequest,
    Fault,
    Loading,
    ModelFailed,
    Overloaded,
    TooLarge,
    TooLong,
    Unsupported,
)
from omnivec.core.nouns import Call, Item, Reply, Result, Score, Task, Text
from omnivec.core.seams import Endpoint
from omnivec.dialects import _wire


class TeiRerankRequest(msgspec.Struct, kw_only=True):
    """Texts to sort by their relevance to a query."""

    query: Annotated[str, Meta(examples=["What is Deep Learning?"])]
    texts: Annotated[list[str], Meta(examples=[["Deep Learning is not...", "Deep learning is..."]])]
    model: _wire.ModelName = None
    raw_scores: Annotated[
        bool | None, Meta(description="The model's logits instead of scores from 0 to 1.")
    ] = None
    return_text: Annotated[
        bool | None, Meta(description="Echo each text beside its score; false when absent.")
    ] = None
    truncate: _wire.Truncate = None
    truncation_direction: Annotated[
        str | None, Meta(description='"right", in any case; nothing else is cut.')
    ] = None
    top_n: Annotated[int | None, Meta(description="Return only so many; LiteLLM sends it.")] = None


class TeiRank(TypedDict):
    """One text's score."""

    index: Annotated[int, Meta(description="The text's place in the request.")]
    score: Annotated[
        float, Meta(description="0 to 1, higher is more relevant; a logit under raw_scores.")
    ]
    text: NotRequired[Annotated[str, Meta(description="Under return_text.")]]


def is_tei(fields: Mapping[str, msgspec.Raw]) -> bool:
    return "texts" in fields


def decode_rerank(call: Call) -> Task:
    request = _wire.read(call, TeiRerankRequest)
    call.memo["request"] = (_wire.check_top(request.top_n, "top_n"), request.return_text)
    _wire.check_count(len(request.texts), call.limits.items, "texts", TooLarge)
    # A direction only matters when there is something to cut, and then it must be ours.
    _wire.overflow(request.truncation_direction, "truncation_direction")
    return Score(
        query=Item((Text(_wire.check_query(request.query, "query")),)),
        items=tuple(Item((Text(text),)) for text in request.texts),
        model=_wire.model_name(request.model),
        raw=bool(request.raw_scores),
        overflow=_wire.overflow(request.truncate, "truncate"),
    )


def encode_rerank(call: Call, task: Task, result: Result) -> Reply:
    assert isinstance(task, Score)  # noqa: S101 - `decode_rerank` makes nothing else
    top, echo = call.memo["request"]
    ranks = [
        TeiRank(index=index, score=score)
        for index, score in _wire.ranked(result, raw=task.raw, top=top)
    ]
    if echo:
        for rank in ranks:
            (part,) = task.items[rank["index"]].parts
            if isinstance(part, Text):
                rank["text"] = part.text
    return _wire.write(ranks)


# TEI's status and word for each fault, the most particular class first.
_WORDS: tuple[tuple[type[Fault], int, str], ...] = (
    (TooLong, 413, "Validation"),
    (TooLarge, 413, "Validation"),
    (BadRequest, 422, "Validation"),
    (Unsupported, 422, "Validation"),
    (Overloaded, 429, "Overloaded"),
    (ModelFailed, 424, "Backend"),
    (Loading, 503, "Unhealthy"),
)


class Tei:
    name = "tei"
    prefixes = ("",)
    endpoints = (
        Endpoint(
            method="POST",
            path="/rerank",
            decode=decode_rerank,
            encode=encode_rerank,
            summary="Sort texts by relevance (Text Embeddings Inference).",
            request=TeiRerankRequest,
            response=list[TeiRank],
            example={
                "query": "What is Deep Learning?",
                "texts": ["Deep Learning is not...", "Deep learning is..."],
            },
            recognises=is_tei,
            counted="rerank",
            items="texts",
        ),
    )

    def fault(self, fault: Fault) -> Reply:
        known = [(status, word) for kind, status, word in _WORDS if isinstance(fault, kind)]
        status, word = known[0] if known else (fault.status, "Validation")
        body = {"error": fault.message, "error_type": word}
        return _wire.write(body, status, _wire.fault_headers(fault))


PLUGIN = Tei()
