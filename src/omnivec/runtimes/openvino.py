"""The CPU runtime: graphs of our own on OpenVINO, one inference stream for each core.

Small batches on one core each beat large ones on all cores together (decision 6): a batch of
about a thousand tokens stays in one core's cache, and no core waits for another.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from omnivec.core.checkpoint import CheckpointError
from omnivec.core.machine import cores
from omnivec.core.seams import SessionLost
from omnivec.runtimes._openvino.footprint import is_wide, parallel, weigh
from omnivec.runtimes._openvino.limits import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from omnivec.core.checkpoint import Checkpoint
    from omnivec.core.machine import Accelerator
    from omnivec.core.nouns import Array
    from omnivec.core.seams import Session
    from omnivec.core.steps import Head
    from omnivec.runtimes._openvino.feeds import Feed
    from omnivec.runtimes._openvino.weights import Weights

TOGETHER = 64  # activations that int8 rounds with one scale (docs/experiments.md)
WORTH = 4  # lone batches before a second graph is opened for them
KERNELS = 256  # kept for each stream; without an end, each new shape costs 1 MB for good
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8"}

log = logging.getLogger("omnivec.runtimes")

_importing = Lock()


class OpenVINO:
    name = "openvino"
    rank = 0

    def can(self, checkpoint: Checkpoint, graph: str, head: Head, device: str) -> str | None:
        if head.kind == "contrast":
            return "the openvino runtime does not compare two words' logits; use --runtime torch"
        checkpoint = checkpoint.part(graph)
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
        checkpoint = checkpoint.part(graph)
        chosen = precision(dtype, checkpoint.name)
        core = load().Core()
        graphs = importlib.import_module("omnivec.runtimes._openvino.graphs")
        streams = parallel(checkpoint, cores())
        try:
            model, feed, weights = graphs.build(checkpoint, head, int8=chosen == "int8")
            compiled = core.compile_model(model, "CPU", _wishes(chosen, streams))
            session = OpenVINOSession(compiled, feed, streams, chosen)
            session.weights = weights
            session.run(feed.few())  # packs the weights
        except (RuntimeError, ValueError, IndexError) as error:
            raise CheckpointError(
                f"{checkpoint.name}: OpenVINO refused the graph; config.json and the weights "
                "do not fit each other"
            ) from error
        weights.rest()
        if is_wide(checkpoint, streams):
            session.widen(
                lambda: core.compile_model(model, "CPU", _wishes(chosen, 1)), weights.rest
            )
        return session

    def weigh(self, checkpoint: Checkpoint, graph: str, dtype: str) -> int:
        checkpoint = checkpoint.part(graph)
        return weigh(checkpoint, cores(), precision(dtype, checkpoint.name))

    def describe(self, session: Session) -> tuple[str, str]:
        return "cpu", session.dtype if isinstance(session, OpenVINOSession) else ""

    def memory(self) -> int:
        return 0

    def accelerators(self) -> Sequence[Accelerator]:
        return ()

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

    weights: Weights | None = None  # whose memory the graph shares

    def __init__(self, compiled: Any, feed: Feed, streams: int, dtype: str) -> None:
        self.padding = feed.padding
        self.batch_cost = feed.batch_cost
        self.streams = streams
        self.dtype = dtype
        self._feed = feed
        self._names = [output.get_any_name() for output in compiled.outputs]
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(streams):
            self._idle.put(compiled.create_infer_request())
        self._wide: SimpleQueue[Any] = SimpleQueue()
        self._widening: Thread | None = None
        self._lone = itertools.count()

    def widen(self, compile_graph: Callable[[], Any], after: Callable[[], None]) -> None:
        """From the WORTH-th batch on that is alone, open the graph once more, for one batch on
        all cores: such a batch is done nearly twice as fast there (docs/experiments.md). A
        model that comes and goes is not worth it."""

        def work() -> None:
            try:
                request = compile_graph().create_infer_request()
                inputs = self._feed.read(self._feed.few()).inputs
                request.infer(inputs, share_inputs=True)
            except RuntimeError:
                log.exception("no second graph for single batches; one core computes them")
                return
            after()
            self._wide.put(request)

        # no daemon: a process that ends while OpenVINO compiles would be aborted
        self._widening = Thread(target=work, name="widen")

    def _line(self) -> SimpleQueue[Any]:
        """Of the requests for a batch that is alone."""
        if not self._wide.empty():
            return self._wide
        if self._widening is not None and next(self._lone) == WORTH:
            self._widening.start()
        return self._idle

    def run(self, arrays: Mapping[str, Array], *, alone: bool = False) -> dict[str, Array]:
        """Raises ValueError for what the graph has no place for, SessionLost when closed."""
        inputs, kept = self._feed.read(arrays)
        line = self._line() if alone else self._idle
        request = line.get()
        try:
            if request is None:
                raise SessionLost("this session was closed")
            request.infer(inputs, share_inputs=True)
            return {
                name: _copied(request.get_output_tensor(index), kept.get(name))
                for index, name in enumerate(self._names)
            }
        finally:
            line.put(request)

    def close(self) -> None:
        """Waits for the batches that are running, then frees the graphs."""
        widening, self._widening = self._widening, None  # it refers to this session
        if widening is not None and widening.ident is not None:
            widening.join()
            while not self._wide.empty():
                self._wide.get()
        for _ in range(self.streams):
            if self._idle.get() is None:
                break
        self._idle.put(None)


def _wishes(dtype: str, streams: int) -> dict[str, Any]:
    """All cores, divided into `streams`. In int8, what is no matrix is computed as usual."""
    rounding = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": TOGETHER} if dtype == "int8" else {}
    return rounding | {
        "INFERENCE_PRECISION_HINT": usual() if dtype == "int8" else dtype,
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": cores(),
        "CPU_RUNTIME_CACHE_CAPACITY": KERNELS,
    }


def _copied(tensor: Any, kept: Array | None) -> Array:
    """An output, without the rows that only rounded its size up."""
    return np.array(tensor.data[: None if kept is None else len(kept)])


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


PLUGIN = OpenVINO()
