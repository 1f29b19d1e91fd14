"""The CPU runtime: graphs of our own on OpenVINO, one inference stream for each core.

Small batches on one core each beat large ones on all cores together (decision 6): a batch of
about a thousand tokens stays in one core's cache, and no core waits for another.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from omnivec.core.checkpoint import CheckpointError
from omnivec.core.seams import SessionLost
from omnivec.runtimes._openvino.limits import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from omnivec.core.checkpoint import Checkpoint
    from omnivec.core.nouns import Array, Head
    from omnivec.core.seams import Session
    from omnivec.runtimes._openvino.blocks import Encoded

BATCH_TOKENS = 1024
SMALL = 512 * 2**20
"""Bytes of weights up to which a model is held twice, for throughput and for latency; larger
ones up to one PART of the memory that there is."""
PART = 8
TOGETHER = 64  # activations that int8 rounds with one scale (docs/experiments.md)
KERNELS = 256  # kept for each stream; without an end, each new shape costs 1 MB for good
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8"}

log = logging.getLogger("omnivec.runtimes")

_importing = Lock()


class OpenVINO:
    name = "openvino"
    rank = 0

    def can(self, checkpoint: Checkpoint, graph: str, head: Head, device: str) -> str | None:
        del graph, head  # one graph for each checkpoint here, and every head
        if device not in ("auto", "cpu"):
            return f"the openvino runtime runs on the CPU, not on {device!r}; use --device cpu"
        if find_spec("openvino") is None:
            return "openvino is not installed; run: pip install openvino"
        return reason(checkpoint.architecture, checkpoint.config)

    def open(
        self, checkpoint: Checkpoint, graph: str, head: Head, device: str, dtype: str
    ) -> Session:
        why = self.can(checkpoint, graph, head, device)
        if why is not None:
            raise CheckpointError(f"{checkpoint.name}: {why}")
        chosen = precision(dtype, checkpoint.name)
        core = load().Core()
        graphs = importlib.import_module("omnivec.runtimes._openvino.graphs")
        model, encoded, weights = graphs.build(checkpoint, head, int8=chosen == "int8")
        streams = cores()
        try:
            compiled = core.compile_model(model, "CPU", _wishes(chosen, streams))
            session = OpenVINOSession(compiled, encoded, streams, chosen)
            session.run(_few_tokens(encoded))  # packs the weights
        except RuntimeError as error:
            raise CheckpointError(
                f"{checkpoint.name}: OpenVINO refused the graph; config.json and the weights "
                "do not fit each other"
            ) from error
        weights.rest()
        size = sum(file.stat().st_size for file in checkpoint.weights())
        if streams > 1 and size <= max(SMALL, installed() // PART):
            session.widen(
                lambda: core.compile_model(model, "CPU", _wishes(chosen, 1)), weights.rest
            )
        return session

    def describe(self, session: Session) -> tuple[str, str]:
        return "cpu", session.dtype if isinstance(session, OpenVINOSession) else ""

    def memory(self) -> int:
        return 0

    def ceiling(self, dtype: str) -> float:
        """FLOP/s that matrix products alone reach here, for `omnivec bench`."""
        load()
        module = importlib.import_module("omnivec.runtimes._openvino.ceiling")
        return float(module.ceiling(_wishes(dtype, cores()), cores(), int8=dtype == "int8"))


class OpenVINOSession:
    """A compiled graph, and an infer request for each stream.

    OpenVINO compiles kernels for each shape of input and keeps KERNELS of them, so memory
    grows over the first shapes and then stays. Few widths mean few pauses: pad to a multiple.
    """

    padding = 0.2  # of attention alone, which is about this share of a layer
    batch_cost = BATCH_TOKENS

    def __init__(self, compiled: Any, encoded: Encoded, streams: int, dtype: str) -> None:
        self.streams = streams
        self.dtype = dtype
        self._encoded = encoded
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(streams):
            self._idle.put(compiled.create_infer_request())
        self._wide: SimpleQueue[Any] = SimpleQueue()
        self._widening: Thread | None = None

    def widen(self, compile_graph: Callable[[], Any], after: Callable[[], None]) -> None:
        """In the background, open the graph once more for one batch on all cores: a batch that
        is alone is done nearly twice as fast there (docs/experiments.md)."""

        def work() -> None:
            try:
                request = compile_graph().create_infer_request()
                request.infer(self._feed(_few_tokens(self._encoded)), share_inputs=True)
            except RuntimeError:
                log.exception("no second graph for single batches; one core computes them")
                return
            after()
            self._wide.put(request)

        # no daemon: a process that ends while OpenVINO compiles would be aborted
        self._widening = Thread(target=work, name="widen")
        self._widening.start()

    def run(self, arrays: Mapping[str, Array], *, alone: bool = False) -> dict[str, Array]:
        """Raises ValueError for ids that the model has no row for, rows longer than its
        positions and adapters that it has not: the graph would read past a table. Raises
        SessionLost when closed."""
        inputs = self._feed(arrays)
        self._check(*inputs[:3])
        line = self._wide if alone and not self._wide.empty() else self._idle
        request = line.get()
        try:
            if request is None:
                raise SessionLost("this session was closed")
            request.infer(inputs, share_inputs=True)
            return {"output": np.array(request.get_output_tensor(0).data, np.float32)}
        finally:
            line.put(request)

    def close(self) -> None:
        """Waits for the batches that are running, then frees the graphs."""
        if self._widening is not None:
            self._widening.join()
            while not self._wide.empty():
                self._wide.get()
        for _ in range(self.streams):
            if self._idle.get() is None:
                break
        self._idle.put(None)

    def _feed(self, arrays: Mapping[str, Array]) -> tuple[Array, ...]:
        """The graph's inputs; where it has adapters, each row's number comes last."""
        inputs, count = _inputs(arrays), self._encoded.adapters
        if not count:
            return inputs
        rows = len(inputs[0])
        numbers = np.ascontiguousarray(arrays.get("adapter", np.zeros(rows)), np.int64)
        if numbers.shape != (rows,) or not _within(numbers, count + 1):
            raise ValueError(f"adapters are 0 to {count} here, one for each row")
        return *inputs, numbers

    def _check(self, ids: Array, mask: Array, segments: Array) -> None:
        limits = self._encoded
        if not _within(ids, limits.vocabulary):
            raise ValueError(f"a token id is not in 0..{limits.vocabulary - 1}")
        if limits.segments and not _within(segments, limits.segments):
            raise ValueError(f"a segment is not in 0..{limits.segments - 1}")
        if limits.positions is not None and mask[:, limits.positions :].any():
            raise ValueError(f"a row is longer than {limits.positions} tokens")


def _wishes(dtype: str, streams: int) -> dict[str, Any]:
    """All cores, divided into `streams`. In int8, what is no matrix is computed as usual."""
    rounding = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": TOGETHER} if dtype == "int8" else {}
    return rounding | {
        "INFERENCE_PRECISION_HINT": usual() if dtype == "int8" else dtype,
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": cores(),
        "CPU_RUNTIME_CACHE_CAPACITY": KERNELS,
    }


def _inputs(arrays: Mapping[str, Array]) -> tuple[Array, ...]:
    """ids, mask, segments, pooled, tokens and places, in the order of the graph's parameters."""
    ids, mask = (np.ascontiguousarray(arrays[k], np.int64) for k in ("input_ids", "attention_mask"))
    segments = arrays.get("token_type_ids")
    segments = np.zeros_like(ids) if segments is None else np.ascontiguousarray(segments, np.int64)
    pooled = np.ascontiguousarray(arrays.get("pool_mask", mask), np.int64)
    if not ids.size or {a.shape for a in (ids, mask, segments, pooled)} != {ids.shape[:2]}:
        raise ValueError("the arrays of a batch must share one shape [B, T], neither of them 0")
    return ids, mask, segments, pooled, *_packed(mask)


def _packed(mask: Array) -> tuple[Array, Array]:
    """`tokens` [P] and `places` [B, T] of blocks.Inputs, from the mask [B, T]. P is rounded up,
    so that a runtime meets few sizes; what is too many repeats the batch's first place."""
    there = np.flatnonzero(mask)
    places = np.zeros(mask.size, np.int64)
    places[there] = np.arange(len(there))
    tokens = np.zeros(rounded(max(1, len(there))), np.int64)
    tokens[: len(there)] = there
    return tokens, places.reshape(mask.shape)


def rounded(tokens: int) -> int:
    """The next of 16 sizes to each power of two; below 32 each number is one."""
    step = 1 << max(0, (tokens - 1).bit_length() - 5)
    return -(-tokens // step) * step


def _few_tokens(encoded: Encoded) -> dict[str, Array]:
    ids = np.ones((1, min(8, encoded.positions or 8)), np.int64)
    return {"input_ids": ids, "attention_mask": ids}


def _within(ids: Array, end: int) -> bool:
    return bool(ids.min() >= 0 and ids.max() < end)


@cache
def load() -> Any:
    """The openvino package, imported without its converter: that one starts a thread which
    reports the import to its makers' analytics. Where the process has already imported
    openvino by itself, that is left as it is."""
    converter = "openvino.tools.ovc"
    with _importing:
        if converter in sys.modules:
            return importlib.import_module("openvino")
        sys.modules[converter] = None  # type: ignore[assignment] # makes its import fail
        try:
            return importlib.import_module("openvino")
        finally:
            del sys.modules[converter]


def precision(dtype: str, name: str) -> str:
    """What to compute in: "f32" or "int8" where that is asked for and the processor has it;
    for all else what is `usual`, also for f16, which no processor multiplies faster."""
    chosen = dtype if dtype == "f32" or (dtype == "int8" and has_int8()) else usual()
    if dtype not in ("auto", chosen):
        log.warning("%s: computed in %s on this processor, not in %s", name, chosen, dtype)
    return chosen


def usual() -> str:
    return "bf16" if has_bf16() else "f32"


def has_bf16() -> bool:
    """Whether the processor itself multiplies bf16. OpenVINO's own answer is not asked: it
    also says yes where it would emulate."""
    return not BF16_FLAGS.isdisjoint(_flags())


def has_int8() -> bool:
    """Whether the processor has instructions for sums of products of bytes (VNNI, AMX)."""
    return not INT8_FLAGS.isdisjoint(_flags())


@cache
def _flags() -> frozenset[str]:
    try:
        return frozenset(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:  # not Linux
        return frozenset()


@cache
def cores() -> int:
    """The cores that this process may use: its affinity, and a container's CPU quota."""
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min(allowed, _quota()))


@cache
def installed() -> int:
    """Bytes of memory that this process may use: the machine's, or a container's limit."""
    try:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):  # unknown here
        return 0
    try:
        return min(pages, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    except (OSError, ValueError):  # no cgroup v2, or no limit
        return pages


def _quota() -> int:
    """cgroup v2's cpu.max: microseconds (or "max") of each period."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no cgroup v2, or no limit
        return sys.maxsize


PLUGIN = OpenVINO()
