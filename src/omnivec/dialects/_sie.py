"""SIE's wire types: what its clients send and read."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
from msgspec import Meta

from omnivec.core.quantise import DTYPES


class SieItem(msgspec.Struct, kw_only=True):
    """One thing to encode, to score or to extract from."""

    id: Annotated[str | None, Meta(description="Comes back beside the answer.")] = None
    text: Annotated[str | None, Meta(examples=["Hello, world!"])] = None
    images: Annotated[Any, Meta(description="Not read by any model here yet.")] = None


class SieEncodeParams(msgspec.Struct, kw_only=True):
    """Wishes for the whole request."""

    output_types: Annotated[
        list[str] | None, Meta(description='Of "dense"; that alone when absent.')
    ] = None
    instruction: Annotated[str | None, Meta(description="The task in your own words.")] = None
    output_dtype: Annotated[
        str | None, Meta(description=f"One of {', '.join(DTYPES)}; float32 when absent.")
    ] = None
    is_query: Annotated[bool | None, Meta(description="As in options.")] = None
    options: Annotated[
        dict[str, Any] | None,
        Meta(description="profile, is_query, normalize, dimensions, max_seq_length, "
             "overflow_policy, instruction, output_types, output_dtype."),
    ] = None  # fmt: skip


class SieEncodeRequest(msgspec.Struct, kw_only=True):
    """Items to turn into vectors."""

    items: list[SieItem]
    params: SieEncodeParams | None = None


class SieScoreRequest(msgspec.Struct, kw_only=True):
    """Items to sort by their relevance to a query."""

    query: SieItem
    items: list[SieItem]
    instruction: str | None = None
    options: dict[str, Any] | None = None


class SieExtractParams(msgspec.Struct, kw_only=True):
    """What to look for."""

    labels: list[str] | None = None
    output_schema: Any = None
    instruction: str | None = None
    threshold: float | None = None
    options: dict[str, Any] | None = None


class SieExtractRequest(msgspec.Struct, kw_only=True):
    """Items to extract entities, relations or classes from."""

    items: list[SieItem]
    params: SieExtractParams | None = None


class SieDense(TypedDict):
    """One item's vector. Signs of `binary` come eight to a byte."""

    dims: Annotated[int, Meta(description="Its length before bits were packed.")]
    dtype: str
    values: list[float]


class SieEncoded(TypedDict):
    """One item's vectors; `id` where the item had one."""

    id: NotRequired[str]
    dense: NotRequired[SieDense]


class SieTiming(TypedDict):
    """Milliseconds."""

    total_ms: float
    queue_ms: float
    tokenization_ms: float
    inference_ms: float
    postprocessing_ms: float | None


class SieUsage(TypedDict):
    """Tokens of the model that answered."""

    input_tokens: int


class SieEncodeReply(TypedDict):
    """One entry for each item, in order."""

    model: str
    items: list[SieEncoded]
    timing: SieTiming
    usage: SieUsage


class SieScored(TypedDict):
    """One item's score."""

    item_id: Annotated[str, Meta(description='The item\'s id, or "item-" and its place.')]
    score: float
    rank: Annotated[int, Meta(description="0 is the best.")]


class SieScoreReply(TypedDict):
    """The items by their scores, best first, equal ones in the request's order."""

    model: str
    query_id: str | None
    scores: list[SieScored]
    usage: SieUsage


class SieExtracted(TypedDict):
    """What one item holds; all lists are always there."""

    id: str
    entities: list[dict[str, Any]]
    relations: list[dict[str, Any]]
    classifications: list[dict[str, Any]]
    objects: list[dict[str, Any]]
    data: dict[str, Any]


class SieExtractReply(TypedDict):
    """One entry for each item, in order."""

    model: str
    items: list[SieExtracted]
