"""LoRA adapters on a torch model: hooks on its linear layers, one for all adapters of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

from omnivec.core.checkpoint import Lora, Update
from omnivec.core.nouns import Array

Tensor: TypeAlias = Any  # torch is not there when this module is imported


class Adapters:
    """Those of a model. Layers add what is theirs while `of` says whose the rows are.

    Raises CheckpointError when an adapter is for another model.
    """

    def __init__(self, model: Any, adapters: Sequence[Lora]) -> None:
        import torch

        self._rows: Tensor | None = None
        self._count = len(adapters)
        layers = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        shapes = {name: tuple(layer.weight.shape) for name, layer in layers.items()}
        each = [adapter.updates(shapes) for adapter in adapters]
        for name, layer in layers.items():
            there = [(k, updates[name]) for k, updates in enumerate(each, 1) if name in updates]
            if there:
                layer.register_forward_hook(self._hook(layer, there))

    def read(self, numbers: Array | None, rows: int) -> Array:
        """Each row's adapter, int64 [B], 0 where none is told. Raises ValueError for a number
        that no adapter has."""
        told = np.zeros(rows, np.int64) if numbers is None else numbers
        if told.shape != (rows,) or told.min() < 0 or told.max() > self._count:
            raise ValueError(f"adapters are 0 to {self._count} here, one for each row")
        return told

    @contextmanager
    def of(self, rows: Array, move: Callable[[Array], Tensor]) -> Iterator[None]:
        """While this lasts, `rows` are the numbers along the first axes of each layer's input:
        int64 [B], or [1, S] of packed tokens. `move` brings them to the device."""
        self._rows = move(rows) if self._count else None
        try:
            yield
        finally:
            self._rows = None

    def _hook(self, layer: Any, there: Sequence[tuple[int, Update]]) -> Callable[..., Tensor]:
        import torch

        def on_device(array: Array) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(layer.weight)

        a = on_device(np.concatenate([update.a for _, update in there]))
        b = on_device(np.concatenate([update.b for _, update in there], axis=1))
        owners = torch.tensor(
            [k for k, update in there for _ in update.a], device=layer.weight.device
        )

        def add(_: Any, inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
            if self._rows is None:
                return y
            x = inputs[0]
            own = self._rows[..., None] == owners
            while own.ndim < x.ndim:  # all tokens of a row have its adapter
                own = own.unsqueeze(-2)
            return y + ((x @ a.T) * own) @ b.T

        return add
