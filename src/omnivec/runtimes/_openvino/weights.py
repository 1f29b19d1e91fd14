"""A checkpoint's tensors by name, for the graphs that share their memory."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Protocol

from omnivec.runtimes import _weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self


class Updates(Protocol):
    """What adapters add to layers: those of lora.py, which is made of blocks that know these
    weights. `rows` is the same for layers that are given one token of each row."""

    @property
    def rows(self) -> Updates: ...

    def add(self, y: Any, x: Any, key: str) -> Any:
        """To `y` [N, out], which the layer `key` makes of `x` [N, in]."""
        ...


class Weights(_weights.Weights):
    """Besides the tensors, what layers made of them do differently."""

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        super().__init__(name, files)
        self.rounding = False  # whether graphs made of these weights multiply in int8
        self.updates: Updates | None = None  # what adapters add to layers made of them

    def outer(self) -> Self:
        other = super().outer()
        other.rounding = False
        return other

    def rounded(self) -> Self:
        """The same tensors for the body of a graph in int8; heads take the others."""
        other = copy(self)
        other.rounding = True
        return other

    def adapted(self, updates: Updates) -> Self:
        """The same tensors for layers that adapters change."""
        other = copy(self)
        other.updates = updates
        return other

    def of_rows(self) -> Self:
        """The same tensors for layers that are given one token of each row, or what was made
        of its tokens, and not all of them."""
        return self.adapted(self.updates.rows) if self.updates else self
