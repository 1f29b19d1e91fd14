"""Tiny checkpoints that make several vectors of a text, and models opened in each runtime."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from omnivec.core.checkpoint import Checkpoint
from omnivec.core.nouns import Text, Unit, Vectors
from omnivec.runtimes.openvino import PLUGIN as OPENVINO
from omnivec.runtimes.torch import PLUGIN as TORCH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

RUNTIMES = {"openvino": OPENVINO, "torch": TORCH}


class Opened:
    """A family's model in f32, and what a test asks of it."""

    def __init__(self, family: Any, folder: Path, runtime: str = "openvino", **told: Any) -> None:
        checkpoint = Checkpoint("tiny", folder, **told)
        assert family.claims(checkpoint)
        self.card = family.card(checkpoint)
        sessions = {
            name: RUNTIMES[runtime].open(checkpoint, name, head, "cpu", "f32")
            for name, head in family.graphs(checkpoint).items()
        }
        self.model = family.ready(checkpoint, sessions)

    def prepare(self, texts: Sequence[str], **wishes: Any) -> list[Any]:
        return self.model.prepare([Unit(parts=(Text(text),), **wishes) for text in texts])

    def encode(self, texts: Sequence[str], **wishes: Any) -> list[Vectors]:
        return self.model.forward(self.prepare(texts, **wishes))

    def rows(self, texts: Sequence[str], **wishes: Any) -> list[np.ndarray]:
        found = self.encode(texts, kinds=("multivector",), **wishes)
        assert all(one.dense is None and one.sparse is None for one in found)
        return [one.multivector for one in found]


def build_bge_m3(
    tiny: Callable[..., Path], folder: Path, *, dims: int = 16, bias: float = 0
) -> Path:
    """XLM-RoBERTa with the two heads beside it. `bias` moves the sparse weights up or down."""
    import torch

    encoder = tiny("xlm_roberta", pooling=("cls",), positions=64)
    shutil.copytree(encoder, folder, dirs_exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for file, size in (("sparse_linear.pt", 1), ("colbert_linear.pt", dims)):
            layer = torch.nn.Linear(32, size)
            if size == 1:
                layer.bias.data += bias
            torch.save(layer.state_dict(), folder / file)
    return folder


def pickle_weights(folder: Path) -> None:
    """model.safetensors as pytorch_model.bin, which is all that BAAI/bge-m3 has."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))
