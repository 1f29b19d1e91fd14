"""Any transformers encoder, through torch: CPUs for architectures without a graph of our own,
and GPUs. Needs the extra `torch`, which is imported when a model is opened.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Sequence
from weakref import WeakSet

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.machine import Accelerator
from omnivec.core.steps import Head
from omnivec.runtimes import _sides
from omnivec.runtimes._torch import devices
from omnivec.runtimes._torch.opening import Local, open_session
from omnivec.runtimes._torch.workers import Workers

INSTALL = "pip install 'omnivec[torch]'"

SCRATCH = 100_000_000  # bytes that batches need beside the weights

LOUD = {"gemma3_text"}  # architectures whose hidden states outgrow what f16 can hold

_OURS = ("omnivec-fake", "model2vec", "mobileclip")  # how types begin that transformers has not

log = logging.getLogger("omnivec.runtimes")


class TorchRuntime:
    name = "torch"
    rank = 10

    def __init__(self) -> None:
        self._distant: WeakSet[Workers] = WeakSet()

    def can(self, checkpoint: Checkpoint, graph: str, head: Head, device: str) -> str | None:  # noqa: ARG002
        checkpoint = checkpoint.part(graph)
        if checkpoint.architecture.startswith(_OURS):
            return f"transformers has no {checkpoint.architecture}"
        missing = [name for name in ("torch", "transformers") if not _installed(name)]
        if missing:
            return f"needs {' and '.join(missing)}: {INSTALL}"
        if device == "cuda" and not _has_cuda():
            return "torch finds no CUDA device; use --device cpu, or a torch built for CUDA"
        return _sides.reason(checkpoint.architecture, checkpoint.config)

    def open(
        self,
        checkpoint: Checkpoint,
        graph: str,
        head: Head,
        device: str,
        dtype: str,
    ) -> Local | Workers:
        """Several GPUs are used together, each by a process of its own."""
        if dtype == "int8":
            raise CheckpointError(
                f"{checkpoint.name}: the torch runtime has no int8, the openvino runtime has; use "
                "--runtime openvino, or another --dtype"
            )
        checkpoint = checkpoint.part(graph)
        places = _places(device)
        kind = _choose_dtype(dtype, places[0])
        if kind == "f16" and checkpoint.architecture in LOUD:
            log.warning("%s: computed in bf16, for its numbers outgrow f16", checkpoint.name)
            kind = "bf16"
        if len(places) == 1:
            return open_session(checkpoint, head, places[0], kind)
        session = Workers(checkpoint, head, places, kind)
        self._distant.add(session)
        return session

    def weigh(self, checkpoint: Checkpoint, graph: str, dtype: str) -> int:
        """The weights, on whichever device, and something for the batches. A tower holds its
        part of them; both have been there for a moment when one is opened."""
        checkpoint = checkpoint.part(graph)
        if dtype == "auto":  # as it lies: whether there is a GPU is not asked for an estimate
            return SCRATCH + checkpoint.size()
        return SCRATCH + checkpoint.size() * (2 if dtype == "f32" else 1) // (
            1 if checkpoint.is_half else 2
        )

    def describe(self, session: Local | Workers) -> tuple[str, str]:
        return session.device, session.dtype

    def memory(self) -> int:
        distant = sum(session.memory() for session in self._distant)
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_available():
            return distant
        return distant + int(torch.cuda.memory_allocated())

    def accelerators(self) -> Sequence[Accelerator]:
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_available():
            return ()
        workers = [worker for session in self._distant for worker in session.held()]
        if not workers and not torch.cuda.is_initialized():
            return ()
        return devices.accelerators(workers)


def _installed(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None


def _has_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _places(device: str) -> list[str]:
    """The device; for "cuda" every GPU that this process may see."""
    if device not in ("auto", "cuda"):
        return [device]
    if device == "auto" and not _has_cuda():
        return ["cpu"]
    import torch

    count = torch.cuda.device_count()
    return ["cuda"] if count == 1 else [f"cuda:{index}" for index in range(count)]


def _choose_dtype(dtype: str, device: str) -> str:
    if dtype == "auto":
        return "bf16" if device.startswith("cuda") else "f32"
    return dtype


PLUGIN = TorchRuntime()
