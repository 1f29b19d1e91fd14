"""Which session a head has on one device."""

from __future__ import annotations

from typing import TypeAlias

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.steps import Head
from omnivec.runtimes._torch.session import TorchSession
from omnivec.runtimes._torch.towers import TowerSession

Local: TypeAlias = TorchSession | TowerSession


def open_session(checkpoint: Checkpoint, head: Head, device: str, dtype: str) -> Local:
    """Raises CheckpointError."""
    made = TowerSession if head.kind == "tower" else TorchSession
    return made(checkpoint, head, device, dtype)
