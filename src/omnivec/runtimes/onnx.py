"""ONNX Runtime and its providers: for the ONNX file that a checkpoint brings along, and for graphs
of our own where it brings none. Needs the extra `onnx`, which is imported when a model is opened.
"""

from __future__ import annotations

import importlib
import logging
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from omnivec.core.checkpoint import CheckpointError
from omnivec.core.heads import named
from omnivec.core.machine import cores
from omnivec.runtimes._onnx import parts, shipped
from omnivec.runtimes._onnx.session import OnnxSession
from omnivec.runtimes._steps import computes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from omnivec.core.checkpoint import Checkpoint
    from omnivec.core.machine import Accelerator
    from omnivec.core.nouns import Array
    from omnivec.core.seams import Session
    from omnivec.core.steps import Head

INSTALL = "pip install 'omnivec[onnx]'"
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
HEADS = ({"pooled", "tokens"}, {"logits"}, {"words"})  # the kinds that one graph gives
SCRATCH = 100_000_000  # bytes that batches need beside the weights
ERRORS = 3  # the severity from which on ONNX Runtime writes to stderr

FEW = dict.fromkeys(("input_ids", "attention_mask"), np.ones((1, 1), np.int64))

log = logging.getLogger("omnivec.runtimes")


class OnnxRuntime:
    name = "onnx"
    rank = 5  # after graphs that are tuned for this processor, before torch

    def can(self, checkpoint: Checkpoint, graph: str, head: Head, device: str) -> str | None:
        checkpoint = checkpoint.part(graph)
        if checkpoint.adapters:
            return "the onnx runtime has no layers that an adapter could change"
        if not any({one.kind for one in named(head).values()} <= kinds for kinds in HEADS):
            return f"the onnx runtime has no heads of kind {head.kind!r}"
        if not all(map(computes, named(head).values())):
            return "the onnx runtime has no scores that are read from two words' logits"
        if find_spec("onnxruntime") is None:
            return f"needs onnxruntime: {INSTALL}"
        flaw, own = _flaw(checkpoint, head, "auto"), _own(checkpoint)
        if flaw and own:
            return f"the onnx runtime {own}, and {flaw}"
        if flaw and find_spec("onnx") is None:
            return f"needs onnx, to make a graph of these weights: {INSTALL}"
        if device == "cuda" and CUDA not in _providers():
            return "this onnxruntime has no CUDA; use --device cpu, or install onnxruntime-gpu"
        return None

    def open(
        self, checkpoint: Checkpoint, graph: str, head: Head, device: str, dtype: str
    ) -> Session:
        why = self.can(checkpoint, graph, head, device)
        if why is not None:
            raise CheckpointError(f"{checkpoint.name}: {why}")
        checkpoint = checkpoint.part(graph)
        providers = [CUDA, CPU] if device != "cpu" and CUDA in _providers() else [CPU]
        file, computed = _source(checkpoint, head, dtype)
        tensors: Mapping[str, Array] = {}
        if file is not None:
            opened = _start(checkpoint.name, str(file), tensors, providers)
            use = shipped.use(file, checkpoint, head)
        else:
            module = importlib.import_module("omnivec.runtimes._onnx.written")
            model, tensors, use, rest = module.write(checkpoint, head)
            opened = _start(checkpoint.name, model, tensors, providers)
            rest()
        place = "cuda" if opened.get_providers()[0] == CUDA else "cpu"
        if device not in ("auto", place):
            raise CheckpointError(
                f"{checkpoint.name}: ONNX Runtime could not start on {device}; use --device cpu, "
                "or install the CUDA libraries that it asks for above"
            )
        streams = cores() if place == "cpu" else 1
        session = OnnxSession(opened, use, streams, where=(place, computed), tensors=tensors)
        _try(checkpoint.name, session, brought=file is not None)
        return session

    def weigh(self, checkpoint: Checkpoint, graph: str, dtype: str) -> int:
        """The weights: of a file twice, because it is packed while it is still there. Of a graph
        of our own once when the checkpoint is in float32, because safetensors stay on the disk;
        when it is in halves twice as float32, because the widened copy is packed as well."""
        checkpoint = checkpoint.part(graph)
        found = shipped.find(checkpoint, dtype)
        if found is not None:
            return SCRATCH + 2 * shipped.size(found[0])
        return SCRATCH + (4 if checkpoint.is_half else 1) * checkpoint.size()

    def describe(self, session: Session) -> tuple[str, str]:
        return session.where if isinstance(session, OnnxSession) else ("", "")

    def memory(self) -> int:
        return 0

    def accelerators(self) -> Sequence[Accelerator]:
        return ()


def _own(checkpoint: Checkpoint) -> str | None:
    """Why no graph of our own is made, or None."""
    return parts.reason(checkpoint.architecture, checkpoint.config)


def _flaw(checkpoint: Checkpoint, head: Head, dtype: str) -> str | None:
    """Why no ONNX file of the checkpoint can be run, or None."""
    found = shipped.find(checkpoint, dtype)
    if found is None:
        return f"the model's files have no onnx/model.onnx; {_remedy(checkpoint)}"
    flaw = shipped.obstacle(found[0], checkpoint, head)
    return flaw and f"the model's {found[0].name} {flaw}; use --runtime auto"


def _remedy(checkpoint: Checkpoint) -> str:
    """A snapshot of the hub never has one: it would be a second copy of most models' weights."""
    if checkpoint.revision is None:
        return "add that, or use --runtime auto"
    source = checkpoint.name if "/" in checkpoint.name else "ORG/NAME"
    return (
        "ONNX files are not downloaded with a model: use --runtime auto, or run "
        f"`hf download {source} --local-dir DIR` and serve DIR"
    )


def _source(checkpoint: Checkpoint, head: Head, dtype: str) -> tuple[Path | None, str]:
    """The file to run, None for a graph of our own, and what is computed in. Raises
    CheckpointError."""
    file, computed, flaws = None, shipped.WHOLE, []
    for wanted in dict.fromkeys((dtype, "auto")):
        found, flaw = shipped.find(checkpoint, wanted), _flaw(checkpoint, head, wanted)
        if found and not flaw:
            file, computed = found
            break
        if dtype == "int8":
            raise CheckpointError(
                f"{checkpoint.name}: has no quantised ONNX file to run (onnx/model_quantized.onnx);"
                " use another --dtype, or --runtime openvino, which rounds by itself"
            )
        flaws.append(flaw)
    if file is None and (own := _own(checkpoint)):
        raise CheckpointError(f"{checkpoint.name}: the onnx runtime {own}, and {flaws[-1]}")
    for flaw in dict.fromkeys(flaws if found else ()):
        log.warning("%s: %s", checkpoint.name, flaw)
    if dtype not in ("auto", computed):
        log.warning("%s: ONNX Runtime computes in %s, not in %s", checkpoint.name, computed, dtype)
    return file, computed


def _start(
    name: str, model: str | bytes, tensors: Mapping[str, Array], providers: Sequence[str]
) -> Any:
    """An open graph for one batch a thread. Raises CheckpointError."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # a plan of memory for each shape of a batch, and an arena that never shrinks, only grow
    options.enable_mem_pattern = options.enable_cpu_mem_arena = False
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(one) for one in tensors.values()]
    if values:
        options.add_external_initializers(list(tensors), values)
    try:
        return onnxruntime.InferenceSession(model, options, providers=list(providers))
    except Exception as error:  # its errors have no class in common
        why = (
            "config.json and the weights do not fit each other, or onnxruntime is of another "
            "version than omnivec asks for"
            if tensors
            else "the model's ONNX file is cut short, or not for this version of onnxruntime"
        )
        raise CheckpointError(f"{name}: ONNX Runtime refused the graph; {why}") from error


def _try(name: str, session: Session, *, brought: bool) -> None:
    """One small batch. Raises CheckpointError."""
    try:
        session.run(FEW)
    except Exception as error:  # ONNX Runtime's errors have no class in common
        what = "its ONNX file" if brought else "its weights"
        raise CheckpointError(
            f"{name}: ONNX Runtime opened the graph and could not run it; {what} and config.json "
            "do not fit each other"
        ) from error


@cache
def _providers() -> tuple[str, ...]:
    import onnxruntime

    return tuple(onnxruntime.get_available_providers())


PLUGIN = OnnxRuntime()
