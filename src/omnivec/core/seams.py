"""The interfaces at which the rooms meet. Two of them carry everything:

`Task -> Result` (Engine) stands between the wire and the work; arrays -> arrays (Session)
stands between a model family and the library that runs its graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.errors import Fault
from omnivec.core.form import Form
from omnivec.core.machine import Accelerator
from omnivec.core.nouns import (
    Array,
    Call,
    Card,
    Features,
    Output,
    Reply,
    Result,
    Task,
    Unit,
)
from omnivec.core.steps import Head


class Engine(Protocol):
    """Whatever answers a task: local, remote, cached, routed."""

    async def run(self, task: Task) -> Result:
        """Raises a `Fault`; any other exception is a bug."""
        ...


class Watch(Protocol):
    """Told of what the engine does, from any thread; must not block."""

    def batch(self, model: str, rows: int, tokens: int, seconds: float) -> None:
        """A batch ran: its rows, its tokens (padding left out), its inference time."""
        ...


# ── wire ─────────────────────────────────────────────────────────────────────────────────


class Endpoint(msgspec.Struct, frozen=True):
    """One operation of a dialect: a pair of pure functions and what documents them.

    `path` is a template (`/v1/models/{id:path}`). Where two dialects share a path,
    `recognises` tells from the body's top-level fields (raw JSON by name) whether it is this
    one's; the endpoint without it is asked last. `request` and `response` are the wire
    types that OpenAPI is generated from, `example` a request body that runs when pasted.
    `counted` names the operation in the metrics ("embeddings", "rerank", "similarity").
    `items` names the request's field that holds the task's items, or one field for each: a
    fault about item 1 is then told as `input[1]`, or as the second of those fields.
    `own`: answered only where this dialect is the profile's, and there in place of any other
    endpoint or page of that path.
    `form` turns a form with files into the body, as JSON, that says the same; it raises
    BadRequest. Without it a form is refused.
    `packed` is the other type that bodies and replies may have, and replies do unless `Accept`
    asks for JSON.
    """

    method: str
    path: str
    decode: Callable[[Call], Task]
    encode: Callable[[Call, Task, Result], Reply]
    summary: str
    request: Any = None
    response: Any = None
    example: Any = None
    recognises: Callable[[Mapping[str, msgspec.Raw]], bool] | None = None
    counted: str | None = None
    items: str | tuple[str, ...] = ""
    form: Callable[[Form], Mapping[str, Any]] | None = None
    packed: str = ""
    own: bool = False


class Dialect(Protocol):
    """One wire format. No I/O, no await, no engine.

    `prefixes` are put before every path ("" and "/api", say).
    """

    name: str
    endpoints: tuple[Endpoint, ...]
    prefixes: tuple[str, ...]

    def fault(self, fault: Fault) -> Reply:
        """The fault in this dialect's envelope, with its status and Retry-After."""
        ...


# ── models ───────────────────────────────────────────────────────────────────────────────


class Session(Protocol):
    """An open graph. `run` may be called from `streams` threads at once.

    `padding`: what a place of padding costs, in tokens: 1 where rows are padded to one width, 0
    where they are packed, a share of it where they are padded for attention alone.
    `batch_cost`: how many tokens a batch should have here (decision 6).
    """

    padding: float
    streams: int
    batch_cost: int

    def run(self, arrays: Mapping[str, Array], *, alone: bool = False) -> dict[str, Array]:
        """Arrays in, with a batch axis first: `input_ids` int64 [B, T], `attention_mask`
        int64 [B, T], where the architecture has segments `token_type_ids` int64 [B, T], where
        a head pools over less than it attends to `pool_mask` int64 [B, T], and the masks of
        heads of single tokens (see Head). A token that such a mask keeps is computed even where
        `attention_mask` is 0: no token sees it then, but it sees the others.
        A text in which pictures and videos are shown comes with those of the whole batch, in the
        order in which its rows show them: `pixel_values` uint8 [n, H, W, 3], or patch by patch
        [P, K, 3], a patch's pixels frame by frame and row by row, with `image_grid_thw` int64
        [n, 3]: how many patches each picture has in time, from top to bottom and from left to
        right; and `pixel_values_videos`, `video_grid_thw` in the same way.
        Where the checkpoint has adapters `adapter` int64 [B]: each row's number, 0 for none.
        A tower of pictures takes `pixel_values` uint8 [B, H, W, 3], all of its one size; one
        for any size (NaFlex) `pixel_values` uint8 [B, N, D], a patch's D bytes row by row with
        the channel last, and `spatial_shapes` int64 [B, 2]: how many rows and columns of
        patches there are, the first of the N, which lie row by row.
        Out: `output` and what the head has besides, float32. `alone`: no other batch runs or
        waits, so this one may have the whole device."""
        ...

    def close(self) -> None: ...


class SessionLost(Exception):  # noqa: N818 - what happened, not an error in what was asked
    """Raised by `Session.run`: this session will not answer again and must be reopened."""


class Runtime(Protocol):
    """A library that runs graphs. Heavy imports happen in `open`, never at import.

    `rank`: lower is preferred among the runtimes that can.
    """

    name: str
    rank: int

    def can(self, checkpoint: Checkpoint, graph: str, head: Head, device: str) -> str | None:
        """None when this runtime can open that graph on that device ("cpu", "cuda",
        "auto"); otherwise the reason in words for a person, with the remedy."""
        ...

    def open(
        self, checkpoint: Checkpoint, graph: str, head: Head, device: str, dtype: str
    ) -> Session:
        """`dtype` is "auto", "f32", "bf16", "f16" or "int8". Raises `CheckpointError`."""
        ...

    def weigh(self, checkpoint: Checkpoint, graph: str, dtype: str) -> int:
        """About how many bytes of memory that graph will take once it is open and used. Raises
        CheckpointError."""
        ...

    def describe(self, session: Session) -> tuple[str, str]:
        """(device, dtype) as a person would say them: ("cpu", "bf16")."""
        ...

    def memory(self) -> int:
        """Bytes that this runtime holds on accelerators; 0 on a CPU."""
        ...

    def accelerators(self) -> Sequence[Accelerator]:
        """Those that this runtime has models on, as they are now; none on a CPU. It may take
        milliseconds, so no event loop calls it."""
        ...


class Model(Protocol):
    """A family's checkpoint with its sessions open."""

    padding: float
    streams: int
    batch_cost: int

    def prepare(self, units: Sequence[Unit]) -> list[Features]:
        """On any thread; for a few short texts on the event loop's. As many features as units.
        Raises `TooLong`, `BadRequest`, `Unsupported` with `param` naming the unit (`[3]`)."""
        ...

    def forward(self, batch: Sequence[Features], *, alone: bool = False) -> list[Output]:
        """On a device thread. As many outputs as features, in order. `alone` as in
        `Session.run`."""
        ...

    def close(self) -> None: ...


class Family(Protocol):
    """How one kind of checkpoint is used. No torch, no files but through the checkpoint.

    `rank`: lower is asked first; the first that claims a checkpoint has it.
    """

    name: str
    rank: int

    def claims(self, checkpoint: Checkpoint) -> bool: ...

    def card(self, checkpoint: Checkpoint) -> Card:
        """From the small files alone, no weights. Raises `CheckpointError`."""
        ...

    def graphs(self, checkpoint: Checkpoint) -> dict[str, Head]:
        """The graphs that must be opened, by name, but for `spare` ones; empty when none is
        needed."""
        ...

    def ready(self, checkpoint: Checkpoint, sessions: Mapping[str, Session]) -> Model:
        """`sessions` of the graphs, by name: of all, without the spare ones, or of these alone."""
        ...
