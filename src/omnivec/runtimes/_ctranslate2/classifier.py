"""An architecture's own classifier in numpy, after its encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.core.nouns import Array, Floats
    from omnivec.runtimes._ctranslate2.plans import Plan
    from omnivec.runtimes._weights import Weights


class Classifier:
    """Two layers for the first token of each row. It keeps copies, so that the file need not
    stay mapped. Raises CheckpointError."""

    def __init__(self, plan: Plan, weights: Weights) -> None:
        first, last = plan.logits
        whole = weights.outer()
        inner = weights if first.startswith("pooler") else whole
        labels = whole.find(f"{last}.weight", None, plan.width).shape[0]
        self._first = _copied(inner, first, plan.width, plan.width)
        self._last = _copied(whole, last, labels, plan.width)
        self._tanh = plan.tanh

    def finish(self, hidden: Floats, _arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Hidden states [B, T, H] to logits [B, labels]."""
        inner = _linear(hidden[:, 0], self._first)
        inner = np.tanh(inner) if self._tanh else np.maximum(inner, 0)
        return {"output": _linear(inner, self._last)}


def _linear(x: Floats, layer: tuple[Floats, Floats]) -> Floats:
    matrix, bias = layer
    return np.asarray(x @ matrix.T + bias, np.float32)


def _copied(weights: Weights, key: str, out: int, into: int) -> tuple[Floats, Floats]:
    matrix, bias = weights.take(f"{key}.weight", out, into), weights.take(f"{key}.bias", out)
    return matrix.copy(), bias.copy()
