"""Vectors in fewer bytes: the formulas of SIE (its QuantizePostprocessor), which return no
scale, so what comes out is for comparing with vectors that were made the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from omnivec.core.nouns import Array, Dtype, Floats


def quantise(rows: Floats, dtype: Dtype) -> Array:
    """[.., d] to [.., d] of that type; for `binary` and `ubinary` uint8 [.., ceil(d / 8)]."""
    return _FORMULAS[dtype](rows)


def _int8(rows: Floats) -> Array:
    """round(x / max|x| * 127), each row by itself; a row of zeros stays zero."""
    peak = np.abs(rows).max(axis=-1, keepdims=True)
    return np.round(rows / np.where(peak > 0, peak, 1) * 127).astype(np.int8)


def _uint8(rows: Floats) -> Array:
    """round((x - min) / (max - min) * 255), each row by itself; 128 where all are equal."""
    low = rows.min(axis=-1, keepdims=True)
    span = rows.max(axis=-1, keepdims=True) - low
    scaled = np.round((rows - low) / np.where(span > 0, span, 1) * 255)
    return np.where(span > 0, scaled, 128).astype(np.uint8)


def _bits(rows: Floats) -> Array:
    """The signs, eight to a byte, the first in the highest bit; a zero counts as negative."""
    return np.packbits(rows > 0, axis=-1)


_FORMULAS: Mapping[str, Callable[[Floats], Array]] = {
    "float32": lambda rows: rows,
    "float16": lambda rows: rows.astype(np.float16),
    "int8": _int8,
    "uint8": _uint8,
    "binary": _bits,
    "ubinary": _bits,
}
DTYPES: tuple[str, ...] = tuple(_FORMULAS)
