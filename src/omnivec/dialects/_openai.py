"""What the dialects of OpenAI's shape share: wishes beside the input, and a list of vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, TypedDict, TypeVar, cast

import msgspec
from msgspec import Meta

from omnivec.core.errors import BadRequest, Fault, Unsupported
from omnivec.core.nouns import Call, Encode, Item, Part, Reply, Result, Task
from omnivec.core.outputs import dense
from omnivec.dialects import _wire

T = TypeVar("T", bound="Request")

# ── wire types ───────────────────────────────────────────────────────────────────────────

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


class Request(Wishes, kw_only=True):
    """What comes beside the input, whatever it is called."""

    model: _wire.ModelName = None
    encoding_format: Annotated[
        str | None,
        Meta(
            description="base64 is the vector's little-endian float32 bytes; float when absent.",
            examples=["float", "base64"],
        ),
    ] = None
    user: Annotated[Any, Meta(description="Accepted and not used.", examples=["user-1"])] = None
    extra_body: Annotated[Wishes | None, Meta(description="The same wishes, nested.")] = None


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


# ── what is asked ────────────────────────────────────────────────────────────────────────

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


def read(call: Call, shape: type[T]) -> T:
    """The seed answers every bad `dimensions` with 422, one of a wrong type too."""
    try:
        return _wire.read(call, shape)
    except BadRequest as fault:
        if (fault.param or "").rpartition(".")[2] in _DIMENSIONS:
            raise _bad_dimensions() from None
        raise


def encode_task(
    call: Call,
    request: Request,
    contents: Callable[[], Iterable[tuple[Part, ...]]],
    *,
    zero: bool = False,
) -> Encode:
    """An item for each of the contents, which are made when the wishes are known to be good.
    `zero`: whether 0 dimensions are all of them. Raises BadRequest, Unsupported."""
    call.memo["packed"] = _wire.is_packed(request.encoding_format)
    model = _wire.model_name(request.model)
    if _is_plain(request):
        return Encode(tuple([Item(parts) for parts in contents()]), model)
    instruction = _wire.given(_wish(request, "instruction", inner=True))
    normalize = _wish(request, "normalize")
    tokens = _wire.window(_wish(request, "truncate_prompt_tokens"), "truncate_prompt_tokens")
    overflow = _wire.overflow(_wish(request, "truncate", "truncation"), "truncate")
    role, dims = _role(request, instruction), _dims(request, zero=zero)
    return Encode(
        items=tuple(Item(parts, instruction) for parts in contents()),
        model=model,
        role=role,
        dims=dims,
        normalize=normalize,
        overflow=overflow or ("truncate" if tokens else None),  # vLLM: a length is a wish to cut
        max_tokens=tokens,
    )


def _bad_dimensions() -> Unsupported:
    return Unsupported(
        "`dimensions` must be an integer from 1 to the length of the model's vectors.",
        param="dimensions",
    )


_NONE = (None,) * len(Wishes.__struct_fields__)


def _is_plain(request: Request) -> bool:
    """Whether nothing is asked beyond OpenAI's own fields: nearly every request."""
    wishes = msgspec.structs.astuple(request)[: len(_NONE)]  # they come before a subclass's own
    return wishes == _NONE and request.extra_body is None


def _dims(request: Request, *, zero: bool = False) -> int | None:
    dims = _wish(request, *_DIMENSIONS)
    if dims == 0 and zero:
        return None
    if dims is not None and dims < 1:
        raise _bad_dimensions()
    return cast("int | None", dims)


def _wish(request: Request, *names: str, inner: bool = False) -> Any:
    """The first of these fields that was given, at the top level before `extra_body`; with
    `inner`, as the RunPod worker reads its own, in `extra_body` first."""
    places = (request, request.extra_body)
    for place in reversed(places) if inner else places:
        for name in names:
            if (value := getattr(place, name, None)) is not None:
                return value
    return None


def _role(request: Request, instruction: str | None) -> str | None:
    """A prompt's name is the model's own word; the other fields have words of their services.
    In the RunPod worker's, an instruction wins over the type."""
    if name := _wire.given(_wish(request, "prompt_name")):
        return name
    word = _wire.given(_wish(request, "input_type", "task"))
    if word is None and instruction is None:
        word = _wire.given(_wish(request, "prompt_type", inner=True))
    return _ROLES.get(word.lower(), word) if word else None


# ── what is answered ─────────────────────────────────────────────────────────────────────


def encode_embeddings(call: Call, task: Task, result: Result) -> Reply:
    reply = EmbeddingList(
        object="list",
        data=entries(call, result),
        model=task.model or result.card.name,
        usage=_wire.usage(result),
    )
    return _wire.write_lists(reply, "data")


def entries(call: Call, result: Result) -> list[EmbeddingEntry]:
    written = _wire.pack if call.memo["packed"] else _wire.row
    return [
        EmbeddingEntry(object="embedding", index=i, embedding=written(vector))
        for i, vector in enumerate(dense(result.outputs))
    ]


FIELDS: Mapping[str, str] = {"dims": "dimensions", "role": "prompt_name", "kinds": "model"}


def refuse(fault: Fault) -> Reply:
    """`{"error": {"message", "type", "param", "code"}}` is what its clients print."""
    body = {"error": _wire.error(fault, FIELDS)}
    return _wire.write(body, fault.status, _wire.fault_headers(fault))
