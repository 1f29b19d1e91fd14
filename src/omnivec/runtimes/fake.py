"""A runtime without weights: repeatable numbers, and faults on demand. For tests, ours and yours.

It opens the models `fake` (a bi-encoder) and `fake-reranker` (a cross-encoder) and no other.
A row's numbers depend on its token ids alone: they are the same alone or in any batch, in any
process, on any machine, and a vector has length 1.

Options follow the name: `fake:dims=8,slow=0.05`.

    dims=8           length of a vector (default 32)
    slow=0.05        seconds that every batch takes (default 0)
    load=5           seconds that opening it takes (default 0)
    memory=1000000   bytes that it claims to take (default 1)
    streams=2        batches that may run at once (default 1)
    batch_cost=512   tokens that a batch should have (default 1024)
    padded=off       whether a batch is charged for its padding (default on)
    image=on         whether it takes pictures and videos, too (default off; no reranker)
    faults=on        whether markers in a text do anything (default off)
    hang=5           seconds that [[hang]] hangs (default: until the session is closed)

With `faults=on` these words, anywhere in a text, act on the batch that holds it:

    [[raise]]  the run raises RuntimeError, as a kernel that chokes on one row does
    [[nan]]    that row's numbers are NaN; its neighbours' are not
    [[slow]]   the run takes half a second more
    [[hang]]   the run blocks
    [[crash]]  the run raises SessionLost, and so does every later one until a new session
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.heads import computed, kept, named, of_tokens
from omnivec.core.machine import Accelerator
from omnivec.core.nouns import Array, Floats
from omnivec.core.seams import SessionLost
from omnivec.core.steps import Head

ARCHITECTURE = "omnivec-fake"
SLOW = 0.5
"""Seconds that a [[slow]] takes."""

_SPAN = 4.0  # logits are within -4..4, so that their sigmoids differ visibly
_SWITCH = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


class Options(NamedTuple):
    """See the top of this file."""

    dims: int = 32
    slow: float = 0.0
    load: float = 0.0
    memory: int = 1
    streams: int = 1
    batch_cost: int = 1024
    padded: bool = True
    image: bool = False
    faults: bool = False
    hang: float | None = None


class FakeRuntime:
    name = "fake"
    rank = 100

    def can(self, checkpoint: Checkpoint, graph: str, head: Head, device: str) -> str | None:  # noqa: ARG002
        if checkpoint.architecture != ARCHITECTURE:
            return "opens the models fake and fake-reranker only"
        if checkpoint.adapters:
            return "has no layers that an adapter could change"
        return None

    def open(
        self,
        checkpoint: Checkpoint,
        graph: str,  # noqa: ARG002 - there is one
        head: Head,
        device: str,  # noqa: ARG002 - hashing knows no device
        dtype: str,  # noqa: ARG002
    ) -> FakeSession:
        options = read_options(checkpoint)
        time.sleep(options.load)
        return FakeSession(head, options, _markers(checkpoint))

    def weigh(self, checkpoint: Checkpoint, graph: str, dtype: str) -> int:  # noqa: ARG002
        return read_options(checkpoint).memory

    def describe(self, session: FakeSession) -> tuple[str, str]:  # noqa: ARG002
        return "cpu", "f32"

    def memory(self) -> int:
        return 0

    def accelerators(self) -> Sequence[Accelerator]:
        return ()


class FakeSession:
    """`markers` are the token ids of the faults, by name."""

    def __init__(self, head: Head, options: Options, markers: Mapping[str, int]) -> None:
        self.padding = float(options.padded)
        self.streams = options.streams
        self.batch_cost = options.batch_cost
        self._head = head
        self._options = options
        self._markers = markers if options.faults else {}
        self._closed = threading.Event()
        self._lost = False

    def run(self, arrays: Mapping[str, Array], *, alone: bool = False) -> dict[str, Array]:
        del alone
        ids, mask = arrays["input_ids"], arrays["attention_mask"].astype(bool)
        if self._lost or self._closed.is_set():
            raise SessionLost("the fake session is gone")
        self._misbehave(ids[mask])
        if self._head.kind == "words":
            return _words([row[one] for row, one in zip(ids, mask, strict=True)])
        there = computed(of_tokens(self._head), arrays)
        outputs = {}
        for name, head in named(self._head).items():
            if head.kind == "tokens":
                given = kept(name, arrays)
                rows = [
                    self._tokens(row[one], wanted[one])
                    for row, one, wanted in zip(ids, there, given, strict=True)
                ]
                outputs[name] = np.concatenate(rows)
            else:
                pairs = zip(ids, mask, strict=True)
                outputs[name] = np.stack([self._row(head, row[one]) for row, one in pairs])
        return outputs

    def close(self) -> None:
        self._closed.set()

    def _misbehave(self, present: Array) -> None:
        delay = self._options.slow + (SLOW if self._marked("slow", present) else 0)
        if delay:
            time.sleep(delay)
        if self._marked("hang", present):
            self._closed.wait(self._options.hang)
            if self._closed.is_set():
                raise SessionLost("the fake session was closed while it hung")
        if self._marked("crash", present):
            self._lost = True
            raise SessionLost("the fake session crashed on a marked item")
        if self._marked("raise", present):
            raise RuntimeError("the fake kernel failed on a marked item")

    def _marked(self, fault: str, ids: Array) -> bool:
        return fault in self._markers and bool((ids == self._markers[fault]).any())

    def _row(self, head: Head, ids: Array) -> Floats:
        """[dims] of a pooled head, [1] of logits."""
        if head.kind in ("logits", "contrast"):
            return self._marred(numbers(ids, 1) * np.float32(_SPAN), ids)
        return self._marred(unit(numbers(ids, self._options.dims)), ids)

    def _tokens(self, ids: Array, wanted: Array) -> Floats:
        """[K, dims], of the wanted ones among a row's tokens."""
        dims = self._options.dims
        rows = unit(numbers(ids, len(ids) * dims).reshape(-1, dims))
        return self._marred(rows[wanted], ids)

    def _marred(self, found: Floats, ids: Array) -> Floats:
        return np.full_like(found, np.nan) if self._marked("nan", ids) else found


def _words(rows: Sequence[Array]) -> dict[str, Array]:
    """The words that a row has, each with a number that follows from all of them."""
    found = [np.unique(ids) for ids in rows]
    return {
        "output": np.concatenate([np.abs(numbers(ids, len(ids))) for ids in found]),
        "rows": np.repeat(np.arange(len(found)), [len(ids) for ids in found]),
        "columns": np.concatenate(found).astype(np.int64),
    }


def numbers(ids: Array, count: int) -> Floats:
    """float32 [count] within -1..1 that follow from the ids alone."""
    digest = hashlib.shake_128(np.ascontiguousarray(ids, "<i8").tobytes()).digest(4 * count)
    return (np.frombuffer(digest, "<u4") / np.float64(2**31) - 1).astype(np.float32)


def unit(x: Floats) -> Floats:
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    shortened: Floats = (x / np.maximum(length, np.float32(1e-12))).astype(np.float32)
    return shortened


# ── options ──────────────────────────────────────────────────────────────────────────────


def read_options(checkpoint: Checkpoint) -> Options:
    """Raises CheckpointError for an option that there is not, or with a value of no use."""
    told = checkpoint.options
    unknown = sorted(told.keys() - set(Options._fields))
    if unknown:
        raise CheckpointError(
            f"{checkpoint.name}: no option {unknown[0]!r}; there are {', '.join(Options._fields)}"
        )
    try:
        return Options(
            dims=_whole(told.get("dims", "32")),
            slow=_seconds(told.get("slow", "0")),
            load=_seconds(told.get("load", "0")),
            memory=_whole(told.get("memory", "1")),
            streams=_whole(told.get("streams", "1")),
            batch_cost=_whole(told.get("batch_cost", "1024")),
            padded=_SWITCH[told.get("padded", "on").lower()],
            image=_SWITCH[told.get("image", "off").lower()],
            faults=_SWITCH[told.get("faults", "off").lower()],
            hang=_seconds(told["hang"]) if "hang" in told else None,
        )
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint.name}: options are whole numbers from 1 (dims, memory, streams, "
            "batch_cost), seconds (slow, load, hang), or on and off (padded, image, faults)"
        ) from error


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < threading.TIMEOUT_MAX:
        raise ValueError(text)
    return number


def _markers(checkpoint: Checkpoint) -> Mapping[str, int]:
    """The ids of the marker words, which the fake models' config.json names."""
    return {str(name): int(number) for name, number in checkpoint.config["markers"].items()}


PLUGIN = FakeRuntime()
