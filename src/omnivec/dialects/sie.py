"""SIE, the Superlinked Inference Engine: items in, msgpack or JSON out, errors always JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, cast

import numpy as np
from msgspec import Meta

from omnivec.core.errors import BadRequest, Fault, Unsupported
from omnivec.core.nouns import (
    Array,
    Blob,
    Call,
    Dtype,
    Encode,
    Extract,
    Findings,
    Image,
    Item,
    Kind,
    Output,
    Reply,
    Result,
    Score,
    Task,
    Text,
    Vectors,
)
from omnivec.core.outline import VALUES
from omnivec.core.quantise import DTYPES
from omnivec.core.seams import Endpoint
from omnivec.dialects import _media, _models, _msgpack, _wire
from omnivec.dialects._sie import (
    Options,
    Share,
    SieClass,
    SieDense,
    SieEncoded,
    SieEncodeParams,
    SieEncodeReply,
    SieEncodeRequest,
    SieExtracted,
    SieExtractParams,
    SieExtractReply,
    SieExtractRequest,
    SieItem,
    SieMultivector,
    SieScored,
    SieScoreReply,
    SieScoreRequest,
    SieSparse,
    SieTiming,
    SieUsage,
)
from omnivec.dialects._sie_faults import refuse

# ── reading ──────────────────────────────────────────────────────────────────────────────


def _read(call: Call, shape: type[Any]) -> Any:
    if _msgpack.is_msgpack(call.headers.get("content-type", "")):
        return _msgpack.read(call.body, shape, max(2 * VALUES, 8 * call.limits.items))
    return _wire.read(call, shape)


def _items(items: Sequence[SieItem], instruction: str | None, most: int) -> tuple[Item, ...]:
    _wire.check_count(len(items), most, "items")
    return tuple(_item(item, f"items[{i}]", instruction) for i, item in enumerate(items))


def _item(item: SieItem, field: str, instruction: str | None = None) -> Item:
    for name in ("audio", "video", "document"):
        if getattr(item, name):
            raise Unsupported(f"No model here reads {name}; send `text`.", param=f"{field}.{name}")
    pictures = [
        Image(_picture(one, f"{field}.images[{i}]")) for i, one in enumerate(item.images or ())
    ]
    if item.text is None and not pictures:
        raise BadRequest(f"`{field}.text` or images are required.", param=f"{field}.text")
    texts = () if item.text is None else (Text(item.text),)
    return Item((*texts, *pictures), instruction, item.id)


def _picture(given: Any, field: str) -> Blob:
    """Bytes, in JSON as base64: as they are, or as `data` of an object. Its `format` is not
    asked, because clients say "jpeg" whatever it is."""
    data = given.get("data") if isinstance(given, dict) else given
    if isinstance(data, bytes):
        return Blob(data)
    if not isinstance(data, str):
        raise BadRequest(f"`{field}.data` must be bytes, or base64 in JSON.", param=field)
    return _media.unpack(data, field)


def _profile(options: Options) -> str | None:
    """The id may name one as well, as `model:profile`: the engine knows which models have it."""
    name: str | None = options.take("profile", str, "a string")
    return name or None


def decode_encode(call: Call) -> Task:
    request = _read(call, SieEncodeRequest)
    params = request.params or SieEncodeParams()
    options = Options(params.options)
    instruction = params.instruction or options.take("instruction", str, "a string")
    is_query = options.take("is_query", bool, "true or false")
    normalize = options.take("normalize", bool, "true or false")
    call.memo[_IGNORED] = options.unheeded()
    return Encode(
        items=_items(request.items, _wire.given(instruction), call.limits.items),
        model=call.params["id"],
        role=_role(params.is_query if is_query is None else is_query),
        dims=options.take("dimensions", Annotated[int, Meta(ge=1)], "an integer of at least 1"),
        normalize=normalize,
        overflow=options.overflow(),
        max_tokens=options.window(),
        dtype=_dtype(params.output_dtype or options.take("output_dtype", str, "a string")),
        kinds=_kinds(params.output_types or options.take("output_types", list[str], "strings")),
        adapter=options.adapter(),
        profile=_profile(options),
        yields=True,
        prefixes=True,
    )


_KINDS: tuple[Kind, ...] = ("dense", "sparse", "multivector")


def _kinds(wanted: Sequence[str] | None) -> tuple[Kind, ...]:
    if not wanted:
        return ()
    if not set(wanted) <= set(_KINDS):
        words = ", ".join(_KINDS)
        raise BadRequest(
            f"`params.output_types` must be some of {words}.", param="params.output_types"
        )
    return tuple(kind for kind in _KINDS if kind in wanted)


def _role(is_query: bool | None) -> str | None:
    return None if is_query is None else "query" if is_query else "document"


def _dtype(word: str | None) -> Dtype | None:
    if word and word not in DTYPES:
        raise BadRequest(
            f"`params.output_dtype` must be one of {', '.join(DTYPES)}.",
            param="params.output_dtype",
        )
    return cast("Dtype | None", word or None)


def decode_score(call: Call) -> Task:
    request = _read(call, SieScoreRequest)
    options = Options(request.options, "options")
    weights = options.weights()
    call.memo[_RAW] = raw = options.take("raw_scores", bool, "true or false")
    call.memo[_IGNORED] = options.unheeded()
    return Score(
        query=_item(request.query, "query", _wire.given(request.instruction)),
        items=_items(request.items, None, call.limits.items),
        model=call.params["id"],
        profile=_profile(options),
        raw=bool(weights) if raw is None else raw,  # a mode is named for the score it gives
        overflow=options.overflow(),
        max_tokens=options.window(),
        adapter=options.adapter(),
        weights=weights,
    )


def decode_extract(call: Call) -> Task:
    request = _read(call, SieExtractRequest)
    params = request.params or SieExtractParams()
    options = Options(params.options)
    threshold = options.take("threshold", Share, "a number from 0 to 1")
    template = options.take("hypothesis_template", str, "a string")
    instruction = params.instruction or options.take("instruction", str, "a string")
    if options.adapter():
        raise Unsupported("Adapters are applied to vectors and scores only.", param="adapter")
    schema = () if params.output_schema is None else ("output_schema",)
    call.memo[_IGNORED] = [*options.unheeded(), *schema]
    return Extract(
        items=_items(request.items, _wire.given(instruction), call.limits.items),
        model=call.params["id"],
        profile=_profile(options),
        labels=tuple(params.labels or options.take("labels", list[str], "strings") or ()),
        threshold=params.threshold if threshold is None else threshold,
        multi_label=options.take("multi_label", bool, "true or false"),
        template=_wire.given(template),
        top=options.take("top_k", Annotated[int, Meta(ge=1)], "an integer of at least 1"),
        overflow=options.overflow(),
        max_tokens=options.window(),
    )


# ── writing ──────────────────────────────────────────────────────────────────────────────


def _write(call: Call, value: Mapping[str, Any], *long: str) -> Reply:
    """msgpack unless JSON, and not msgpack, is asked for: `*/*` is no wish for JSON."""
    headers = {"x-sie-units-input-tokens": str(value.get("usage", {}).get("input_tokens", 0))}
    if version := _VERSION.match(call.headers.get("x-sie-sdk-version", "")):
        # clients warn about a server of another minor version; what they speak is answered
        headers["x-sie-server-version"] = version[0]
    if ignored := call.memo.get(_IGNORED):
        headers["x-omnivec-ignored"] = ", ".join(ignored)
    if not _wants_json(call):
        return Reply(_msgpack.write(value), 200, {**_MSGPACK, **headers})
    reply = _wire.write_lists(value, *long)
    return Reply(reply.body, reply.status, {**reply.headers, **headers})


_IGNORED, _RAW = "ignored", "raw"
_VERSION = re.compile(r"\d{1,4}\.\d{1,4}(\.\d{1,4})?")
_MSGPACK = MappingProxyType({"content-type": _msgpack.TYPE})


def encode_encode(call: Call, task: Task, result: Result) -> Reply:
    assert isinstance(task, Encode)  # noqa: S101 - `decode_encode` makes nothing else
    packed = not _wants_json(call)
    items: list[SieEncoded] = []
    for item, output in zip(task.items, result.outputs, strict=True):
        assert isinstance(output, Vectors)  # noqa: S101 - what an Encode gives
        entry = _encoded(output, result, packed=packed)
        items.append(entry if item.id is None else {"id": item.id, **entry})
    timing = result.timing
    reply = SieEncodeReply(
        model=task.model or result.card.name,
        items=items,
        timing=SieTiming(
            total_ms=timing.total * 1e3,
            queue_ms=timing.queue * 1e3,
            tokenization_ms=timing.prepare * 1e3,
            inference_ms=timing.inference * 1e3,
            postprocessing_ms=None,
        ),
        usage=SieUsage(input_tokens=result.usage.tokens),
    )
    return _write(call, cast("Mapping[str, Any]", reply), "items")


def _wants_json(call: Call) -> bool:
    accepted = call.headers.get("accept", "")
    return "application/json" in accepted.lower() and not _msgpack.is_msgpack(accepted)


def _encoded(vectors: Vectors, result: Result, *, packed: bool) -> SieEncoded:
    def written(array: Array) -> Any:
        return _msgpack.pack_array(array) if packed else array

    dtype = result.dtype
    name = "binary" if dtype == "ubinary" else dtype
    entry = SieEncoded()
    if vectors.dense is not None:
        row = _wire.row(vectors.dense) if dtype == "float32" else vectors.dense
        entry["dense"] = SieDense(dims=result.dims or 0, dtype=name, values=written(row))
    if (sparse := vectors.sparse) is not None:
        half = dtype == "float16"  # the one type that changes sparse values
        entry["sparse"] = SieSparse(
            dims=result.card.sparse_dims,
            dtype="float16" if half else "float32",
            indices=written(sparse.indices.astype(np.int32, copy=False)),
            values=written(sparse.values.astype(np.float16) if half else sparse.values),
        )
    if (rows := vectors.multivector) is not None:
        entry["multivector"] = SieMultivector(
            token_dims=result.card.token_dims or 0,
            num_tokens=len(rows),
            dtype=name,
            values=written(rows),
        )
    return entry


def encode_score(call: Call, task: Task, result: Result) -> Reply:
    assert isinstance(task, Score)  # noqa: S101 - `decode_score` makes nothing else
    # vectors are compared there without an end at 0 or 1; and a mode's score is the weighted sum,
    # where the engine's is the mean
    compared = call.memo.get(_RAW) is None and result.card.scoring != "cross-encoder"
    whole = math.fsum(weight for _, weight in task.weights) if task.weights and task.raw else 1.0
    scores = [
        SieScored(item_id=_named(task.items[index], index), score=score * whole, rank=rank)
        for rank, (index, score) in enumerate(
            _wire.ranked(result, raw=task.raw or compared, top=None)
        )
    ]
    reply = SieScoreReply(
        model=task.model or result.card.name,
        query_id=task.query.id,
        scores=scores,
        usage=SieUsage(input_tokens=result.usage.tokens),
    )
    return _write(call, cast("Mapping[str, Any]", reply), "scores")


def _named(item: Item, index: int) -> str:
    return f"item-{index}" if item.id is None else item.id


def encode_extract(call: Call, task: Task, result: Result) -> Reply:
    assert isinstance(task, Extract)  # noqa: S101 - `decode_extract` makes nothing else
    items = [
        _extracted(_named(item, index), output)
        for index, (item, output) in enumerate(zip(task.items, result.outputs, strict=True))
    ]
    reply = SieExtractReply(
        model=task.model or result.card.name,
        items=items,
        usage=SieUsage(input_tokens=result.usage.tokens),
    )
    return _write(call, cast("Mapping[str, Any]", reply), "items")


def _extracted(name: str, output: Output) -> SieExtracted:
    assert isinstance(output, Findings)  # noqa: S101 - what an Extract gives
    classes = [SieClass(label=one.label, score=one.score) for one in output.classes]
    return SieExtracted(
        id=name, entities=[], relations=[], classifications=classes, objects=[], data={}
    )


class Sie:
    name = "sie"
    prefixes = ("",)
    endpoints = (
        Endpoint(
            method="POST",
            path="/v1/encode/{id:path}",
            decode=decode_encode,
            encode=encode_encode,
            summary="Turn items into vectors (SIE).",
            request=SieEncodeRequest,
            response=SieEncodeReply,
            example={"items": [{"text": "Hello, world!"}]},
            counted="encode",
            items="items",
            packed=_msgpack.TYPE,
        ),
        Endpoint(
            method="POST",
            path="/v1/score/{id:path}",
            decode=decode_score,
            encode=encode_score,
            summary="Sort items by relevance (SIE).",
            request=SieScoreRequest,
            response=SieScoreReply,
            example={
                "query": {"text": "What is machine learning?"},
                "items": [
                    {"id": "doc-1", "text": "ML uses algorithms to learn from data."},
                    {"id": "doc-2", "text": "The weather is sunny today."},
                ],
            },
            counted="score",
            items="items",
            packed=_msgpack.TYPE,
        ),
        Endpoint(
            method="POST",
            path="/v1/extract/{id:path}",
            decode=decode_extract,
            encode=encode_extract,
            summary="Classify items (SIE).",
            request=SieExtractRequest,
            response=SieExtractReply,
            example={
                "items": [{"text": "The match ended in a draw after extra time."}],
                "params": {"labels": ["sports", "politics", "cooking"]},
            },
            counted="extract",
            items="items",
            packed=_msgpack.TYPE,
        ),
        Endpoint(
            method="GET",
            path="/v1/models/{id:path}",
            decode=_models.decode_model,
            encode=_models.encode_model,
            summary="Describe one model.",
            response=_models.ModelEntry,
            own=True,  # the answer is OpenAI's; that there is no such model is told as SIE does
        ),
    )

    def fault(self, fault: Fault) -> Reply:
        return refuse(fault)


PLUGIN = Sie()
