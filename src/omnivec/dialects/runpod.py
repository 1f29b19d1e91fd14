"""The RunPod Infinity worker's job: what stands under `input`, and what under `output`.

A job is embeddings or, where it has a query, a rerank. Its own path, /job, answers one at once;
the queue's paths (server/jobs.py) hand theirs over here, and a job that names an `openai_route`
to the dialect that has that route.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, NotRequired, TypedDict

import msgspec
from msgspec import Meta

from omnivec.core import errors
from omnivec.core.errors import BadRequest, Fault, Unsupported
from omnivec.core.nouns import Call, Encode, Item, Reply, Result, Score, Task, Text
from omnivec.core.outputs import dense
from omnivec.core.seams import Endpoint
from omnivec.dialects import _wire

# ── wire types ───────────────────────────────────────────────────────────────────────────


class JobWishes(msgspec.Struct, kw_only=True):
    """Read at the top level and in a literal `extra_body`, which wins."""

    instruction: Annotated[
        str | None,
        Meta(description="The task in your own words, for models that follow one."),
    ] = None
    prompt_type: Annotated[
        str | None, Meta(description='"query" or "document".', examples=["query"])
    ] = None


class JobEmbeddingRequest(JobWishes, kw_only=True):
    """Texts to turn into vectors."""

    input: Annotated[
        str | list[str], Meta(description="A text or an array of texts.", examples=["Hello world"])
    ]
    model: _wire.ModelName = None
    dimensions: Annotated[int | None, Meta(description="Length of the vectors.")] = None
    encoding_format: Annotated[
        str | None, Meta(description='"float" or, for less than a third of the bytes, "base64".')
    ] = None
    extra_body: Annotated[JobWishes | None, Meta(description="The same wishes, nested.")] = None


class JobRerankRequest(JobWishes, kw_only=True):
    """Documents to sort by their relevance to a query."""

    query: Annotated[str, Meta(examples=["Which product has warranty coverage?"])]
    docs: list[str] | None = None
    documents: Annotated[list[str] | None, Meta(description="Another name of docs.")] = None
    model: _wire.ModelName = None
    return_docs: Annotated[
        bool | None, Meta(description="Answer with the documents; false when absent.")
    ] = None
    return_documents: Annotated[bool | None, Meta(description="Another name.")] = None
    top_n: Annotated[int | None, Meta(description="Only so many results, the best.")] = None
    top_k: Annotated[int | None, Meta(description="Another name of top_n.")] = None
    extra_body: Annotated[JobWishes | None, Meta(description="The same wishes, nested.")] = None


class JobEmbedding(TypedDict):
    object: Literal["embedding"]
    embedding: Annotated[list[float] | str, Meta(description="Numbers, or their base64.")]
    index: int


class JobEmbeddings(TypedDict):
    """One vector for each text, in order."""

    model: str
    object: Literal["list"]
    data: list[JobEmbedding]
    usage: _wire.Usage


class JobRank(TypedDict):
    relevance_score: Annotated[float, Meta(description="0 to 1, higher is more relevant.")]
    score: Annotated[float, Meta(description="The same number.")]
    index: Annotated[int, Meta(description="The document's place in the request.")]
    document: NotRequired[Annotated[str, Meta(description="Under return_docs.")]]


class JobRanking(TypedDict):
    """`results` are the worker's, the most relevant first; beside them stand `scores` in the
    order of the documents, or under return_docs the `docs` in the order of the results."""

    model: str
    results: list[JobRank]
    scores: NotRequired[list[float]]
    docs: NotRequired[list[str]]
    usage: _wire.Usage


# ── embeddings ───────────────────────────────────────────────────────────────────────────

_ROLES = {"query": "query", "document": "document", "passage": "document"}


def decode_embeddings(call: Call) -> Task:
    request = _read_embeddings(call)
    texts = [request.input] if isinstance(request.input, str) else request.input
    if not request.input:
        raise _nothing()
    _wire.check_count(len(texts), call.limits.items, "input")
    call.memo["packed"] = _wire.is_packed(request.encoding_format)
    instruction, kind = _wishes(request, request.extra_body)
    return Encode(
        items=tuple(Item((Text(text),), instruction) for text in texts),
        model=_wire.model_name(request.model),
        role=None if instruction else _role(kind),  # as the worker: its own words win
        dims=_dims(request.dimensions),
    )


def _read_embeddings(call: Call) -> JobEmbeddingRequest:
    try:
        return _wire.read(call, JobEmbeddingRequest)
    except BadRequest as fault:
        raise (
            _nothing() if fault.param == "input" and "required" in fault.message else fault
        ) from None


def _nothing() -> BadRequest:
    return BadRequest(
        "A job needs `input`, a text or an array of texts; or `query` and `docs`; or "
        "`openai_route`.",
        param="input",
    )


def _wishes(outer: JobWishes, nested: JobWishes | None) -> tuple[str | None, str | None]:
    """Instruction and prompt type; each from the inner place first."""
    places = (nested, outer) if nested else (outer,)
    instruction = next((one for place in places if (one := _wire.given(place.instruction))), None)
    kind = next((one for place in places if (one := _wire.given(place.prompt_type))), None)
    return instruction, kind


def _role(kind: str | None) -> str | None:
    if kind is None:
        return None
    if (role := _ROLES.get(kind.strip().lower())) is None:
        raise BadRequest('`prompt_type` must be "query" or "document".', param="prompt_type")
    return role


def _dims(dims: int | None) -> int | None:
    """OpenAI's field in Infinity's meaning, where 0 is all."""
    if dims is not None and dims < 0:
        raise Unsupported(
            "`dimensions` must be an integer from 1 to the length of the model's vectors.",
            param="dimensions",
        )
    return dims or None


def encode_embeddings(call: Call, task: Task, result: Result) -> Reply:
    written = _wire.pack if call.memo["packed"] else _wire.row
    data = [
        JobEmbedding(object="embedding", embedding=written(vector), index=i)
        for i, vector in enumerate(dense(result.outputs))
    ]
    name = task.model or result.card.name
    return _wire.write_lists(
        JobEmbeddings(model=name, object="list", data=data, usage=_wire.usage(result)), "data"
    )


# ── reranking ────────────────────────────────────────────────────────────────────────────

_FALSE = {b"", b"null", b'""', b"false", b"0", b"[]", b"{}"}


def is_rerank(fields: Mapping[str, msgspec.Raw]) -> bool:
    """As the worker: a query wins over an input, an empty one is none."""
    return bytes(fields.get("query", b"")).strip() not in _FALSE


def decode_rerank(call: Call) -> Task:
    request = _wire.read(call, JobRerankRequest)
    docs = request.docs if request.docs is not None else request.documents
    if docs is None:
        raise BadRequest("`docs` is required.", param="docs")
    _wire.check_count(len(docs), call.limits.items, "docs")
    echo = request.return_docs if request.return_docs is not None else request.return_documents
    top = request.top_n if request.top_n is not None else request.top_k
    call.memo["request"] = (_wire.check_top(top, "top_n"), bool(echo), docs)
    instruction, _ = _wishes(request, request.extra_body)
    return Score(
        query=Item((Text(_wire.check_query(request.query, "query")),), instruction),
        items=tuple(Item((Text(text),)) for text in docs),
        model=_wire.model_name(request.model),
    )


def encode_rerank(call: Call, task: Task, result: Result) -> Reply:
    top, echo, docs = call.memo["request"]
    ranks = _wire.ranked(result, raw=False, top=None)
    results = [JobRank(relevance_score=one, score=one, index=at) for at, one in ranks[:top]]
    reply = JobRanking(
        model=task.model or result.card.name, results=results, usage=_wire.usage(result)
    )
    if not echo:
        reply["scores"] = [score for _, score in sorted(ranks)]
        return _wire.write_lists(reply, "results", "scores")
    for rank in results:
        rank["document"] = docs[rank["index"]]
    reply["docs"] = [docs[rank["index"]] for rank in results]
    return _wire.write_lists(reply, "results", "docs")


# ── the dialect ──────────────────────────────────────────────────────────────────────────

# The worker knows one type of error; the others are vLLM's, whose envelope it is.
_TYPES: tuple[tuple[type[Fault], str], ...] = (
    (errors.NotFound, "NotFoundError"),
    (errors.Unauthorized, "AuthenticationError"),
    (errors.Forbidden, "PermissionDeniedError"),
    (errors.Overloaded, "RateLimitError"),
    (errors.Loading, "ServiceUnavailableError"),
    (errors.ModelFailed, "InternalServerError"),
)
_FIELDS = {"dims": "dimensions", "role": "prompt_type"}


class RunPod:
    """Its errors are outputs as others are: `{"object": "error", "message", …}`."""

    name = "runpod"
    prefixes = ("",)
    endpoints = (
        Endpoint(
            method="POST",
            path="/job",
            decode=decode_embeddings,
            encode=encode_embeddings,
            summary="Answer an embedding or a rerank job at once (RunPod).",
            request=JobEmbeddingRequest,
            response=JobEmbeddings,
            example={"input": ["Hello world"]},
            counted="embeddings",
            items="input",
        ),
        Endpoint(
            method="POST",
            path="/job",
            decode=decode_rerank,
            encode=encode_rerank,
            summary="Answer an embedding or a rerank job at once (RunPod).",
            request=JobRerankRequest,
            response=JobRanking,
            example={
                "query": "Which product has warranty coverage?",
                "docs": ["Product A has a 2-year warranty", "Product B is available in red"],
                "return_docs": True,
            },
            recognises=is_rerank,
            counted="rerank",
            items="docs",
        ),
    )

    def fault(self, fault: Fault) -> Reply:
        kind = next((name for known, name in _TYPES if isinstance(fault, known)), None)
        body = {
            "object": "error",
            "message": fault.message,
            "type": kind or "BadRequestError",
            "param": _wire.locate(fault.param, _FIELDS),
            "code": fault.status,
        }
        return _wire.write(body, fault.status, _wire.fault_headers(fault))


PLUGIN = RunPod()
