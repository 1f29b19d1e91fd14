"""What Infinity has beside OpenAI's embeddings and Cohere's rerank: /classify."""

from __future__ import annotations

import time
from typing import Annotated, Literal, TypedDict
from uuid import uuid4

import msgspec
from msgspec import Meta

from omnivec.core.errors import Fault, Unsupported
from omnivec.core.nouns import Call, Extract, Findings, Item, Reply, Result, Task, Text
from omnivec.core.seams import Endpoint
from omnivec.dialects import _wire


class ClassifyRequest(msgspec.Struct, kw_only=True):
    """Texts to classify."""

    input: Annotated[list[str], Meta(examples=[["I like you.", "I hate pineapples."]])]
    model: _wire.ModelName = None
    raw_scores: Annotated[bool | None, Meta(description="Refused where it is true.")] = None


class ClassifyEntry(TypedDict):
    """One label's score."""

    score: Annotated[float, Meta(description="0 to 1.")]
    label: str


class ClassifyReply(TypedDict):
    """For each text every label of the model, the likeliest first."""

    object: Literal["classify"]
    data: list[list[ClassifyEntry]]
    model: str
    usage: _wire.Usage
    id: str
    created: Annotated[int, Meta(description="Unix seconds.")]


def decode_classify(call: Call) -> Task:
    request = _wire.read(call, ClassifyRequest)
    if request.raw_scores:
        raise Unsupported("Scores come as probabilities only.", param="raw_scores")
    _wire.check_count(len(request.input), call.limits.items, "input")
    return Extract(
        items=tuple(Item((Text(text),)) for text in request.input),
        model=_wire.model_name(request.model),
    )


def encode_classify(call: Call, task: Task, result: Result) -> Reply:
    del call
    data = [
        [ClassifyEntry(score=one.score, label=one.label) for one in output.classes]
        for output in result.outputs
        if isinstance(output, Findings)
    ]
    reply = ClassifyReply(
        object="classify",
        data=data,
        model=task.model or result.card.name,
        usage=_wire.usage(result),
        id=f"infinity-{uuid4()}",
        created=int(time.time()),
    )
    return _wire.write_lists(reply, "data")


class Infinity:
    """OpenAI's envelope, with the status as its code."""

    name = "infinity"
    prefixes = ("", "/v1")
    endpoints = (
        Endpoint(
            method="POST",
            path="/classify",
            decode=decode_classify,
            encode=encode_classify,
            summary="Classify texts by the model's own labels (Infinity).",
            request=ClassifyRequest,
            response=ClassifyReply,
            example={"input": ["I like you."]},
            counted="extract",
            items="input",
        ),
    )

    def fault(self, fault: Fault) -> Reply:
        body = {"error": {**_wire.error(fault), "code": fault.status}}
        return _wire.write(body, fault.status, _wire.fault_headers(fault))


PLUGIN = Infinity()
