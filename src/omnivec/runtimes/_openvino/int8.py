"""Matrices in eight bits, which processors with VNNI multiply faster than any floats.

No data is asked for: the weights tell their own range, and OpenVINO rounds each token's
activations as they come, GROUP numbers with one scale. What the rounding costs is told in
docs/experiments.md, and which matrices cannot bear it: those of the attention's values, whose
errors go into the hidden states as they are and not through a softmax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from openvino import Type
from openvino import opset15 as ops

if TYPE_CHECKING:
    from omnivec.core.nouns import Floats

GROUP = 64  # activations that share a scale, as a session asks OpenVINO for
GROUPS = (2 * GROUP, GROUP)  # weights that share one; OpenVINO wants a multiple of GROUP
HIGHEST = 255  # level; the lowest is 0
VALUES = {"value", "v_lin", "v", "v_proj", "Wqkv"}
"""What the architectures call the projection to values. One matrix for all three is spared too."""


def bears(key: str) -> bool:
    """Whether the matrix of this name may be rounded."""
    return key.rpartition(".")[2] not in VALUES


def matrix(weight: Floats) -> Any:
    """A node [out, inner] that is `weight` rounded to 256 levels from the least to the greatest
    of each group along the inner axis, 0 among them. A matrix product with it computes with the
    levels themselves. A weight is off by a level at most, nearly always by half of one."""
    out, inner = weight.shape
    size = next((size for size in GROUPS if inner % size == 0), inner)
    levels, zero, scale = _rounded(weight.reshape(out, -1, size))
    if size == inner:
        levels, zero, scale = (array.reshape(out, -1) for array in (levels, zero, scale))
    shifted = ops.subtract(_floats(levels), _floats(zero))
    scaled = ops.multiply(shifted, ops.constant(scale))
    if size == inner:
        return scaled
    return ops.reshape(scaled, ops.constant(np.array([out, inner], np.int64)), False)


def _floats(levels: Any) -> Any:
    return ops.convert(ops.constant(levels), Type.f32)


def _rounded(grouped: Floats) -> tuple[Any, Any, Floats]:
    """Levels uint8 [out, groups, size], and for each group uint8 `zero` and float32 `scale`,
    [out, groups, 1]: weight = (level - zero) * scale. Weights that are no numbers stay none."""
    low = np.minimum(grouped.min(2, keepdims=True), 0)
    high = np.maximum(grouped.max(2, keepdims=True), 0)
    scale = np.where(high > low, (high - low) / HIGHEST, high + 1).astype(np.float32)
    with np.errstate(invalid="ignore"):
        zero = np.clip(np.rint(-low / scale), 0, HIGHEST)
        levels = np.clip(np.rint(grouped / scale) + zero, 0, HIGHEST)
        return levels.astype(np.uint8), zero.astype(np.uint8), scale
