"""The ONNX files that a checkpoint brings along, as Optimum and sentence-transformers name them."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import numpy as np

from omnivec.core import heads, machine
from omnivec.core.checkpoint import CheckpointError
from omnivec.core.steps import Normalize, Vocabulary
from omnivec.runtimes._onnx import parts
from omnivec.runtimes._onnx.session import INPUTS, KINDS, Limits, Use
from omnivec.runtimes._steps import Steps, spell

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from omnivec.core.checkpoint import Checkpoint
    from omnivec.core.nouns import Array, Floats
    from omnivec.core.steps import Head

FOLDERS = ("onnx/", "")
WHOLE, HALF = "f32", "f16"
FILES: Mapping[str, tuple[str, ...]] = {
    WHOLE: ("model",),
    HALF: ("model_fp16",),
    "int8": ("model_quantized", "model_int8"),  # Optimum's names; then those of _quantised
}
HIDDEN = ("last_hidden_state", "token_embeddings")
POOLED = "sentence_embedding"
SIZES = ("hidden_size", "dim", "d_model")  # what config.json calls the width
TOKENS, ROWS = 3, 2  # axes of what there is for each token, and for each row


# ── which file ───────────────────────────────────────────────────────────────────────────


def find(checkpoint: Checkpoint, dtype: str) -> tuple[Path, str] | None:
    """The file to run and what it computes in: the one of that dtype, whole floats for "auto" and
    whatever there are no files in. Where the checkpoint holds nothing that a graph could be made
    of, any that there is."""
    wanted = dtype if dtype in FILES else WHOLE
    others = () if _makes(checkpoint) or dtype == "int8" else FILES
    for kind in (wanted, *others):
        for folder in FOLDERS:
            for name in (*FILES[kind], *(_quantised() if kind == "int8" else ())):
                if checkpoint.has(f"{folder}{name}.onnx"):
                    return checkpoint.path(f"{folder}{name}.onnx"), kind
    return None


def size(file: Path) -> int:
    """Bytes of its weights: those beside it, which it may name, among them."""
    beside = (file.with_name(file.name + ending) for ending in ("", "_data", ".data"))
    return sum(one.stat().st_size for one in beside if one.is_file())


def _makes(checkpoint: Checkpoint) -> bool:
    """Whether a graph of our own can be made."""
    if parts.reason(checkpoint.architecture, checkpoint.config) is not None:
        return False
    try:
        return bool(checkpoint.weights())
    except CheckpointError:
        return False


def _quantised() -> tuple[str, ...]:
    """sentence-transformers' names, those for this processor first."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return ("model_qint8_arm64",)
    flags = machine.read("/proc/cpuinfo").split()
    wide = ["avx512_vnni"] * ("avx512_vnni" in flags) + ["avx512"] * ("avx512f" in flags)
    names = [f"model_qint8_{name}" for name in wide]
    return (*names, "model_quint8_avx2")


# ── what it takes and gives ──────────────────────────────────────────────────────────────


def read(opened: Any, checkpoint: Checkpoint, head: Head) -> Use:
    """How to use the open file for a head. Raises CheckpointError."""
    for one in opened.get_inputs():
        if one.name not in INPUTS or one.type not in KINDS:
            raise _unfit(checkpoint, f"wants the input {one.name!r} ({one.type})")
        if any(isinstance(axis, int) for axis in one.shape):
            raise _unfit(checkpoint, f"takes batches of one size only ({one.shape})")
    outputs = {one.name: list(one.shape) for one in opened.get_outputs()}
    vocabulary = checkpoint.config.get("vocab_size")
    known = Limits(vocabulary if isinstance(vocabulary, int) else None, None, None)
    if head.kind == "logits":
        name = _choose(outputs, ROWS, ("logits",))
        if name is not None:
            return Use(known, name, lambda found, _: {"output": found})
    elif head.kind == "words":
        name, (step,) = _choose(outputs, TOKENS, ("logits",)), head.steps
        if name is not None and isinstance(step, Vocabulary):
            return Use(known, name, lambda found, arrays: spell(step, found, arrays))
    elif name := _choose(outputs, TOKENS, HIDDEN):
        width = _width(checkpoint, outputs[name])
        return Use(known, name, Steps(checkpoint, head, width).finish)
    elif POOLED in outputs and head.kind == "pooled" and not head.also:
        return Use(known, POOLED, _Pooled(head).finish)
    raise _unfit(checkpoint, f"gives {', '.join(outputs)}")


def _choose(outputs: Mapping[str, list[Any]], axes: int, names: tuple[str, ...]) -> str | None:
    """The output of one of the names, or else the only one of so many axes."""
    fits = [name for name, shape in outputs.items() if len(shape) == axes and name != POOLED]
    named = next((name for name in names if name in fits), None)
    return named or (fits[0] if len(fits) == 1 else None)


def _width(checkpoint: Checkpoint, shape: list[Any]) -> int:
    told = [shape[-1], *(checkpoint.config.get(name) for name in SIZES)]
    for one in told:
        if isinstance(one, int):
            return one
    raise _unfit(checkpoint, "does not tell how wide its hidden states are")


def _unfit(checkpoint: Checkpoint, what: str) -> CheckpointError:
    return CheckpointError(
        f"{checkpoint.name}: its ONNX file {what}, which the onnx runtime cannot serve; "
        "use --runtime auto"
    )


class _Pooled:
    """Vectors that the file has pooled and projected already."""

    def __init__(self, head: Head) -> None:
        self._unit = Normalize() in head.steps

    def finish(self, found: Floats, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Raises ValueError where not all tokens are to be pooled: the file pools all."""
        if not np.array_equal(
            arrays.get("pool_mask", arrays["attention_mask"]), arrays["attention_mask"]
        ):
            raise ValueError("this file pools by itself, over whole rows only")
        if not self._unit:
            return {"output": found}
        norm = np.linalg.norm(found, axis=1, keepdims=True)
        return {"output": found / np.maximum(norm, np.float32(heads.NORM_FLOOR))}
