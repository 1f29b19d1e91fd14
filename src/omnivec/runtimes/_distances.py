"""MPNet's attention by distance (arXiv 2004.09297), for every runtime that makes its graph."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from omnivec.core.nouns import Array, Floats
    from omnivec.runtimes._weights import Weights

BUCKETS = 32  # fixed: `relative_attention_num_buckets` of config.json only sizes the table
FARTHEST = 128  # from this distance on there is one bucket for each direction


def relative(weights: Weights, heads: int) -> Floats:
    """What is added to each head's scores by distance, from -FARTHEST to FARTHEST: float32
    [heads, 2 * FARTHEST + 1]. It is flat from there on. Raises CheckpointError."""
    table = weights.take("encoder.relative_attention_bias.weight", None, heads)
    return table[bucket(np.arange(-FARTHEST, FARTHEST + 1))].T


def bucket(distance: Array) -> Array:
    """The bucket of each query-minus-key distance, as in T5 (arXiv 1910.10683): half of the
    buckets for each direction, half of those exact and the others logarithmic."""
    half = BUCKETS // 2
    exact = half // 2
    n = np.abs(distance)
    scale = np.float32(math.log(FARTHEST / exact))
    far = np.log(np.maximum(n, 1).astype(np.float32) / np.float32(exact)) / scale * (half - exact)
    within = np.where(n < exact, n, np.minimum(exact + far.astype(np.int64), half - 1))
    return within + np.where(distance < 0, half, 0)
