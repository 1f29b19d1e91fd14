"""OpenAI's wire format, as Synapse Garden documents it and as its many clients send it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias, TypedDict

import msgspec
from msgspec import Meta

from omnivec.core.errors import BadRequest, Fault, Unsupported
from omnivec.core.nouns import (
    Call,
    Describe,
    Image,
    Part,
    Reply,
    Result,
    Task,
    Text,
    Tokens,
)
from omnivec.core.outline import VALUES
from omnivec.core.seams import Endpoint
from omnivec.dialects import _forms, _json, _media, _models, _openai, _wire
from omnivec.dialects._multimodal import MixedInput

# ── wire types ───────────────────────────────────────────────────────────────────────────

TokenId: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Ids: TypeAlias = Annotated[tuple[TokenId, ...], Meta(min_length=1)]
Input: TypeAlias = str | list[str | TokenId | list[TokenId] | MixedInput]


class EmbeddingRequest(_openai.Request, kw_only=True):
    """Texts, and where the model reads them pictures, to turn into vectors."""

    input: Annotated[
        Input,
        Meta(
            description="A string, an array of strings, an array of token ids, or an array of "
            "such arrays. Token ids are read as cl100k_base unless the server is set otherwise. "
            "In an array, objects with `text`, `image` or `video` too.",
            examples=["The quick brown fox", ["First sentence.", "Second sentence."]],
        ),
    ]
    modality: Annotated[
        str | None, Meta(description='Infinity\'s field: "text", or "image" for URLs or base64.')
    ] = None
    output_dtype: Annotated[str | None, Meta(description='Voyage\'s field: "float".')] = None
    embedding_type: Annotated[str | None, Meta(description="Jina's name of encoding_format.")] = (
        None
    )


class _Unread(EmbeddingRequest, kw_only=True):
    """The same, without Python objects of what may be large or anything at all."""

    input: msgspec.Raw  # type: ignore[assignment] # it is read by itself, by its first item
    user: msgspec.Raw = msgspec.Raw(b"null")


class ModelList(TypedDict):
    """Every model served. `data` is for OpenAI's clients; `models`, for SIE's, holds the same
    entries."""

    object: Literal["list"]
    data: list[_models.ModelEntry]
    models: list[_models.ModelEntry]


# ── embeddings ───────────────────────────────────────────────────────────────────────────


def decode_embeddings(call: Call) -> Task:
    request = _openai.read(call, _Unread)
    _check_formats(request)
    # Infinity's client always sends both, and by 0 means "all"
    zero = request.modality is not None
    return _openai.encode_task(call, request, lambda: _inputs(call, request), zero=zero)


def _check_formats(request: EmbeddingRequest) -> None:
    if request.modality not in {None, "text", "image"}:
        raise Unsupported('`modality` must be "text" or "image".', param="modality")
    if request.output_dtype not in {None, "float"}:
        raise Unsupported('`output_dtype` must be "float".', param="output_dtype")
    if request.encoding_format is None:
        request.encoding_format = request.embedding_type


_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_FIRST = re.compile(rb"\[\s*(.)", re.DOTALL)

_Content: TypeAlias = tuple[Part, ...]
_Given: TypeAlias = str | _Ids | MixedInput


def _parts(raw: bytes, request: _Unread, most: int) -> list[_Content]:
    """One for each item of `input`. Too many are seen before any is made. Raises BadRequest."""
    first = _FIRST.match(raw)
    if first is None:
        return _contents([_read_input(raw, str)], request)
    if first[1] in b"-0123456789":
        return _contents([_read_input(raw, tuple[TokenId, ...])], request)
    if (least := _least(raw, most)) > most:
        _wire.check_count(least, most, "input")
    items = _read_input(raw, list[_Given])
    _wire.check_count(len(items), most, "input")
    return _contents(items, request)


def _contents(items: list[Any], request: _Unread, start: int = 0) -> list[_Content]:
    if request.modality == "image":
        return [_picture(item, f"input[{i}]") for i, item in enumerate(items, start)]
    if request.modality is None:
        _check_texts(items, start)
    return [
        (Text(item),)
        if isinstance(item, str)
        else item.parts(f"input[{i}]")
        if isinstance(item, MixedInput)
        else (Tokens(item),)
        for i, item in enumerate(items, start)
    ]


_FILE = re.compile(r"data:(?:image|video)/[^,]{0,200};base64,", re.IGNORECASE).match


def _check_texts(items: list[Any], start: int) -> None:
    """Whoever sends a file as a string means no text. Raises BadRequest."""
    for i, item in enumerate(items, start):
        if isinstance(item, str) and _FILE(item):
            raise BadRequest(
                f"`input[{i}]` is a data: URI, and a string is read as a text: send an object with "
                '`image` or `video`, or say `"modality": "image"` beside `input`, or "text".',
                param=f"input[{i}]",
            )


def _picture(item: _Given, field: str) -> _Content:
    if isinstance(item, str):
        return (Image(_media.sent(item, field)),)
    if isinstance(item, MixedInput):
        return item.parts(field)
    raise BadRequest(f"`{field}` must be an image: a URL, a data: URI or base64.", param=field)


_MOST_IDS = 2**19
"""Token ids that one request may have. OpenAI's own limit is 300,000."""


def _inputs(call: Call, request: _Unread) -> list[_Content]:
    """The parts; those of a large body's long `input` are read a few at a time."""
    outline, most = call.outline, call.limits.items
    if outline is None or not outline.is_long("input"):
        return _parts(bytes(request.input), request, most)
    first = _FIRST.match(outline.head("input"))
    if first is not None and first[1] in b"-0123456789":
        _check_ids(outline.count("input"), VALUES, "input")
        return _contents([_read_input(outline.view("input"), tuple[TokenId, ...])], request)
    if (count := outline.count("input")) > most:
        _wire.check_count(count, most, "input")
    parts: list[_Content] = []
    ids = 0
    for at, items in _json.read_items(outline, "input", list[_Given], most, told=_misfit):
        parts += _contents(items, request, at)
        ids += sum(len(item) for item in items if isinstance(item, tuple))
        _check_ids(ids, _MOST_IDS, "input")
    _wire.check_count(len(parts), most, "input")
    return parts


def _check_ids(count: int, most: int, field: str) -> None:
    if count > most:
        raise BadRequest(f"`{field}` must have at most {most} token ids.", param=field)


def _least(raw: bytes, most: int) -> int:
    """How many items an array of texts and token arrays has at least, from its bytes."""
    if b"{" in raw:
        return 0  # an object has several; bodies that can hold very many are read otherwise
    quotes = raw.count(b'"') - raw.count(b'\\"')  # fewer than all where a text ends in a backslash
    if quotes > 2 * most:
        return quotes // 2
    arrays = raw.count(b"[") - 1
    return _STRING.sub(b"", raw).count(b"[") - 1 if quotes and arrays > most else arrays


def _read_input(raw: bytes | memoryview, shape: Any) -> Any:
    try:
        return _json.read_field(raw, shape, "input")
    except BadRequest as fault:
        raise _misfit(fault) from None


def _misfit(fault: BadRequest) -> BadRequest:
    if fault.param is None:
        return fault
    return BadRequest(
        f"`{fault.param}` does not fit: `input` must be a string, an array of strings, an "
        "array of token ids (integers of at least 0), an array of such arrays, none empty, or an "
        "array of objects with `text` or `image`.",
        param=fault.param,
    )


# ── models ───────────────────────────────────────────────────────────────────────────────


def decode_models(_call: Call) -> Task:
    return Describe()


def encode_models(_call: Call, _task: Task, result: Result) -> Reply:
    entries = [_models.model_entry(card) for card in result.cards]
    return _wire.write(ModelList(object="list", data=entries, models=entries))


# ── the dialect ──────────────────────────────────────────────────────────────────────────


class OpenAI:
    """Its clients print `error.message`."""

    name = "openai"
    prefixes = ("/v1", "", "/api/v1", "/openai/v1")
    endpoints = (
        Endpoint(
            method="POST",
            path="/embeddings",
            decode=decode_embeddings,
            encode=_openai.encode_embeddings,
            summary="Turn texts and images into vectors (OpenAI).",
            request=EmbeddingRequest,
            response=_openai.EmbeddingList,
            example={"input": ["The quick brown fox", "jumps over the lazy dog"]},
            counted="embeddings",
            items="input",
            form=_forms.openai,
        ),
        Endpoint(
            method="GET",
            path="/models",
            decode=decode_models,
            encode=encode_models,
            summary="List the models served.",
            response=ModelList,
        ),
        Endpoint(
            method="GET",
            path="/models/{id:path}",
            decode=_models.decode_model,
            encode=_models.encode_model,
            summary="Describe one model.",
            response=_models.ModelEntry,
        ),
    )

    def fault(self, fault: Fault) -> Reply:
        return _openai.refuse(fault)


PLUGIN = OpenAI()
