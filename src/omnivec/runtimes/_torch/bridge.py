"""Arrays to a device and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from omnivec.core.nouns import Array

Tensor: TypeAlias = Any  # torch is not there when this module is imported


class Bridge:
    """To `device`. `streams`: how many batches may be under way on it."""

    def __init__(self, device: str) -> None:
        import torch

        self._torch = torch
        self._device = device
        self._cuda = device.startswith("cuda")
        self.streams = 2 if self._cuda else 1

    def move(self, array: Array) -> Tensor:
        tensor = self._torch.from_numpy(np.ascontiguousarray(array))
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._cuda else tensor

    def fetch(self, output: Tensor) -> Callable[[], Array]:
        """Starts the copy to the host; what it gives waits for it and gives the array."""
        if not self._cuda:
            return lambda: np.asarray(output.numpy())
        torch = self._torch
        host = torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
        host.copy_(output, non_blocking=True)
        done = torch.cuda.Event(blocking=True)
        done.record(torch.cuda.current_stream(output.device))

        def wait() -> Array:
            done.synchronize()
            return np.array(host.numpy())  # pinned memory is scarce: it goes back

        return wait

    def memory(self) -> int:
        """Bytes that this process holds on the device."""
        return int(self._torch.cuda.memory_allocated(self._device)) if self._cuda else 0

    def clear(self) -> None:
        """Gives back what nobody uses."""
        if self._cuda:
            self._torch.cuda.empty_cache()
