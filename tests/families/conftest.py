"""Checkpoints opened as the engine opens them: a family's model over the torch runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.nouns import Relevance, Text, Unit, Vectors
from omnivec.families.classifier import PLUGIN as CLASSIFIER
from omnivec.families.cross_encoder import PLUGIN as CROSS_ENCODER
from omnivec.families.encoder import PLUGIN as ENCODER
from omnivec.families.static import PLUGIN as STATIC
from omnivec.runtimes.torch import PLUGIN as TORCH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

torch.set_num_threads(1)


class Opened:
    """A model, and what a test asks of it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.family = next(
            family
            for family in (STATIC, CROSS_ENCODER, CLASSIFIER, ENCODER)
            if family.claims(checkpoint)
        )
        self.card = self.family.card(checkpoint)
        heads = self.family.graphs(checkpoint)
        sessions = {
            name: TORCH.open(checkpoint, name, head, "cpu", "f32") for name, head in heads.items()
        }
        self.model = self.family.ready(checkpoint, sessions)

    def prepare(self, texts: Sequence[str], **wishes: Any) -> list[Any]:
        return self.model.prepare([Unit(parts=(Text(text),), **wishes) for text in texts])

    def embed(self, texts: Sequence[str], **wishes: Any) -> np.ndarray:
        """[n, d] in one batch, not normalised."""
        outputs = self.model.forward(self.prepare(texts, **wishes))
        assert all(isinstance(output, Vectors) for output in outputs)
        return np.stack([output.dense for output in outputs])

    def unit(self, texts: Sequence[str], **wishes: Any) -> np.ndarray:
        vectors = self.embed(texts, **wishes)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def score(self, query: str, documents: Sequence[str], **wishes: Any) -> list[Relevance]:
        units = [
            Unit(parts=(Text(query),), other=(Text(document),), **wishes) for document in documents
        ]
        return self.model.forward(self.model.prepare(units))


@pytest.fixture(scope="session")
def opened() -> Callable[..., Opened]:
    def opened(folder: Path, **told: Any) -> Opened:
        return Opened(Checkpoint("tiny", folder, **told))

    return opened
