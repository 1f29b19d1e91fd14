"""SIE's wire types, and its options, which may hold anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
from msgspec import Meta

from omnivec.core.errors import BadRequest
from omnivec.core.nouns import Kind, Overflow
from omnivec.core.quantise import DTYPES
from omnivec.dialects import _wire

Share = Annotated[float, Meta(ge=0, le=1)]


class SieItem(msgspec.Struct, kw_only=True):
    """One thing to encode, to score or to extract from."""

    id: Annotated[str | None, Meta(description="Comes back beside the answer.")] = None
    text: Annotated[str | None, Meta(examples=["Hello, world!"])] = None
    images: Annotated[
        list[Any] | None, Meta(description="Bytes, or base64 in JSON; each also as {data, format}.")
    ] = None
    audio: Annotated[Any, Meta(description="Not read by any model here.")] = None
    video: Annotated[Any, Meta(description="Not read by any model here.")] = None
    document: Annotated[Any, Meta(description="Not read by any model here yet.")] = None


class SieEncodeParams(msgspec.Struct, kw_only=True):
    """Wishes for the whole request."""

    output_types: Annotated[
        list[str] | None,
        Meta(description='Of "dense", "sparse" and "multivector"; dense when absent, or what the '
             "model makes."),
    ] = None  # fmt: skip
    instruction: Annotated[str | None, Meta(description="The task in your own words.")] = None
    output_dtype: Annotated[
        str | None, Meta(description=f"One of {', '.join(DTYPES)}; float32 when absent.")
    ] = None
    is_query: Annotated[bool | None, Meta(description="As in options.")] = None
    options: Annotated[
        dict[str, Any] | None,
        Meta(description="profile, lora_id, is_query, normalize, dimensions, max_seq_length, "
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
    options: Annotated[
        dict[str, Any] | None,
        Meta(description="profile, raw_scores, score_mode (dense, sparse, colbert, hybrid), "
             "score_weights, max_seq_length, overflow_policy."),
    ] = None  # fmt: skip


class SieExtractParams(msgspec.Struct, kw_only=True):
    """What to look for."""

    labels: Annotated[
        list[str] | None,
        Meta(description="Yours for a zero-shot model; for others some of the model's own."),
    ] = None
    output_schema: Annotated[Any, Meta(description="Not read: no model here fills one in.")] = None
    instruction: Annotated[str | None, Meta(description="For models that follow one.")] = None
    threshold: Annotated[Share | None, Meta(description="What scores less is left out.")] = None
    options: Annotated[
        dict[str, Any] | None,
        Meta(description="profile, threshold, multi_label, hypothesis_template, top_k, "
        "max_seq_length, overflow_policy."),
    ] = None  # fmt: skip


class SieExtractRequest(msgspec.Struct, kw_only=True):
    """Items to find something in, classes for one."""

    items: list[SieItem]
    params: SieExtractParams | None = None


class SieDense(TypedDict):
    """One item's vector. Signs of `binary` come eight to a byte."""

    dims: Annotated[int, Meta(description="Its length before bits were packed.")]
    dtype: str
    values: list[float]


class SieSparse(TypedDict):
    """The places of a vector that are not 0."""

    dims: Annotated[int | None, Meta(description="The vocabulary; null where there is no end.")]
    dtype: str
    indices: list[int]
    values: list[float]


class SieMultivector(TypedDict):
    """A vector for each token."""

    token_dims: int
    num_tokens: int
    dtype: str
    values: list[list[float]]


class SieEncoded(TypedDict):
    """One item's vectors, of the types that were asked for; `id` where the item had one."""

    id: NotRequired[str]
    dense: NotRequired[SieDense]
    sparse: NotRequired[SieSparse]
    multivector: NotRequired[SieMultivector]


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


class SieClass(TypedDict):
    """A label that holds for an item."""

    label: str
    score: Annotated[float, Meta(description="0 to 1.")]


class SieExtracted(TypedDict):
    """What one item holds; all lists are always there, the best first."""

    id: str
    entities: list[dict[str, Any]]
    relations: list[dict[str, Any]]
    classifications: list[SieClass]
    objects: list[dict[str, Any]]
    data: dict[str, Any]


class SieExtractReply(TypedDict):
    """One entry for each item, in order."""

    model: str
    items: list[SieExtracted]
    usage: SieUsage


# ── options ──────────────────────────────────────────────────────────────────────────────


_SCORED: Mapping[str, Kind] = {"dense": "dense", "sparse": "sparse", "colbert": "multivector"}
_HYBRID = {"dense": 0.4, "sparse": 0.2, "colbert": 0.4}
_Weight = Annotated[float, Meta(ge=0, le=1e6)]


class Options:
    """`params.options`: anything may be there, and what is known must be of the right type."""

    def __init__(self, options: Mapping[str, Any] | None, place: str = "params.options") -> None:
        self._options = options or {}
        self._place = place

    def take(self, name: str, shape: Any, what: str) -> Any:
        """None when absent. Raises BadRequest, which says `what` is taken."""
        value = self._options.get(name)
        if value is None:
            return None
        try:
            return msgspec.convert(value, shape, strict=False)
        except msgspec.ValidationError:
            param = f"{self._place}.{name}"
            raise BadRequest(f"`{param}` must be {what}.", param=param) from None

    def weights(self) -> tuple[tuple[Kind, float], ...]:
        """`score_mode` and `score_weights`; a kind that the latter leave out has its usual weight.
        Raises BadRequest."""
        mode = self.take("score_mode", str, "a string")
        told = self.take("score_weights", dict[str, _Weight], "numbers of at least 0 by kind")
        mode = mode or ("hybrid" if told else None)
        if mode is None:
            return ()
        if mode not in (*_SCORED, "hybrid"):
            param = f"{self._place}.score_mode"
            words = ", ".join(_SCORED)
            raise BadRequest(f"`{param}` must be one of {words}, hybrid.", param=param)
        weights = {**_HYBRID, **(told or {})} if mode == "hybrid" else {mode: 1.0}
        counted = tuple((_SCORED[name], weights[name]) for name in _SCORED if weights.get(name))
        if not counted or not weights.keys() <= _SCORED.keys():
            param = f"{self._place}.score_weights"
            raise BadRequest(
                f"`{param}` must give one of {', '.join(_SCORED)} a weight above 0.", param=param
            )
        return counted

    def overflow(self) -> Overflow | None:
        word = self.take("overflow_policy", str, "a string")
        if word is None:
            return None
        if word.lower() not in _OVERFLOWS:
            param = f"{self._place}.overflow_policy"
            raise BadRequest(f'`{param}` must be "truncate" or "error".', param=param)
        return _OVERFLOWS[word.lower()]

    def adapter(self) -> str | None:
        """SIE reads `lora_id`; some of its examples write `lora`."""
        found = self.take("lora_id", str, "a string") or self.take("lora", str, "a string")
        return found or None

    def unheeded(self) -> list[str]:
        """Those that SIE would follow and nothing here does."""
        return [name for name in _UNHEEDED if self._options.get(name) is not None]

    def window(self) -> int | None:
        tokens = self.take("max_seq_length", int, "an integer")
        return _wire.window(tokens, f"{self._place}.max_seq_length")


_UNHEEDED = ("pooling", "query_template", "doc_template", "default_instruction", "muvera")

_OVERFLOWS: Mapping[str, Overflow] = {
    "truncate": "truncate",
    "error": "refuse",
    "reject": "refuse",
    "refuse": "refuse",
}
