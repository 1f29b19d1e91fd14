"""Synesis 0.2: embeddings, reranking and similarity of texts and images, FastAPI's errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, NotRequired, TypedDict

import msgspec
import numpy as np
from msgspec import Meta

from omnivec.core.errors import BadRequest, Fault, ModelFailed, Unsupported
from omnivec.core.nouns import (
    Call,
    Describe,
    Encode,
    File,
    Image,
    Item,
    Part,
    Reply,
    Result,
    Score,
    Task,
    Text,
    Url,
)
from omnivec.core.outputs import dense
from omnivec.core.seams import Endpoint
from omnivec.dialects import _fastapi, _forms, _media, _models, _wire

# ── wire types ───────────────────────────────────────────────────────────────────────────

Dimension = Annotated[
    int | None,
    Meta(
        description="Length of the vectors: cut to this many numbers, then normalised again. "
        "64 to the model's own length; absent means the server's default.",
        examples=[128],
    ),
]


class Content(msgspec.Struct, kw_only=True):
    """A text, an image, or both; at least one of them."""

    text: Annotated[str | None, Meta(examples=["quantum computing basics"])] = None
    image: Annotated[
        str | None, Meta(description="A URL, a data: URI, or a path on the server.")
    ] = None


class InstructedContent(Content, kw_only=True):
    """A text, an image, or both, with the task they are embedded for."""

    instruction: Annotated[str | None, Meta(examples=["Represent this document for retrieval"])] = (
        None
    )


class SynesisEmbeddingRequest(msgspec.Struct, kw_only=True):
    """What to turn into vectors."""

    inputs: Annotated[list[InstructedContent], Meta(description="1 to max_batch_size items.")]
    dimension: Dimension = None
    normalize: Annotated[bool | None, Meta(description="Unit length; true when absent.")] = None
    model: _wire.ModelName = None


class SynesisRerankRequest(msgspec.Struct, kw_only=True):
    """Documents to sort by their relevance to a query."""

    query: Content
    documents: Annotated[list[Content], Meta(description="1 to max_batch_size documents.")]
    instruction: Annotated[str | None, Meta(examples=["Retrieve relevant images."])] = None
    top_n: Annotated[int | None, Meta(description="Absent means all.", examples=[2])] = None
    model: _wire.ModelName = None


class SimilarityRequest(msgspec.Struct, kw_only=True):
    """Two inputs to compare."""

    a: Content
    b: Content
    dimension: Dimension = None
    model: _wire.ModelName = None


class IndexedEmbedding(TypedDict):
    """One input's vector."""

    index: int
    embedding: list[float]


class Spent(TypedDict):
    elapsed_ms: Annotated[float, Meta(description="Time on the server, in milliseconds.")]
    truncated: NotRequired[
        Annotated[int, Meta(description="How many inputs were cut; absent when none was.")]
    ]


class SynesisUsage(Spent):
    """What was done."""

    input_count: int
    dimension: int


class SynesisEmbeddings(TypedDict):
    """One vector for each input, in order."""

    embeddings: list[IndexedEmbedding]
    usage: SynesisUsage


class EchoedContent(TypedDict, total=False):
    """The document that was ranked."""

    text: str
    image: str


class ScoredDocument(TypedDict):
    """One document's score."""

    index: int
    score: Annotated[float, Meta(description="Higher is more relevant.")]
    document: EchoedContent


class SynesisRerankUsage(Spent):
    """What was done."""

    query_count: int
    document_count: int
    returned_count: int


class SynesisRanking(TypedDict):
    """Documents, the most relevant first."""

    results: list[ScoredDocument]
    usage: SynesisRerankUsage


class Similarity(TypedDict):
    """How alike two inputs are."""

    score: Annotated[float, Meta(description="The cosine, -1 to 1.")]
    dimension: int


class SynesisModels(TypedDict):
    """Every model served."""

    object: Literal["list"]
    data: list[_models.ModelEntry]


# ── what is asked ────────────────────────────────────────────────────────────────────────

_LEAST = 64  # the seed's smallest dimension


def _dimension(given: int | None) -> int | None:
    if given is not None and given < _LEAST:
        raise Unsupported(
            f"`dimension` must be an integer from {_LEAST} to the length of the model's vectors.",
            param="dimension",
        )
    return given


def _parts(content: Content, field: str) -> tuple[Part, ...]:
    parts: list[Part] = [Text(content.text)] if content.text else []
    if where := content.image:
        parts.append(Image(_media.named(where)))
    if not parts:
        raise BadRequest(f"`{field}` must have `text`, `image` or both.", param=field)
    return tuple(parts)


# ── embeddings ───────────────────────────────────────────────────────────────────────────


def is_synesis_embeddings(fields: Mapping[str, msgspec.Raw]) -> bool:
    return "inputs" in fields and "input" not in fields


def decode_embeddings(call: Call) -> Task:
    request = _wire.read(call, SynesisEmbeddingRequest)
    _wire.check_count(len(request.inputs), call.limits.items, "inputs")
    return Encode(
        items=tuple(
            Item(_parts(content, f"inputs[{i}]"), _wire.given(content.instruction))
            for i, content in enumerate(request.inputs)
        ),
        model=_wire.model_name(request.model),
        dims=_dimension(request.dimension),
        normalize=request.normalize,
    )


def encode_embeddings(_call: Call, _task: Task, result: Result) -> Reply:
    vectors = dense(result.outputs)
    usage = SynesisUsage(input_count=len(vectors), dimension=len(vectors[0]), **_spent(result))
    embeddings = [
        IndexedEmbedding(index=i, embedding=_wire.row(vector)) for i, vector in enumerate(vectors)
    ]
    return _wire.write_lists(SynesisEmbeddings(embeddings=embeddings, usage=usage), "embeddings")


def _spent(result: Result) -> Spent:
    spent = Spent(elapsed_ms=round(result.timing.total * 1000, 3))
    if result.usage.truncated:
        spent["truncated"] = result.usage.truncated
    return spent


# ── rerank ───────────────────────────────────────────────────────────────────────────────


def is_synesis_rerank(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Its query is an object. Where the query was forgotten its documents tell, and that
    Synesis has no `model`, which the clients of other dialects always name."""
    query = bytes(fields.get("query", b"null")).strip()
    if query != b"null" or "model" in fields:
        return query.startswith(b"{")
    return bytes(fields.get("documents", b"")).lstrip(b"[ \t\r\n").startswith(b"{")


def decode_rerank(call: Call) -> Task:
    request = _wire.read(call, SynesisRerankRequest)
    call.memo["top"] = _wire.check_top(request.top_n, "top_n")
    _wire.check_count(len(request.documents), call.limits.items, "documents")
    return Score(
        query=Item(_parts(request.query, "query"), _wire.given(request.instruction)),
        items=tuple(
            Item(_parts(content, f"documents[{i}]")) for i, content in enumerate(request.documents)
        ),
        model=_wire.model_name(request.model),
    )


def encode_rerank(call: Call, task: Task, result: Result) -> Reply:
    assert isinstance(task, Score)  # noqa: S101 - `decode_rerank` makes nothing else
    ranked = _wire.ranked(result, raw=False, top=call.memo["top"])
    results = [
        ScoredDocument(index=i, score=score, document=_echo(task.items[i])) for i, score in ranked
    ]
    usage = SynesisRerankUsage(
        query_count=1,
        document_count=len(task.items),
        returned_count=len(results),
        **_spent(result),
    )
    return _wire.write_lists(SynesisRanking(results=results, usage=usage), "results")


def _echo(item: Item) -> EchoedContent:
    echo = EchoedContent()
    for part in item.parts:
        if isinstance(part, Text):
            echo["text"] = part.text
        elif isinstance(part, Image) and isinstance(part.source, Url):
            echo["image"] = part.source.url
        elif isinstance(part, Image) and isinstance(part.source, File):
            echo["image"] = part.source.path
    return echo


# ── similarity ───────────────────────────────────────────────────────────────────────────


def decode_similarity(call: Call) -> Task:
    request = _wire.read(call, SimilarityRequest)
    return Encode(
        items=(Item(_parts(request.a, "a")), Item(_parts(request.b, "b"))),
        model=_wire.model_name(request.model),
        dims=_dimension(request.dimension),
    )


def encode_similarity(_call: Call, _task: Task, result: Result) -> Reply:
    a, b = dense(result.outputs)
    cosine = float(np.dot(a.astype(np.float64), b.astype(np.float64)))
    if not np.isfinite(cosine):
        raise ModelFailed("The model gave a vector that is not finite.")
    score = max(-1.0, min(1.0, cosine))  # rounding can lead past 1
    return _wire.write(Similarity(score=score, dimension=len(a)))


# ── models ───────────────────────────────────────────────────────────────────────────────


def decode_models(_call: Call) -> Task:
    return Describe()


def encode_models(_call: Call, _task: Task, result: Result) -> Reply:
    data = [_models.model_entry(card) for card in result.cards]
    return _wire.write(SynesisModels(object="list", data=data))


# ── the dialect ──────────────────────────────────────────────────────────────────────────

_FIELDS = {"dims": "dimension", "kinds": "model"}


class Synesis:
    """`{"detail": ...}`: a list when the body is at fault, with 422, else a text."""

    name = "synesis"
    prefixes = ("",)
    endpoints = (
        Endpoint(
            method="POST",
            path="/v1/embeddings",
            decode=decode_embeddings,
            encode=encode_embeddings,
            summary="Turn texts and images into vectors (Synesis).",
            request=SynesisEmbeddingRequest,
            response=SynesisEmbeddings,
            example={"inputs": [{"text": "quantum computing basics"}], "dimension": 128},
            recognises=is_synesis_embeddings,
            counted="embeddings",
            items="inputs",
            form=_forms.synesis,
        ),
        Endpoint(
            method="POST",
            path="/v1/rerank",
            decode=decode_rerank,
            encode=encode_rerank,
            summary="Sort documents by relevance (Synesis).",
            request=SynesisRerankRequest,
            response=SynesisRanking,
            example={
                "query": {"text": "How do neural networks learn?"},
                "documents": [
                    {"text": "Deep learning uses gradient descent to minimise loss."},
                    {"text": "Photosynthesis turns sunlight into chemical energy."},
                ],
                "top_n": 1,
            },
            recognises=is_synesis_rerank,
            counted="rerank",
            items="documents",
        ),
        Endpoint(
            method="POST",
            path="/v1/similarity",
            decode=decode_similarity,
            encode=encode_similarity,
            summary="Compare two inputs (Synesis).",
            request=SimilarityRequest,
            response=Similarity,
            example={"a": {"text": "a photo of a cat"}, "b": {"text": "a picture of a kitten"}},
            counted="similarity",
            items=("a", "b"),
        ),
        Endpoint(
            method="GET",
            path="/models/v1/models",
            decode=decode_models,
            encode=encode_models,
            summary="List the models served (Synesis).",
            response=SynesisModels,
        ),
    )

    def fault(self, fault: Fault) -> Reply:
        headers = _wire.fault_headers(fault)
        if isinstance(fault, BadRequest | Unsupported):
            words = fault.message
            if fault.param == "dims":  # the engine's words, with this dialect's smallest
                words = words.replace(" 1 to ", f" {_LEAST} to ")
            entry = {**_fastapi.complaint(fault, _FIELDS), "msg": words}
            return _wire.write({"detail": [entry]}, Unsupported.status, headers)
        return _wire.write({"detail": fault.message}, fault.status, headers)


PLUGIN = Synesis()
