"""The layers of a transformer, whose queries, keys and values open_clip and timm keep joined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from omnivec.conversion.stock import Stock
    from omnivec.core.nouns import Floats

PARTS = ("weight", "bias")


def same(stock: Stock, key: str, name: str) -> dict[str, Floats]:
    """Weight and bias as they are."""
    return {f"{name}.{part}": stock.take(f"{key}.{part}") for part in PARTS}


def layer(
    stock: Stock, key: str, name: str, names: Mapping[str, str], joined: str
) -> dict[str, Floats]:
    """`names` are ours by theirs; `joined` is what theirs are called but for weight or bias."""
    made: dict[str, Floats] = {}
    for theirs, ours in names.items():
        made |= same(stock, f"{key}.{theirs}", f"{name}.{ours}")
    for part in PARTS:
        split = np.split(stock.take(f"{key}.{joined}{part}"), 3)
        made |= {
            f"{name}.self_attn.{one}_proj.{part}": np.ascontiguousarray(each)
            for one, each in zip("qkv", split, strict=True)
        }
    return made
