"""The ONNX files that a checkpoint brings along, as Optimum and sentence-transformers name them."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import numpy as np

from omnivec.core import heads, machine
from omnivec.core.checkpoint import CheckpointError
from omnivec.core.steps import Normalize, Pool, Vocabulary
from omnivec.runtimes._onnx import signature
from omnivec.runtimes._onnx.session import INPUTS, Limits, Use
from omnivec.runtimes._steps import KINDS, Steps, spell

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from omnivec.core.checkpoint import Checkpoint
    from omnivec.core.nouns import Array, Floats
    from omnivec.core.steps import Head
    from omnivec.runtimes._onnx.signature import Value

FOLDERS = ("onnx/", "")
WHOLE, HALF = "f32", "f16"
FILES: Mapping[str, tuple[str, ...]] = {
    WHOLE: ("model",),
    HALF: ("model_fp16",),
    "int8": ("model_quantized", "model_int8"),  # Optimum's names; then those of _quantised
}
HIDDEN = ("last_hidden_state", "token_embeddings")
POOLED = "sentence_embedding"
LOGITS = ("logits",)
SIZES = ("hidden_size", "dim", "d_model")  # what config.json calls the width
WHOLE_NUMBERS = (6, 7)  # int32 and int64, as onnx.TensorProto counts types
TOKENS, ROWS = 3, 2  # axes of what there is for each token, and for each row


# ── which file ───────────────────────────────────────────────────────────────────────────


def find(checkpoint: Checkpoint, dtype: str) -> tuple[Path, str] | None:
    """The file to run and what it computes in: the one of that dtype, whole floats for "auto" and
    whatever there are no files in. Where the checkpoint holds no weights, which some runtime would
    compute in whole floats, any that there is."""
    wanted = dtype if dtype in FILES else WHOLE
    others = () if dtype == "int8" else (WHOLE,) if _weighs(checkpoint) else FILES
    for kind in dict.fromkeys((wanted, *others)):
        for folder in FOLDERS:
            for name in (*FILES[kind], *(_quantised() if kind == "int8" else ())):
                if checkpoint.has(f"{folder}{name}.onnx"):
                    return checkpoint.path(f"{folder}{name}.onnx"), kind
    return None


def size(file: Path) -> int:
    """Bytes of its weights: those beside it, which it may name, among them."""
    beside = (file.with_name(file.name + ending) for ending in ("", "_data", ".data"))
    return sum(one.stat().st_size for one in beside if one.is_file())


def _weighs(checkpoint: Checkpoint) -> bool:
    """Whether it has weights beside its ONNX files."""
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


def obstacle(file: Path, checkpoint: Checkpoint, head: Head) -> str | None:
    """Why a file cannot serve a head, or None; its weights are not read."""
    try:
        inputs, outputs = signature.read(file)
    except (OSError, ValueError):
        return "is cut short, or no ONNX file"
    for name, value in inputs.items():
        if name not in INPUTS or value.kind not in WHOLE_NUMBERS:
            return f"wants the input {name!r}"
        if value.axes is not None and any(value.axes):
            return "takes batches of one size only"
    taken = _result(outputs, head)
    if taken is None:
        return f"gives {', '.join(outputs) or 'nothing'}"
    width, told = _width(outputs[taken]), _configured(checkpoint)
    if head.kind in KINDS and taken != POOLED and None not in (width, told) and width != told:
        return f"gives {taken} of {width} numbers for each token, where config.json says {told}"
    return None


def use(file: Path, checkpoint: Checkpoint, head: Head) -> Use:
    """How to use a file that has no `obstacle`. Raises CheckpointError."""
    outputs = signature.read(file).outputs
    vocabulary = checkpoint.config.get("vocab_size")
    known = Limits(vocabulary if isinstance(vocabulary, int) else None, None, None)
    name = _result(outputs, head) or ""
    if head.kind == "logits":
        return Use(known, name, lambda found, _: {"output": found})
    if head.kind == "words":
        (step,) = (step for step in head.steps if isinstance(step, Vocabulary))
        return Use(known, name, lambda found, arrays: spell(step, found, arrays))
    if name == POOLED:
        return Use(known, name, _Pooled(head).finish)
    width = _width(outputs[name]) or _configured(checkpoint)
    if width is None:
        raise CheckpointError(
            f"{checkpoint.name}: neither its ONNX file nor config.json tells how wide its hidden "
            "states are; use --runtime torch"
        )
    return Use(known, name, _Hidden(Steps(checkpoint, head, width), width).finish)


def _result(outputs: Mapping[str, Value], head: Head) -> str | None:
    """The output that a head is made of."""
    if head.kind in ("logits", "words"):
        return _choose(outputs, ROWS if head.kind == "logits" else TOKENS, LOGITS)
    pooled = POOLED if POOLED in outputs and _is_whole(head) else None
    return _choose(outputs, TOKENS, HIDDEN) or pooled


def _is_whole(head: Head) -> bool:
    """Whether vectors of whole rows, which a file has pooled, are all that it gives."""
    partial = any(isinstance(step, Pool) and step.partial for step in head.steps)
    return head.kind == "pooled" and not head.also and not partial


def _choose(outputs: Mapping[str, Value], axes: int, names: tuple[str, ...]) -> str | None:
    """The output of one of the names, or else the only one of so many axes."""
    others = {POOLED, *LOGITS} - {*names}
    told = {name: value.axes for name, value in outputs.items() if name not in others}
    named = [name for name in names if name in told and len(told[name] or range(axes)) == axes]
    fits = [name for name, shape in told.items() if shape is not None and len(shape) == axes]
    return named[0] if named else fits[0] if len(fits) == 1 else None


def _width(value: Value) -> int | None:
    return value.axes[-1] if value.axes else None


def _configured(checkpoint: Checkpoint) -> int | None:
    """The width of hidden states, where config.json tells it."""
    told = (checkpoint.config.get(name) for name in SIZES)
    return next((one for one in told if isinstance(one, int)), None)


class _Hidden:
    """Hidden states of `width`, which the file need not have told beforehand."""

    def __init__(self, steps: Steps, width: int) -> None:
        self._steps = steps
        self._width = width

    def finish(self, found: Floats, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Raises ValueError for what are no hidden states."""
        if found.shape != (*arrays["attention_mask"].shape, self._width):
            raise ValueError(f"the file gives no hidden states of {self._width} numbers")
        return self._steps.finish(found, arrays)


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
