"""Every noun that two rooms share, in the order in which a request becomes them; steps.py has a
graph's.

    Call ─dialect→ Task ─engine→ Unit ─family→ Features ═batch═ runtime ─family→ Output
    ─engine→ Result ─dialect→ Reply

All are frozen. A dialect never puts one of these on the wire: it has structs of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from omnivec.core.outline import Outline

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float32]
Overflow: TypeAlias = Literal["truncate", "refuse"]
State: TypeAlias = Literal["available", "loading", "loaded", "unloading", "failed"]
Kind: TypeAlias = Literal["dense", "sparse", "multivector"]
Dtype: TypeAlias = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]


# ── the wire, unread ─────────────────────────────────────────────────────────────────────


class Clip(msgspec.Struct, frozen=True):
    """Which frames of a video; `start` and `duration` in seconds, None to the end.

    Within that window, what comes first of: `indexes`, counted from the video's start; `fps`
    frames a second; every `interval`-th; `frames` of them evenly, 0 for all.
    """

    start: float = 0.0
    duration: float | None = None
    indexes: tuple[int, ...] = ()
    fps: float | None = None
    interval: int | None = None
    frames: int = 64


class Limits(msgspec.Struct, frozen=True):
    """What one request may ask, from the settings. `dims` is the vectors' length when a
    request names none (None: as long as the model makes them), `clip` what it leaves open of
    a video."""

    items: int = 2048
    dims: int | None = None
    clip: Clip = Clip()


class Call(msgspec.Struct, frozen=True):
    """What arrived: a method, a path without its prefix, and a body that nobody has read.

    `memo` is where a dialect's `decode` leaves what its `encode` needs and the task does not
    carry, so that no body is read twice. `outline` is there when the body is large: it must
    not be decoded in one step then.
    """

    method: str
    path: str
    body: bytes = b""
    params: Mapping[str, str] = {}  # from the path's template
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}  # names in lower case
    limits: Limits = Limits()
    memo: dict[str, Any] = {}
    outline: Outline | None = None


class Reply(msgspec.Struct, frozen=True):
    """What leaves."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({"content-type": "application/json"})


# ── the task ─────────────────────────────────────────────────────────────────────────────


class Url(msgspec.Struct, frozen=True, tag=True):
    url: str


class Blob(msgspec.Struct, frozen=True, tag=True):
    data: bytes


class File(msgspec.Struct, frozen=True, tag=True):
    path: str


Source: TypeAlias = Url | Blob | File


class Text(msgspec.Struct, frozen=True, tag=True):
    text: str


class Tokens(msgspec.Struct, frozen=True, tag=True):
    """Token ids. `vocabulary` None means the server's setting (decision 16)."""

    ids: tuple[int, ...]
    vocabulary: Literal["cl100k", "model"] | None = None


class Image(msgspec.Struct, frozen=True, tag=True):
    source: Source


class Video(msgspec.Struct, frozen=True, tag=True):
    source: Source
    clip: Clip = Clip()


class Manifest(msgspec.Struct, frozen=True, tag=True):
    """Frames that a JSON file on the server lists: one output for each of its entries."""

    source: File


class Pixels(msgspec.Struct, frozen=True):
    """A picture as it is to be seen: upright, opaque; `rgb` uint8 [H, W, 3]."""

    rgb: Array


class Film(msgspec.Struct, frozen=True):
    """Frames of a video in their order; `times` are seconds from its start."""

    frames: tuple[Pixels, ...]
    times: tuple[float, ...]


Loaded: TypeAlias = Text | Tokens | Pixels | Film
"""A part when its media were fetched and decoded."""
Part: TypeAlias = Loaded | Image | Video | Manifest


class Item(msgspec.Struct, frozen=True):
    """One thing to embed or to score. `instruction` is the caller's own task description."""

    parts: tuple[Part, ...]
    instruction: str | None = None
    id: str | None = None


class Encode(msgspec.Struct, frozen=True, tag=True):
    """Turn each item into a vector.

    `model` None means the server's default for this task. `role` is "query", "document" or
    the name of one of the model's prompts. `dims` cuts a Matryoshka vector (None: all).
    `overflow` None means the server's own setting; `max_tokens` can only lower the window.
    `dtype` is what the numbers are rounded to at the end (core/quantise.py). `kinds` are the
    vectors that are wanted, all of them from one pass through the model; empty means dense
    ones, or else what the model makes. `profile` names one of the model's (`Card.profiles`),
    which says what the request leaves open; where `yields` is set, its `kinds` win over the
    request's. `adapter` is one of the model's, by its name. `each_frame`: a Video part gives
    one output for each frame. `prefixes`: an instruction stands before the text where the model
    has no prompts.
    """

    items: tuple[Item, ...]
    model: str | None = None
    role: str | None = None
    dims: int | None = None
    normalize: bool | None = None  # None: yes
    overflow: Overflow | None = None
    max_tokens: int | None = None
    dtype: Dtype | None = "float32"  # None: that one, too, unless a profile says another
    kinds: tuple[Kind, ...] = ("dense",)
    adapter: str | None = None
    profile: str | None = None
    yields: bool = False
    each_frame: bool = False
    prefixes: bool = False


class Score(msgspec.Struct, frozen=True, tag=True):
    """Score each item against the query. `raw` asks for the model's logit, not 0..1.

    `weights` say how much each kind of vector counts, of a model that makes several; there are
    none when the model is to score in its own way. The score is their weighted mean: of the
    cosine of dense vectors, the dot product of sparse ones, and the mean over the query's
    tokens of each one's best product with a token of the item.
    """

    query: Item
    items: tuple[Item, ...]
    model: str | None = None
    raw: bool = False
    overflow: Overflow | None = None
    max_tokens: int | None = None
    adapter: str | None = None
    weights: tuple[tuple[Kind, float], ...] = ()
    profile: str | None = None


class Extract(msgspec.Struct, frozen=True, tag=True):
    """Find what is named by `labels` in each item; what scores below `threshold` is left out,
    and so is what comes after the best `top`.

    A model with labels of its own needs none: those that are given are the ones it answers.
    `multi_label`: whether several labels may hold at once, each then scored by itself.
    `template` is the sentence, with one `{}` for the label, that an NLI model judges.
    """

    items: tuple[Item, ...]
    model: str | None = None
    labels: tuple[str, ...] = ()
    threshold: float | None = None
    multi_label: bool | None = None
    template: str | None = None
    top: int | None = None
    overflow: Overflow | None = None
    max_tokens: int | None = None
    profile: str | None = None


class Describe(msgspec.Struct, frozen=True, tag=True):
    """What is served. `model` None means everything."""

    model: str | None = None


class Keep(msgspec.Struct, frozen=True, tag=True):
    """Load a model or unload it now; "retry" loads one that failed. Answered by its card."""

    model: str
    wish: Literal["load", "unload", "retry"]


Task: TypeAlias = Encode | Score | Extract | Describe | Keep


# ── model work ───────────────────────────────────────────────────────────────────────────


class Unit(msgspec.Struct, frozen=True):
    """One row of model work: an item ready for a family, or a pair: of two items when scoring,
    of an item and a hypothesis about it when an NLI model extracts."""

    parts: tuple[Loaded, ...]
    other: tuple[Loaded, ...] | None = None
    role: str | None = None
    instruction: str | None = None
    overflow: Overflow = "truncate"
    max_tokens: int | None = None
    kinds: tuple[Kind, ...] = ("dense",)
    adapter: str | None = None


class Features(msgspec.Struct, frozen=True):
    """A unit after `prepare`: all that the batcher may know of it.

    `arrays` are one row each, without a batch axis. `cost` is in tokens (or what stands for
    them); only features of one `group` may share a batch. `tokens` is what the caller is
    charged for, `cut` whether the input was truncated.
    """

    arrays: Mapping[str, Array]
    cost: int
    tokens: int
    group: Hashable = None
    cut: bool = False


class Sparse(msgspec.Struct, frozen=True):
    """The places that are not 0: `indices` int32 [k], each once, and `values` float32 [k]."""

    indices: Array
    values: Array


class Vectors(msgspec.Struct, frozen=True):
    """Those of the unit's kinds. `dense`: float32 [d], as pooled: not yet cut, not yet
    normalised. `multivector`: float32 [tokens, d], each row of length 1. In a Result both are
    of the type that was asked for, and `dense` is cut and normalised."""

    dense: Array | None = None
    sparse: Sparse | None = None
    multivector: Array | None = None


class Relevance(msgspec.Struct, frozen=True):
    """`value`: 0..1 under the model's own activation; `raw`: the logit before it. Of an NLI
    model: of entailment against contradiction, and entailment's logit alone."""

    value: float
    raw: float


class Class(msgspec.Struct, frozen=True):
    label: str
    score: float  # 0..1


class Findings(msgspec.Struct, frozen=True):
    """What an item was found to be or to hold. From a model: every class, in its own order. In
    a Result: those that were asked for, best first, equal ones in the labels' order."""

    classes: tuple[Class, ...] = ()


Output: TypeAlias = Vectors | Relevance | Findings


# ── the answer ───────────────────────────────────────────────────────────────────────────


class Wishes(msgspec.Struct, frozen=True):
    """A profile of a model: what a task means that does not say it itself. None: nothing."""

    kinds: tuple[Kind, ...] | None = None
    instruction: str | None = None
    role: str | None = None
    normalize: bool | None = None
    dims: int | None = None
    max_tokens: int | None = None
    dtype: Dtype | None = None


class Card(msgspec.Struct, frozen=True):
    """What is known of a model: first from its files, later from the runtime that opened it."""

    name: str
    architecture: str = ""
    family: str = ""
    tasks: tuple[str, ...] = ()  # of "encode", "score", "extract"
    modalities: tuple[str, ...] = ("text",)
    extra: str = ""  # what must be installed here for the modalities that it lacks
    dims: int | None = None  # of a dense vector
    kinds: tuple[Kind, ...] = ()  # that it makes
    sparse_dims: int | None = None  # None also where there is no end, as with hashes
    token_dims: int | None = None
    max_tokens: int | None = None
    vocabulary: int | None = None
    prompts: Mapping[str, str] = {}
    instructions: bool = False  # whether an instruction changes the input
    pooling: str = ""
    scoring: str = ""  # how `score` is answered: "cross-encoder", "cosine", "dot", "maxsim"
    labels: tuple[str, ...] = ()  # a classifier's own
    zero_shot: bool = False  # whether "extract" takes, and needs, labels of the caller's own
    template: str = ""  # of an NLI model: the hypothesis about each label, which stands at `{}`
    revision: str | None = None
    aliases: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()  # by the names under which a request asks for one
    runtime: str = ""
    device: str = ""
    dtype: str = ""
    state: State = "available"
    reason: str = ""  # why it failed, in words for a person
    cause: str = ""  # and for a program: one of core/checkpoint.py's
    attempts: int = 0  # to load it, since it was last loaded
    memory: int = 0  # bytes that it takes when it is loaded, about
    awaited: bool = False  # the server is not ready before this one was tried
    profiles: Mapping[str, Wishes] = {}  # by name; "default" holds where none is named
    created: int = 0  # unix seconds


class Usage(msgspec.Struct, frozen=True):
    tokens: int = 0
    items: int = 0
    truncated: int = 0


class Timing(msgspec.Struct, frozen=True):
    """Seconds. `queue` and `inference` are those of the request's slowest item."""

    total: float = 0.0
    prepare: float = 0.0
    queue: float = 0.0
    inference: float = 0.0


class Result(msgspec.Struct, frozen=True):
    """The answer to a task: `outputs` in the order of its items, `cards` for Describe.

    `dims` is the length of the vectors as answered, `dtype` their type. `ignored` names wishes
    that the model cannot honour and that change nothing else, such as "instruction".
    """

    card: Card
    outputs: tuple[Output, ...] = ()
    cards: tuple[Card, ...] = ()
    usage: Usage = Usage()
    timing: Timing = Timing()
    dims: int | None = None
    dtype: Dtype = "float32"
    ignored: tuple[str, ...] = ()
