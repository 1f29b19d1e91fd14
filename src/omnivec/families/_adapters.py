"""Which of a checkpoint's LoRA adapters a unit is for, as its features tell a session."""

from __future__ import annotations

import numpy as np

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.nouns import Array, Unit


class Adapters:
    """`names` for the card, and each unit's number, from 1 on; 0 is the model alone."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.names = tuple(adapter.name for adapter in checkpoint.adapters)
        self._numbers = {
            name: np.array(number, np.int64) for number, name in enumerate((None, *self.names))
        }

    def arrays(self, unit: Unit) -> dict[str, Array]:
        """What `_text.pack` brings into a batch; nothing for a checkpoint without adapters."""
        return {"adapter": self._numbers[unit.adapter]} if self.names else {}
