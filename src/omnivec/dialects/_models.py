"""One model as the lists of models tell of it, the same in every dialect."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from omnivec.core.nouns import Call, Card, Describe, Kind, Reply, Result, State, Task, Wishes
from omnivec.dialects import _wire


class ProfileEntry(TypedDict):
    """A named set of wishes, in SIE's words."""

    is_default: bool
    output_types: Annotated[list[str], Meta(description="What it makes where nothing is said.")]
    output_similarity: Annotated[
        dict[str, str],
        Meta(description="How two of a type are compared.", examples=[{"dense": "cosine"}]),
    ]


class LastError(TypedDict):
    """Why a model is not loaded. The server's log says more."""

    code: Annotated[str, Meta(examples=["NOT_FOUND"])]
    message: str
    attempts: int
    permanent: Annotated[bool, Meta(description="Nobody will try again by itself.")]


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
    profiles: dict[str, ProfileEntry]
    tasks: Annotated[list[str], Meta(description='Of "encode", "score", "extract".')]
    capabilities: Annotated[list[str], Meta(description='Of "embed", "rerank", "classify".')]
    state: State
    last_error: Annotated[LastError | None, Meta(description="Null but in state failed.")]
    scoring: Annotated[str, Meta(description='How "score" is answered, "cosine" for one.')]
    labels: Annotated[list[str], Meta(description="A classifier's own.")]
    zero_shot: Annotated[bool, Meta(description="Whether it classifies by labels of yours.")]
    architecture: str
    pooling: str
    prompts: Annotated[list[str], Meta(description="Names that prompt_name takes.")]
    aliases: list[str]
    adapters: Annotated[list[str], Meta(description="LoRA adapters, by name.")]
    revision: str | None
    backend: Annotated[str, Meta(description="The runtime that holds the model open.")]
    device: str
    dtype: str
    stats: Annotated[dict[str, int], Meta(description="Empty; Infinity's client wants it.")]


_CAPABILITIES = {"encode": "embed", "score": "rerank", "extract": "classify"}
_OUTPUTS = {"score": "score", "extract": "json"}
_SIMILARITY: dict[Kind, str] = {"dense": "cosine", "sparse": "dot", "multivector": "maxsim"}
_WORDS = {
    "GATED": "The model's files are for those who were given access.",
    "NOT_FOUND": "The model's files were not found.",
    "OOM": "There was not enough memory for the model.",
    "NETWORK": "The model's files could not be downloaded.",
    "DEPENDENCY": "Something that the model needs is not installed.",
    "UNKNOWN": "The model could not be loaded; the server's log says why.",
}
_PASSING = ("OOM", "NETWORK")  # causes after which it is tried again


def decode_model(call: Call) -> Task:
    return Describe(call.params["id"])


def encode_model(_call: Call, _task: Task, result: Result) -> Reply:
    return _wire.write(model_entry(result.cards[0]))


def model_entry(card: Card) -> ModelEntry:
    """`Card.reason` stays here: it may name files of this machine."""
    return ModelEntry(
        id=card.name,
        object="model",
        created=card.created,
        owned_by="infinity",  # its client takes no other word; whoever else reads it takes any
        name=card.name,
        inputs=list(card.modalities),
        outputs=[*card.kinds, *(_OUTPUTS[task] for task in card.tasks if task in _OUTPUTS)],
        dims=_dims(card),
        dimensions=card.dims,
        loaded=card.state == "loaded",
        max_sequence_length=card.max_tokens,
        max_model_len=card.max_tokens,
        profiles=_profiles(card),
        tasks=list(card.tasks),
        capabilities=[_CAPABILITIES[task] for task in card.tasks],
        state=card.state,
        last_error=_last_error(card),
        scoring=card.scoring,
        labels=list(card.labels),
        zero_shot=card.zero_shot,
        architecture=card.architecture,
        pooling=card.pooling,
        prompts=sorted(card.prompts),
        aliases=list(card.aliases),
        adapters=list(card.adapters),
        revision=card.revision,
        backend=card.runtime,
        device=card.device,
        dtype=card.dtype,
        stats={},
    )


def _dims(card: Card) -> dict[str, int]:
    widths = {"dense": card.dims, "sparse": card.sparse_dims, "multivector": card.token_dims}
    return {kind: width for kind in card.kinds if (width := widths[kind]) is not None}


def _profiles(card: Card) -> dict[str, ProfileEntry]:
    named = {"default": Wishes(), **card.profiles}
    return {name: _profile(name, wishes, card) for name, wishes in named.items()}


def _profile(name: str, wishes: Wishes, card: Card) -> ProfileEntry:
    kinds = wishes.kinds or (("dense",) if "dense" in card.kinds else card.kinds[:1])
    return ProfileEntry(
        is_default=name == "default",
        output_types=list(kinds),
        output_similarity={kind: _SIMILARITY[kind] for kind in kinds},
    )


def _last_error(card: Card) -> LastError | None:
    if card.state != "failed":
        return None
    code = card.cause if card.cause in _WORDS else "UNKNOWN"
    return LastError(
        code=code,
        message=_WORDS[code],
        attempts=max(1, card.attempts),
        permanent=code not in _PASSING,
    )
