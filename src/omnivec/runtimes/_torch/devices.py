"""The GPUs as torch tells of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from omnivec.core.machine import Accelerator

T = TypeVar("T")


def accelerators(workers: Sequence[tuple[str, int]]) -> list[Accelerator]:
    """The GPUs of `workers`, (device, bytes) each; where there are none, that of this process.

    A GPU whose models are in other processes is not touched: asking it for its free memory
    would put a context of this process on it. `used` is then what the models hold.
    """
    import torch

    if not workers:
        device = f"cuda:{torch.cuda.current_device()}"
        free, total = torch.cuda.mem_get_info(device)
        return [_accelerator(device, total - free)]
    held: Counter[str] = Counter()
    for device, size in workers:
        held[device] += size
    return [_accelerator(device, size) for device, size in sorted(held.items())]


def _accelerator(device: str, used: int) -> Accelerator:
    import torch

    facts = torch.cuda.get_device_properties(device)
    utilization = _measured(lambda: float(torch.cuda.utilization(device)))
    temperature = _measured(lambda: int(torch.cuda.temperature(device)))
    return Accelerator(device, facts.name, used, facts.total_memory, utilization, temperature)


def _measured(measure: Callable[[], T]) -> T | None:
    """torch asks NVIDIA's own library, through a package that need not be there."""
    try:
        return measure()
    except (ImportError, RuntimeError, AttributeError):
        return None
