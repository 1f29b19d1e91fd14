"""A bge-m3 with random weights: vectors of all three types from one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import checkpoints

if TYPE_CHECKING:
    from pathlib import Path

WIDTH = 32


def build(folder: Path, **told: Any) -> Path:
    """Beside its encoder a linear layer for the weights of words and another for the vectors
    of tokens, in the files that FlagEmbedding keeps them in."""
    import torch

    checkpoints.build_encoder("xlm_roberta", folder, pooling=("cls",), hidden_size=WIDTH, **told)
    torch.manual_seed(3)
    words = torch.nn.Linear(WIDTH, 1)
    torch.nn.init.constant_(words.bias, 1)  # what is below 0 weighs nothing: not all of them
    torch.save(words.state_dict(), folder / "sparse_linear.pt")
    torch.save(torch.nn.Linear(WIDTH, WIDTH).state_dict(), folder / "colbert_linear.pt")
    return folder
