"""A head's steps in numpy, for runtimes whose library gives hidden states and nothing more.

What they cost is little beside the layers under them; the formulas are core/heads.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from omnivec.core import heads
from omnivec.core.checkpoint import CheckpointError
from omnivec.core.steps import Contrast, Dense, LayerNorm, Pool, Vocabulary
from omnivec.runtimes._weights import Weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.core.checkpoint import Checkpoint
    from omnivec.core.nouns import Array, Floats
    from omnivec.core.steps import Head

KINDS = ("pooled", "tokens")
"""Of heads whose outputs are made of hidden states alone."""


class Steps:
    """Those of a `head` of KINDS, over hidden states of `width`.

    Raises CheckpointError for weights that are missing or of another width, for an activation
    that is not known, and for a Contrast.
    """

    def __init__(self, checkpoint: Checkpoint, head: Head, width: int) -> None:
        self._head = head
        self._weights: dict[str, dict[str, Floats]] = {}
        for one in heads.named(head).values():
            self._open(checkpoint, one, width)

    def finish(self, hidden: Floats, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Each output of the head by name, float32 [B, d] or of tokens [K, d], from hidden
        states float32 [B, T, width]; `arrays` are the batch's, as `Session.run` has them."""
        mask, pooled = arrays["attention_mask"], arrays.get("pool_mask")
        return {
            name: heads.apply(
                one, hidden, mask, self._weights, pooled, heads.kept(name, arrays)
            ).astype(np.float32, copy=False)
            for name, one in heads.named(self._head).items()
        }

    def _open(self, checkpoint: Checkpoint, head: Head, width: int) -> None:
        if not computes(head):
            raise CheckpointError(
                f"{checkpoint.name}: the words that its scores are made of are not among hidden "
                "states; use --runtime openvino, or torch"
            )
        for step in head.steps:
            if isinstance(step, Pool):
                width *= len(step.modes)
            elif isinstance(step, Dense | LayerNorm):
                width = self._open_file(checkpoint, step, width)

    def _open_file(self, checkpoint: Checkpoint, step: Dense | LayerNorm, width: int) -> int:
        """The width after it."""
        if not checkpoint.has(step.file):
            raise CheckpointError(
                f"{checkpoint.name}: {step.file} is missing; download the model again"
            )
        file = Weights(checkpoint.name, [checkpoint.path(step.file)])
        out = width
        if isinstance(step, Dense):
            _check(checkpoint, step)
            out = file.find("linear.weight", None, width).shape[0]
            taken = {"linear.weight": file.take("linear.weight", out, width)}
            if "linear.bias" in file:
                taken["linear.bias"] = file.take("linear.bias", out)
        else:
            taken = {name: file.take(name, width) for name in ("norm.weight", "norm.bias")}
        self._weights[step.file] = taken
        return out


def computes(head: Head) -> bool:
    """Whether hidden states are all that a head of KINDS needs, where a Contrast needs the output
    embeddings besides."""
    return not any(isinstance(step, Contrast) for step in head.steps)


def spell(step: Vocabulary, logits: Floats, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """What a head of kind "words" gives of a language model's logits float32 [B, T, V]."""
    kept = arrays.get("pool_mask", arrays["attention_mask"])
    return sparse(heads.words(step, logits, kept))


def sparse(values: Floats) -> dict[str, Array]:
    """What is not 0 of [B, V], as a head of kind "words" gives it."""
    rows, columns = values.nonzero()
    places = {"rows": rows.astype(np.int64), "columns": columns.astype(np.int64)}
    return {"output": values[rows, columns], **places}


def _check(checkpoint: Checkpoint, step: Dense) -> None:
    try:
        heads.activation(step.activation)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.name}: {error}") from error
