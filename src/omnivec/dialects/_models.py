"""One model as the lists of models tell of it, the same in every dialect."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from omnivec.core.nouns import Card


class ModelEntry(TypedDict):
    """One model, in words that OpenAI's, SIE's and Infinity's clients each find theirs in."""

    id: Annotated[str, Meta(examples=["sentence-transformers/all-MiniLM-L6-v2"])]
    object: Literal["model"]
    created: Annotated[int, Meta(description="Unix seconds.")]
    owned_by: str
    name: Annotated[str, Meta(description="The same as id.")]
    inputs: Annotated[list[str], Meta(description='Of "text", "image".')]
    outputs: Annotated[
        list[str], Meta(description='Of "dense", "sparse", "multivector", "score", "json".')
    ]
    dims: Annotated[dict[str, int], Meta(examples=[{"dense": 384}])]
    dimensions: Annotated[int | None, Meta(description="The length of a whole vector.")]
    loaded: bool
    max_sequence_length: Annotated[int | None, Meta(description="In tokens.")]
    max_model_len: Annotated[int | None, Meta(description="The same, as vLLM calls it.")]
    profiles: dict[str, dict[str, bool]]
    tasks: Annotated[list[str], Meta(description='Of "encode", "score", "extract".')]
    capabilities: Annotated[list[str], Meta(description='Of "embed", "rerank", "classify".')]
    state: Literal["available", "loading", "loaded", "unloading", "failed"]
    scoring: Annotated[str, Meta(description='How "score" is answered, "cosine" for one.')]
    labels: Annotated[list[str], Meta(description="A classifier's own.")]
    zero_shot: Annotated[bool, Meta(description="Whether it classifies by labels of yours.")]
    architecture: str
    pooling: str
    prompts: Annotated[list[str], Meta(description="Names that prompt_name takes.")]
    aliases: list[str]
    revision: str | None
    backend: Annotated[str, Meta(description="The runtime that holds the model open.")]
    device: str
    dtype: str
    stats: Annotated[dict[str, int], Meta(description="Empty; Infinity's client wants it.")]


_CAPABILITIES = {"encode": "embed", "score": "rerank", "extract": "classify"}
_OUTPUTS = {"score": "score", "extract": "json"}


def model_entry(card: Card) -> ModelEntry:
    """`Card.reason` stays here: it may name files of this machine."""
    return ModelEntry(
        id=card.name,
        object="model",
        created=card.created,
        owned_by="omnivec",
        name=card.name,
        inputs=list(card.modalities),
        outputs=[*card.kinds, *(_OUTPUTS[task] for task in card.tasks if task in _OUTPUTS)],
        dims=_dims(card),
        dimensions=card.dims,
        loaded=card.state == "loaded",
        max_sequence_length=card.max_tokens,
        max_model_len=card.max_tokens,
        profiles={"default": {"is_default": True}},
        tasks=list(card.tasks),
        capabilities=[_CAPABILITIES[task] for task in card.tasks],
        state=card.state,
        scoring=card.scoring,
        labels=list(card.labels),
        zero_shot=card.zero_shot,
        architecture=card.architecture,
        pooling=card.pooling,
        prompts=sorted(card.prompts),
        aliases=list(card.aliases),
        revision=card.revision,
        backend=card.runtime,
        device=card.device,
        dtype=card.dtype,
        stats={},
    )


def _dims(card: Card) -> dict[str, int]:
    widths = {"dense": card.dims, "sparse": card.sparse_dims, "multivector": card.token_dims}
    return {kind: width for kind in card.kinds if (width := widths[kind]) is not None}
