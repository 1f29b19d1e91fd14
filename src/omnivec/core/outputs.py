"""Picking from what models give."""

from __future__ import annotations

from collections.abc import Iterable

from omnivec.core.nouns import Array, Output, Vectors


def dense(outputs: Iterable[Output]) -> list[Array]:
    """The dense vectors among them, in order."""
    return [o.dense for o in outputs if isinstance(o, Vectors) and o.dense is not None]
