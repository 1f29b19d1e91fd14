"""Voyage's multimodal embeddings: inputs of texts, pictures and videos, a vector for each."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

import msgspec
from msgspec import Meta

from omnivec.core.errors import Fault
from omnivec.core.nouns import Call, Part, Reply, Result, Task
from omnivec.core.seams import Endpoint
from omnivec.dialects import _openai, _wire
from omnivec.dialects._multimodal import ContentPart, parts_of


class MultimodalInput(msgspec.Struct):
    """One input, of pieces in their order."""

    content: list[ContentPart]


class MultimodalRequest(_openai.Request, kw_only=True):
    """Inputs of texts, pictures and videos to turn into vectors."""

    inputs: list[MultimodalInput]
    output_encoding: Annotated[
        str | None, Meta(description="base64, or null for numbers; another encoding_format.")
    ] = None


class MultimodalUsage(TypedDict):
    """What the request cost; pictures count as the tokens that the model makes of them."""

    text_tokens: int
    image_pixels: Annotated[int, Meta(description="Not counted: 0.")]
    total_tokens: int


class MultimodalList(TypedDict):
    """One vector for each input, in order."""

    object: Literal["list"]
    data: list[_openai.EmbeddingEntry]
    model: str
    usage: MultimodalUsage


def decode_embeddings(call: Call) -> Task:
    request = _openai.read(call, MultimodalRequest)
    if request.encoding_format is None:
        request.encoding_format = request.output_encoding
    most = call.limits.items
    _wire.check_count(len(request.inputs), most, "inputs")
    return _openai.encode_task(call, request, lambda: _contents(request, most))


def _contents(request: MultimodalRequest, most: int) -> list[tuple[Part, ...]]:
    found = []
    for i, one in enumerate(request.inputs):
        field = f"inputs[{i}].content"
        _wire.check_count(len(one.content), most, field)
        found.append(parts_of(one.content, field, most))
    return found


def encode_embeddings(call: Call, task: Task, result: Result) -> Reply:
    tokens = result.usage.tokens
    reply = MultimodalList(
        object="list",
        data=_openai.entries(call, result),
        model=task.model or result.card.name,
        usage=MultimodalUsage(text_tokens=tokens, image_pixels=0, total_tokens=tokens),
    )
    return _wire.write_lists(reply, "data")


class Voyage:
    name = "voyage"
    prefixes = ("/v1", "", "/api/v1", "/openai/v1")
    endpoints = (
        Endpoint(
            method="POST",
            path="/multimodalembeddings",
            decode=decode_embeddings,
            encode=encode_embeddings,
            summary="Turn inputs of texts and images into vectors (Voyage).",
            request=MultimodalRequest,
            response=MultimodalList,
            example={"inputs": [{"content": [{"type": "text", "text": "A photo of a cat"}]}]},
            counted="embeddings",
            items="inputs",
        ),
    )

    def fault(self, fault: Fault) -> Reply:
        """Its client reads `detail`; the envelope of OpenAI's stands beside it."""
        body = {"detail": fault.message, "error": _wire.error(fault, _openai.FIELDS)}
        return _wire.write(body, fault.status, _wire.fault_headers(fault))


PLUGIN = Voyage()
