"""Whether the pictures of a batch are what `Session.run` says, for every runtime with towers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from omnivec.core.nouns import Array


def check_squares(pixels: Array, side: int) -> None:
    """Raises ValueError unless they are uint8 [B, side, side, 3], and at least one."""
    if not pixels.size or pixels.dtype != np.uint8 or pixels.shape[1:] != (side, side, 3):
        raise ValueError(f"pictures are uint8 [B, {side}, {side}, 3], and at least one")


def check_patches(pixels: Array, shapes: Array, size: int) -> None:
    """Raises ValueError unless they are uint8 [B, N, size], and at least one, and `shapes` [B, 2]
    tells the rows and columns of at most N patches."""
    if not pixels.size or pixels.dtype != np.uint8 or pixels.shape[2:] != (size,):
        raise ValueError(f"patches are uint8 [B, N, {size}], and at least one")
    fits = shapes.shape == (len(pixels), 2) and shapes.min() > 0
    if not fits or shapes.prod(1).max() > pixels.shape[1]:
        raise ValueError("a picture's rows and columns of patches are more than it has")
