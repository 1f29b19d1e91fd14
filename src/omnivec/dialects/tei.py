"""Reranking and classifying as Text Embeddings Inference does it: bare arrays out, errors of
its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from omnivec.core.nouns import Call, Extract, Findings, Item, Reply, Result, Score, Task, Text
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


# ── classifying ──────────────────────────────────────────────────────────────────────────


class TeiPredictRequest(msgspec.Struct, kw_only=True):
    """Texts to classify."""

    inputs: Annotated[
        str | list[str | list[str]],
        Meta(
            description="A text, or an array of arrays that hold one each.",
            examples=["I like you.", [["I like you."], ["I hate pineapples."]]],
        ),
    ]
    model: _wire.ModelName = None
    raw_scores: Annotated[bool | None, Meta(description="Refused where it is true.")] = None
    truncate: _wire.Truncate = None
    truncation_direction: Annotated[
        str | None, Meta(description='"right", in any case; nothing else is cut.')
    ] = None


class TeiPrediction(TypedDict):
    """One label's score."""

    score: Annotated[float, Meta(description="0 to 1.")]
    label: str


def decode_predict(call: Call) -> Task:
    request = _wire.read(call, TeiPredictRequest)
    if request.raw_scores:
        raise Unsupported("Scores come as probabilities only.", param="raw_scores")
    texts, call.memo["single"] = _texts(request.inputs)
    _wire.check_count(len(texts), call.limits.items, "inputs", TooLarge)
    _wire.overflow(request.truncation_direction, "truncation_direction")
    return Extract(
        items=tuple(Item((Text(text),)) for text in texts),
        model=_wire.model_name(request.model),
        overflow=_wire.overflow(request.truncate, "truncate"),
    )


def _texts(inputs: str | Sequence[str | list[str]]) -> tuple[list[str], bool]:
    """The texts, and whether it is one whose answer has no array around it."""
    if isinstance(inputs, str):
        return [inputs], True
    if len(inputs) == 1 and isinstance(inputs[0], str):
        return [inputs[0]], True
    texts = [one[0] for one in inputs if isinstance(one, list) and len(one) == 1]
    if len(texts) < len(inputs):
        raise BadRequest(
            "`inputs` must be a text or an array of arrays of one text each; pairs of texts are "
            "not classified.",
            param="inputs",
        )
    return texts, False


def encode_predict(call: Call, task: Task, result: Result) -> Reply:
    del task
    rows = [
        [TeiPrediction(score=one.score, label=one.label) for one in output.classes]
        for output in result.outputs
        if isinstance(output, Findings)
    ]
    return _wire.write(rows[0] if call.memo["single"] else rows)


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
        Endpoint(
            method="POST",
            path="/predict",
            decode=decode_predict,
            encode=encode_predict,
            summary="Classify texts by the model's own labels (Text Embeddings Inference).",
            request=TeiPredictRequest,
            response=list[TeiPrediction | list[TeiPrediction]],
            example={"inputs": "I like you."},
            counted="extract",
            items="inputs",
        ),
    )

    def fault(self, fault: Fault) -> Reply:
        known = [(status, word) for kind, status, word in _WORDS if isinstance(fault, kind)]
        status, word = known[0] if known else (fault.status, "Validation")
        body = {"error": fault.message, "error_type": word}
        return _wire.write(body, status, _wire.fault_headers(fault))


PLUGIN = Tei()
