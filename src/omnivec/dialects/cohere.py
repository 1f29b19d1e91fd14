"""Cohere's embed, versions 1 and 2: texts, pictures or both, and vectors of several types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypedDict, cast
from uuid import uuid4

import msgspec
import numpy as np
from msgspec import Meta

from omnivec.core.errors import BadRequest, Fault, Unsupported
from omnivec.core.nouns import (
    Array,
    Call,
    Dtype,
    Encode,
    Image,
    Item,
    Part,
    Reply,
    Result,
    Task,
    Text,
)
from omnivec.core.outputs import dense
from omnivec.core.quantise import quantise
from omnivec.core.seams import Endpoint
from omnivec.dialects import _media, _wire
from omnivec.dialects._multimodal import ContentPart, Where, parts_of

# ── wire types ───────────────────────────────────────────────────────────────────────────


class CohereInput(msgspec.Struct):
    """One input of texts and pictures."""

    content: list[ContentPart]


class CohereEmbedRequest(msgspec.Struct, kw_only=True):
    """Texts, or pictures, or inputs of both, to turn into vectors."""

    texts: Annotated[list[str] | None, Meta(examples=[["hello", "goodbye"]])] = None
    images: Annotated[list[Where] | None, Meta(description="data: URIs, URLs or base64.")] = None
    inputs: Annotated[list[CohereInput] | None, Meta(description="Only in version 2.")] = None
    model: _wire.ModelName = None
    input_type: Annotated[
        str | None, Meta(examples=["search_query", "search_document", "classification", "image"])
    ] = None
    embedding_types: Annotated[
        list[str] | None,
        Meta(description="Of float, int8, uint8, binary, ubinary and base64 (of floats)."),
    ] = None
    output_dimension: int | None = None
    truncate: _wire.Truncate = None
    max_tokens: Annotated[int | None, Meta(description="Cut every input to so many.")] = None


class InputTokens(TypedDict):
    input_tokens: int


class ApiVersion(TypedDict):
    version: str


class CohereMeta(TypedDict):
    """What Cohere's clients read."""

    api_version: ApiVersion
    billed_units: InputTokens


class CohereEmbeddings(TypedDict):
    """A vector for each input, in order: under each type that was asked for, or, in version 1
    where none was, alone."""

    id: str
    embeddings: dict[str, list[list[float] | str]] | list[list[float]]
    texts: list[str]
    meta: CohereMeta
    response_type: str


# ── decode ───────────────────────────────────────────────────────────────────────────────

_ROLES = {"search_query": "query", "search_document": "document"}
_PLAIN = ("classification", "clustering", "image")
_TYPES = ("float", "int8", "uint8", "binary", "ubinary", "base64")


def decode_embed(call: Call) -> Task:
    request = _wire.read(call, CohereEmbedRequest)
    call.memo["types"] = _types(request.embedding_types)
    dims = request.output_dimension
    if dims is not None and dims < 1:
        raise Unsupported(
            "`output_dimension` must be an integer from 1 to the length of the model's vectors.",
            param="output_dimension",
        )
    tokens = _wire.window(request.max_tokens, "max_tokens")
    overflow = _wire.overflow(request.truncate, "truncate")
    return Encode(
        items=tuple(Item(parts) for parts in _contents(request, call.limits.items)),
        model=_wire.model_name(request.model),
        role=_role(_wire.given(request.input_type)),
        dims=dims,
        overflow=overflow or ("truncate" if tokens else None),
        max_tokens=tokens,
    )


def _types(asked: list[str] | None) -> tuple[str, ...]:
    if not set(asked or ()) <= set(_TYPES):
        raise BadRequest(
            f"`embedding_types` must be some of {', '.join(_TYPES)}.", param="embedding_types"
        )
    return tuple(dict.fromkeys(asked or ()))


def _role(word: str | None) -> str | None:
    return None if word is None or word in _PLAIN else _ROLES.get(word, word)


def _contents(request: CohereEmbedRequest, most: int) -> Sequence[tuple[Part, ...]]:
    """Raises BadRequest."""
    given = {
        name: value
        for name in ("texts", "images", "inputs")
        if (value := getattr(request, name)) is not None
    }
    if len(given) != 1:
        raise BadRequest("One of `texts`, `images` and `inputs` is needed, and no other.")
    ((name, items),) = given.items()
    _wire.check_count(len(items), most, name)
    if name == "texts":
        return [(Text(text),) for text in items]
    if name == "images":
        sources = [_media.sent(one, f"images[{i}]") for i, one in enumerate(items)]
        return [(Image(source),) for source in sources]
    return [_parts(one, f"inputs[{i}].content", most) for i, one in enumerate(items)]


def _parts(given: CohereInput, field: str, most: int) -> tuple[Part, ...]:
    _wire.check_count(len(given.content), most, field)
    return parts_of(given.content, field, most)


# ── encode ───────────────────────────────────────────────────────────────────────────────


def _embed(version: str, call: Call, task: Task, result: Result) -> Reply:
    assert isinstance(task, Encode)  # noqa: S101 - `decode_embed` makes nothing else
    rows = [_wire.row(row) for row in dense(result.outputs)]
    types = call.memo["types"] or (("float",) if version == "2" else ())
    reply = CohereEmbeddings(
        id=uuid4().hex,
        embeddings={name: _typed(rows, name) for name in types} if types else rows,
        texts=[_wire.text_of(item) for item in task.items],
        meta=CohereMeta(
            api_version=ApiVersion(version=version),
            billed_units=InputTokens(input_tokens=result.usage.tokens),
        ),
        response_type="embeddings_by_type" if types else "embeddings_floats",
    )
    return _wire.write(reply)


def encode_v1(call: Call, task: Task, result: Result) -> Reply:
    return _embed("1", call, task, result)


def encode_v2(call: Call, task: Task, result: Result) -> Reply:
    return _embed("2", call, task, result)


def _typed(rows: list[Array], name: str) -> list[Any]:
    if name == "float":
        return rows
    if name == "base64":
        return [_wire.pack(row) for row in rows]
    packed = quantise(np.stack(rows), cast("Dtype", name))
    # of its two packings of signs, this one's bytes are signed
    return list((packed.astype(np.int16) - 128).astype(np.int8) if name == "binary" else packed)


# ── the dialect ──────────────────────────────────────────────────────────────────────────

_FIELDS = {"dims": "output_dimension", "role": "input_type", "kinds": "model"}


class Cohere:
    """Its clients read `message`; LiteLLM's the envelope of OpenAI beside it."""

    name = "cohere"
    prefixes = ("", "/api", "/openai")
    endpoints = tuple(
        Endpoint(
            method="POST",
            path=path,
            decode=decode_embed,
            encode=encode,
            summary=f"Turn texts and images into vectors (Cohere {path[1:3]}).",
            request=CohereEmbedRequest,
            response=CohereEmbeddings,
            example={
                "texts": ["hello", "goodbye"],
                "input_type": "search_document",
                "embedding_types": ["float"],
            },
            counted="embeddings",
            items="",  # a fault says which one: they have three names
        )
        for path, encode in (("/v2/embed", encode_v2), ("/v1/embed", encode_v1))
    )

    def fault(self, fault: Fault) -> Reply:
        body = {"message": fault.message, "error": _wire.error(fault, _FIELDS)}
        return _wire.write(body, fault.status, _wire.fault_headers(fault))


PLUGIN = Cohere()
