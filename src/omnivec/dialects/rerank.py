"""Reranking as the clients of Cohere v1 and v2, Jina, Voyage, vLLM and Infinity send it.

Their bodies are one with a few names more or less, so one request is read and one reply is
written that all of them parse. Only the shape of an echoed document is beyond agreement: the
clients of the bare path want a string, those of /v1 and /v2 an object.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, TypedDict, cast
from uuid import uuid4

import msgspec
from msgspec import Meta

from omnivec.core.errors import BadRequest, Fault
from omnivec.core.nouns import (
    Call,
    Image,
    Item,
    Part,
    Reply,
    Result,
    Score,
    Task,
    Text,
)
from omnivec.core.seams import Endpoint
from omnivec.dialects import _json, _media, _wire
from omnivec.dialects._multimodal import ContentPart

# ── wire types ───────────────────────────────────────────────────────────────────────────

Document: TypeAlias = str | dict[str, Any]
Fields: TypeAlias = dict[str, msgspec.Raw]


class Instruction(msgspec.Struct, kw_only=True):
    """What the RunPod worker's curl nests in an object called `extra_body`."""

    instruction: Annotated[
        str | None,
        Meta(description="The task in your own words, for models that follow one."),
    ] = None


class RerankRequest(Instruction, kw_only=True):
    """Documents to sort by their relevance to a query."""

    query: Annotated[
        Document,
        Meta(description="A string, or an object with `text`.", examples=["What is a panda?"]),
    ]
    documents: Annotated[
        list[Document],
        Meta(
            description="Strings, or objects with `text` or `content` (a string or an array of "
            "parts), or, beside `rank_fields`, with any fields.",
            examples=[["The giant panda is a bear.", "Paris is a city."]],
        ),
    ]
    model: _wire.ModelName = None
    top_n: Annotated[
        int | None,
        Meta(description="Return only so many, the best; absent means all.", examples=[3]),
    ] = None
    top_k: Annotated[int | None, Meta(description="Voyage's name of top_n.")] = None
    return_documents: Annotated[
        bool | None, Meta(description="Echo each document beside its score; false when absent.")
    ] = None
    raw_scores: Annotated[
        bool | None, Meta(description="The model's logits instead of scores from 0 to 1.")
    ] = None
    rank_fields: Annotated[
        list[str] | None, Meta(description="Which fields of a document object are read.")
    ] = None
    truncate: _wire.Truncate = None
    truncation: _wire.Truncate = None
    truncate_prompt_tokens: Annotated[
        int | None,
        Meta(description="Cut query and document together to this many tokens; -1: the window."),
    ] = None
    extra_body: Annotated[Instruction | None, Meta(description="The same wish, nested.")] = None


class _Unread(RerankRequest, kw_only=True):
    """The same, without Python objects of what may hold anything at all."""

    query: msgspec.Raw  # type: ignore[assignment] # read by itself, as each document is
    documents: msgspec.Raw  # type: ignore[assignment] # read when it is known how many there are


class TextDocument(TypedDict):
    """A document as /v1 and /v2 echo it."""

    text: str


class RankedDocument(TypedDict):
    """One document's score."""

    index: Annotated[int, Meta(description="The document's place in the request.")]
    relevance_score: Annotated[
        float, Meta(description="0 to 1, higher is more relevant; a logit under raw_scores.")
    ]
    score: Annotated[float, Meta(description="The same number.")]
    document: NotRequired[
        Annotated[
            TextDocument | str,
            Meta(description="Under return_documents. A string on /rerank, else an object."),
        ]
    ]


class Version(TypedDict):
    version: str


class BilledUnits(TypedDict):
    search_units: Annotated[int, Meta(description="One for each 100 documents, begun ones too.")]


class TokenCount(TypedDict):
    input_tokens: int
    output_tokens: int


class RerankMeta(TypedDict):
    """What Cohere's clients read."""

    api_version: Version
    billed_units: BilledUnits
    tokens: TokenCount


class RerankReply(TypedDict):
    """Documents, the most relevant first. Voyage's clients read `data`, the others `results`;
    they are the same."""

    id: str
    object: Literal["rerank"]
    model: str
    results: list[RankedDocument]
    data: list[RankedDocument]
    usage: _wire.Usage
    meta: RerankMeta


# ── decode ───────────────────────────────────────────────────────────────────────────────


def decode_rerank(call: Call) -> Task:
    request = _wire.read(call, _Unread)
    call.memo["request"] = (_top(request), request.return_documents)
    most = call.limits.items
    documents = _long_list(call) or _list(bytes(request.documents), "documents", most)
    _wire.check_count(len(documents), most, "documents")
    tokens = _wire.window(request.truncate_prompt_tokens, "truncate_prompt_tokens")
    wish = request.truncate if request.truncate is not None else request.truncation
    overflow = _wire.overflow(wish, "truncate")
    return Score(
        query=_query(request, most),
        items=tuple(
            Item(_document(document, f"documents[{i}]", request.rank_fields, most))
            for i, document in enumerate(documents)
        ),
        model=_wire.model_name(request.model),
        raw=bool(request.raw_scores),
        overflow=overflow or ("truncate" if tokens else None),
        max_tokens=tokens,
    )


def _top(request: _Unread) -> int | None:
    if request.top_n is not None:
        return _wire.check_top(request.top_n, "top_n")
    return _wire.check_top(request.top_k, "top_k")


def _query(request: _Unread, most: int) -> Item:
    parts = _document(request.query, "query", None, most)
    texts = [part.text for part in parts if isinstance(part, Text)]
    if texts:
        _wire.check_query("".join(texts), "query")
    nested = request.extra_body.instruction if request.extra_body else None
    return Item(parts, _wire.given(request.instruction) or _wire.given(nested))


def _document(
    raw: msgspec.Raw, field: str, rank_fields: list[str] | None, most: int
) -> tuple[Part, ...]:
    given = _json.read_field(raw, str | Fields, field)
    if isinstance(given, str):
        return (Text(given),)
    if rank_fields:
        return (Text(_fields(given, rank_fields, field)),)
    text, content = _string(given, "text"), _string(given, "content")
    if text is not None:
        return (Text(text), *_image(given, field))
    if content is not None:
        return (Text(content),)
    if parts := _content(given, field, most):
        return parts
    if image := _image(given, field):
        return image
    raise BadRequest(
        f"`{field}` must be a string, or an object with `text` or `content`.", param=field
    )


def _string(given: Fields, name: str) -> str | None:
    raw = bytes(given.get(name, b"")).lstrip()
    return _json.read_field(raw, str, name) if raw.startswith(b'"') else None


def _content(given: Fields, field: str, most: int) -> tuple[Part, ...]:
    """The parts of a chat message, as vLLM and Dify send documents; none where it has none."""
    raw = bytes(given.get("content", b"")).lstrip()
    if not raw.startswith(b"["):
        return ()
    parts = _list(raw, f"{field}.content", most)
    places = [f"{field}.content[{i}]" for i in range(len(parts))]
    return tuple(
        _json.read_field(part, ContentPart, place).part(place)
        for part, place in zip(parts, places, strict=True)
    )


def _list(raw: bytes, field: str, most: int) -> list[msgspec.Raw]:
    """The items unread, `most` of them. Without a quote every object is empty, and without an
    object every item is a text, so that far too many are seen before any is made."""
    quotes = raw.count(b'"') - raw.count(b'\\"')
    least = quotes // 2 if b"{" not in raw else 0 if quotes else raw.count(b"{")
    items = [] if least > most else _json.read_field(raw, list[msgspec.Raw], field)
    if (count := max(least, len(items))) > most:
        _wire.check_count(count, most, field)
    return cast("list[msgspec.Raw]", items)


def _long_list(call: Call) -> list[msgspec.Raw]:
    """The items of a large body's long `documents`, as `_list`; none where it is not long."""
    outline, most = call.outline, call.limits.items
    if outline is None or not outline.is_long("documents"):
        return []
    found = _json.read_items(outline, "documents", list[msgspec.Raw], most + 1)
    return [item for _, items in found for item in items]


def _fields(given: Fields, names: list[str], field: str) -> str:
    """Cohere's rule: the named fields, each on a line of its own."""
    found = [(name, text) for name in names if (text := _string(given, name)) is not None]
    if not found:
        raise BadRequest(f"`{field}` has no text in any of `rank_fields`.", param=field)
    if len(names) == 1:
        return found[0][1]
    return "\n".join(f"{name}: {text}" for name, text in found)


def _image(given: Fields, field: str) -> tuple[Part, ...]:
    image = _string(given, "image")
    return (Image(_media.sent(image, f"{field}.image")),) if image else ()


# ── encode ───────────────────────────────────────────────────────────────────────────────

_SEARCH_UNIT = 100  # documents; Cohere's


def encode_rerank(version: str | None, call: Call, task: Task, result: Result) -> Reply:
    """`version` of Cohere's API; None on the bare path, where a document is a string."""
    assert isinstance(task, Score)  # noqa: S101 - `decode_rerank` makes nothing else
    top, echo = call.memo["request"]
    results = [
        RankedDocument(index=index, relevance_score=score, score=score)
        for index, score in _wire.ranked(result, raw=task.raw, top=top)
    ]
    if echo:
        for entry in results:
            text = _wire.text_of(task.items[entry["index"]])
            entry["document"] = TextDocument(text=text) if version else text
    reply = RerankReply(
        id=f"rerank-{uuid4().hex}",
        object="rerank",
        model=task.model or result.card.name,
        results=results,
        data=results,
        usage=_wire.usage(result),
        meta=_meta(version or "1", len(task.items), result),
    )
    return _wire.write_lists(reply, "results", "data")


def _meta(version: str, documents: int, result: Result) -> RerankMeta:
    return RerankMeta(
        api_version=Version(version=version),
        billed_units=BilledUnits(search_units=-(-documents // _SEARCH_UNIT)),
        tokens=TokenCount(input_tokens=result.usage.tokens, output_tokens=0),
    )


# ── the dialect ──────────────────────────────────────────────────────────────────────────

_EXAMPLE = {
    "query": "How do neural networks learn?",
    "documents": [
        "Neural networks adjust their weights by backpropagation.",
        "The stock market fell in the third quarter.",
    ],
    "top_n": 1,
    "return_documents": True,
}


def _endpoint(path: str, version: str | None, summary: str) -> Endpoint:
    return Endpoint(
        method="POST",
        path=path,
        decode=decode_rerank,
        encode=partial(encode_rerank, version),
        summary=summary,
        request=RerankRequest,
        response=RerankReply,
        example=_EXAMPLE,
        counted="rerank",
        items="documents",
    )


class Rerank:
    """OpenAI's envelope, and the `message` that Cohere's clients look for beside it."""

    name = "rerank"
    prefixes = ("", "/api", "/openai")
    endpoints = (
        _endpoint("/v1/rerank", "1", "Sort documents by relevance (Cohere v1, Jina, Voyage)."),
        _endpoint("/v2/rerank", "2", "Sort documents by relevance (Cohere v2)."),
        _endpoint("/rerank", None, "Sort documents by relevance (Infinity, vLLM)."),
    )

    def fault(self, fault: Fault) -> Reply:
        body = {"message": fault.message, "error": _wire.error(fault)}
        return _wire.write(body, fault.status, _wire.fault_headers(fault))


PLUGIN = Rerank()
