"""OpenAI's wire format, as Synapse Garden documents it and as its many clients send it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias, TypedDict, cast

import msgspec
from msgspec import Meta

from omnivec.core.errors import BadRequest, Fault, Unsupported
from omnivec.core.nouns import (
    Call,
    Describe,
    Encode,
    Item,
    Part,
    Reply,
    Result,
    Task,
    Text,
    Tokens,
)
from omnivec.core.outline import VALUES
from omnivec.core.outputs import dense
from omnivec.core.seams import Endpoint
from omnivec.dialects import _models, _wire

# ── wire types ───────────────────────────────────────────────────────────────────────────

TokenId: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Ids: TypeAlias = Annotated[tuple[TokenId, ...], Meta(min_length=1)]
Input: TypeAlias = str | list[str | TokenId | list[TokenId]]

_SAME = "Another name of dimensions."
_ROLE = "The same as prompt_name, in the words of Cohere, Voyage and Jina, too."


class Wishes(msgspec.Struct, kw_only=True):
    """What may be asked beyond OpenAI's own fields; read at the top level and, as the RunPod
    worker's curl sends them, in an object called `extra_body`."""

    dimensions: Annotated[
        int | None,
        Meta(
            description="Length of the vectors: cut to this many numbers, then normalised "
            "again. 1 to the model's own length.",
            examples=[256],
        ),
    ] = None
    dimension: Annotated[int | None, Meta(description=_SAME)] = None
    output_dimension: Annotated[int | None, Meta(description=_SAME)] = None
    prompt_name: Annotated[
        str | None,
        Meta(
            description='"query", "document" or the name of one of the model\'s own prompts.',
            examples=["query", "document"],
        ),
    ] = None
    input_type: Annotated[str | None, Meta(description=_ROLE)] = None
    task: Annotated[str | None, Meta(description=_ROLE)] = None
    prompt_type: Annotated[str | None, Meta(description=_ROLE)] = None
    instruction: Annotated[
        str | None,
        Meta(description="The task in your own words, for models that follow one."),
    ] = None
    normalize: Annotated[
        bool | None, Meta(description="Unit length; true when absent.", examples=[True])
    ] = None
    truncate: _wire.Truncate = None
    truncation: _wire.Truncate = None
    truncate_prompt_tokens: Annotated[
        int | None, Meta(description="Cut every input to this many tokens; -1: the window.")
    ] = None


class EmbeddingRequest(Wishes, kw_only=True):
    """Texts to turn into vectors."""

    input: Annotated[
        Input,
        Meta(
            description="A string, an array of strings, an array of token ids, or an array of "
            "such arrays. Token ids are read as cl100k_base unless the server is set otherwise.",
            examples=["The quick brown fox", ["First sentence.", "Second sentence."]],
        ),
    ]
    model: _wire.ModelName = None
    encoding_format: Annotated[
        str | None,
        Meta(
            description="base64 is the vector's little-endian float32 bytes; float when absent.",
            examples=["float", "base64"],
        ),
    ] = None
    user: Annotated[Any, Meta(description="Accepted and not used.", examples=["user-1"])] = None
    modality: Annotated[str | None, Meta(description='Infinity\'s field: "text".')] = None
    output_dtype: Annotated[str | None, Meta(description='Voyage\'s field: "float".')] = None
    extra_body: Annotated[Wishes | None, Meta(description="The same wishes, nested.")] = None


class _Unread(EmbeddingRequest, kw_only=True):
    """The same, without Python objects of what may be large or anything at all."""

    input: msgspec.Raw  # type: ignore[assignment] # it is read by itself, by its first item
    user: msgspec.Raw = msgspec.Raw(b"null")


class EmbeddingEntry(TypedDict):
    """One input's vector."""

    object: Literal["embedding"]
    index: Annotated[int, Meta(description="The input's place in the request.")]
    embedding: Annotated[
        list[float] | str, Meta(description="Numbers, or their base64 when that was asked for.")
    ]


class EmbeddingList(TypedDict):
    """One vector for each input, in order."""

    object: Literal["list"]
    data: list[EmbeddingEntry]
    model: str
    usage: _wire.Usage


class ModelList(TypedDict):
    """Every model served. `data` is for OpenAI's clients; `models`, for SIE's, holds the same
    entries."""

    object: Literal["list"]
    data: list[_models.ModelEntry]
    models: list[_models.ModelEntry]


# ── embeddings ───────────────────────────────────────────────────────────────────────────

_DIMENSIONS = ("dimensions", "dimension", "output_dimension")
_ROLES = {
    "query": "query",
    "search_query": "query",
    "retrieval.query": "query",
    "document": "document",
    "passage": "document",
    "search_document": "document",
    "retrieval.document": "document",
    "retrieval.passage": "document",
}


def decode_embeddings(call: Call) -> Task:
    request = _read(call)
    _check_formats(request)
    call.memo["packed"] = _packed(request.encoding_format)
    if _is_plain(request):
        parts = _inputs(call, request)
        return Encode(tuple([Item((part,)) for part in parts]), _wire.model_name(request.model))
    instruction = _wire.given(_wish(request, "instruction"))
    normalize = _wish(request, "normalize")
    tokens = _wire.window(_wish(request, "truncate_prompt_tokens"), "truncate_prompt_tokens")
    overflow = _wire.overflow(_wish(request, "truncate", "truncation"), "truncate")
    parts = _inputs(call, request)
    return Encode(
        items=tuple(Item((part,), instruction) for part in parts),
        model=_wire.model_name(request.model),
        role=_role(request),
        dims=_dims(request),
        normalize=normalize,
        overflow=overflow or ("truncate" if tokens else None),  # vLLM: a length is a wish to cut
        max_tokens=tokens,
    )


def _read(call: Call) -> _Unread:
    """The seed answers every bad `dimensions` with 422, one of a wrong type too."""
    try:
        return _wire.read(call, _Unread)
    except BadRequest as fault:
        if (fault.param or "").rpartition(".")[2] in _DIMENSIONS:
            raise _bad_dimensions() from None
        raise


def _bad_dimensions() -> Unsupported:
    return Unsupported(
        "`dimensions` must be an integer from 1 to the length of the model's vectors.",
        param="dimensions",
    )


_NONE = (None,) * len(Wishes.__struct_fields__)


def _is_plain(request: EmbeddingRequest) -> bool:
    """Whether nothing is asked beyond OpenAI's own fields: nearly every request."""
    wishes = msgspec.structs.astuple(request)[: len(_NONE)]  # they come before a subclass's own
    return wishes == _NONE and request.extra_body is None


def _dims(request: EmbeddingRequest) -> int | None:
    dims = _wish(request, *_DIMENSIONS)
    if dims == 0 and request.modality is not None:
        return None  # Infinity's client always sends both, and means "all"
    if dims is not None and dims < 1:
        raise _bad_dimensions()
    return cast("int | None", dims)


def _wish(request: EmbeddingRequest, *names: str) -> Any:
    """The first of these fields that was given, at the top level before `extra_body`."""
    for place in (request, request.extra_body):
        for name in names:
            if (value := getattr(place, name, None)) is not None:
                return value
    return None


def _role(request: EmbeddingRequest) -> str | None:
    """A prompt's name is the model's own word; the other fields have words of their services."""
    if name := _wire.given(_wish(request, "prompt_name")):
        return name
    word = _wire.given(_wish(request, "input_type", "task", "prompt_type"))
    return _ROLES.get(word.lower(), word) if word else None


def _check_formats(request: EmbeddingRequest) -> None:
    if request.modality not in {None, "text"}:
        raise Unsupported('`modality` must be "text".', param="modality")
    if request.output_dtype not in {None, "float"}:
        raise Unsupported('`output_dtype` must be "float".', param="output_dtype")


def _packed(encoding_format: str | None) -> bool:
    word = (encoding_format or "float").lower()
    if word not in {"float", "base64"}:
        raise BadRequest('`encoding_format` must be "float" or "base64".', param="encoding_format")
    return word == "base64"


_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_FIRST = re.compile(rb"\[\s*(.)", re.DOTALL)


def _parts(raw: bytes, most: int) -> list[Part]:
    """One for each item of `input`. Too many are seen before any is made. Raises BadRequest."""
    first = _FIRST.match(raw)
    if first is None:
        return [Text(_read_input(raw, str))]
    if first[1] in b"-0123456789":
        return [Tokens(_read_input(raw, tuple[TokenId, ...]))]
    if (least := _least(raw, most)) > most:
        _wire.check_count(least, most, "input")
    items = _read_input(raw, list[str | _Ids])
    _wire.check_count(len(items), most, "input")
    return [Text(item) if isinstance(item, str) else Tokens(item) for item in items]


_MOST_IDS = 2**19
"""Token ids that one request may have. OpenAI's own limit is 300,000."""


def _inputs(call: Call, request: _Unread) -> list[Part]:
    """The parts; those of a large body's long `input` are read a few at a time."""
    outline, most = call.outline, call.limits.items
    if outline is None or not outline.is_long("input"):
        return _parts(bytes(request.input), most)
    first = _FIRST.match(outline.head("input"))
    if first is not None and first[1] in b"-0123456789":
        _check_ids(outline.count("input"), VALUES, "input")
        return [Tokens(_read_input(outline.view("input"), tuple[TokenId, ...]))]
    if (count := outline.count("input")) > most:
        _wire.check_count(count, most, "input")
    parts: list[Part] = []
    ids = 0
    for _, items in _wire.read_items(outline, "input", list[str | _Ids], most, told=_misfit):
        parts += [Text(item) if isinstance(item, str) else Tokens(item) for item in items]
        ids += sum(len(item) for item in items if not isinstance(item, str))
        _check_ids(ids, _MOST_IDS, "input")
    _wire.check_count(len(parts), most, "input")
    return parts


def _check_ids(count: int, most: int, field: str) -> None:
    if count > most:
        raise BadRequest(f"`{field}` must have at most {most} token ids.", param=field)


def _least(raw: bytes, most: int) -> int:
    """How many items an array of texts and token arrays has at least, from its bytes."""
    quotes = raw.count(b'"') - raw.count(b'\\"')  # fewer than all where a text ends in a backslash
    if quotes > 2 * most:
        return quotes // 2
    arrays = raw.count(b"[") - 1
    return _STRING.sub(b"", raw).count(b"[") - 1 if quotes and arrays > most else arrays


def _read_input(raw: bytes | memoryview, shape: Any) -> Any:
    try:
        return _wire.read_field(raw, shape, "input")
    except BadRequest as fault:
        raise _misfit(fault) from None


def _misfit(fault: BadRequest) -> BadRequest:
    if fault.param is None:
        return fault
    return BadRequest(
        f"`{fault.param}` does not fit: `input` must be a string, an array of strings, an "
        "array of token ids (integers of at least 0), or an array of such arrays, none empty.",
        param=fault.param,
    )


def encode_embeddings(call: Call, task: Task, result: Result) -> Reply:
    written = _wire.pack if call.memo["packed"] else _wire.row
    vectors = dense(result.outputs)
    return _wire.write_lists(
        EmbeddingList(
            object="list",
            data=[
                EmbeddingEntry(object="embedding", index=i, embedding=written(vector))
                for i, vector in enumerate(vectors)
            ],
            model=task.model or result.card.name,
            usage=_wire.usage(result),
        ),
        "data",
    )


# ── models ───────────────────────────────────────────────────────────────────────────────


def decode_models(_call: Call) -> Task:
    return Describe()


def encode_models(_call: Call, _task: Task, result: Result) -> Reply:
    entries = [_models.model_entry(card) for card in result.cards]
    return _wire.write(ModelList(object="list", data=entries, models=entries))


def decode_model(call: Call) -> Task:
    return Describe(call.params["id"])


def encode_model(_call: Call, _task: Task, result: Result) -> Reply:
    return _wire.write(_models.model_entry(result.cards[0]))


# ── faults ───────────────────────────────────────────────────────────────────────────────

_FIELDS = {"dims": "dimensions", "role": "prompt_name", "kinds": "model"}


class OpenAI:
    """`{"error": {"message", "type", "param", "code"}}` is what its clients print."""

    name = "openai"
    prefixes = ("/v1", "", "/api/v1", "/openai/v1")
    endpoints = (
        Endpoint(
            method="POST",
            path="/embeddings",
            decode=decode_embeddings,
            encode=encode_embeddings,
            summary="Turn texts into vectors.",
            request=EmbeddingRequest,
            response=EmbeddingList,
            example={"input": ["The quick brown fox", "jumps over the lazy dog"]},
            counted="embeddings",
            items="input",
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
            decode=decode_model,
            encode=encode_model,
            summary="Describe one model.",
            response=_models.ModelEntry,
        ),
    )

    def fault(self, fault: Fault) -> Reply:
        body = {"error": _wire.error(fault, _FIELDS)}
        return _wire.write(body, fault.status, _wire.fault_headers(fault))


PLUGIN = OpenAI()
