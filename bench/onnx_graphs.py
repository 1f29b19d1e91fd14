"""Writes a checkpoint as an ONNX graph with its pooling inside, for the ONNX Runtime peer.

python -m bench.onnx_graphs CHECKPOINT POOLING GRAPH
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from bench import environments, models
from bench.places import MODELS, ROOT, environment


def graph(model: str) -> Path:
    """The graph of that checkpoint, made first, in the environment that has an exporter."""
    made = MODELS / "onnx" / f"{model}.onnx"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        pooling = models.SHAPES[model].pooling if model in models.SHAPES else "mean"
        python = environments.prepare("sentence-transformers")
        command = [str(python), "-m", "bench.onnx_graphs", str(models.folder(model)), pooling]
        subprocess.run([*command, str(made)], cwd=ROOT, env=environment(), check=True)
    return made


def _pooled(encoder: Any, pooling: str) -> Any:
    import torch

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            hidden = self.encoder(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            ).last_hidden_state
            if pooling == "cls":
                vectors = hidden[:, 0]
            else:
                kept = attention_mask.unsqueeze(-1).to(hidden.dtype)
                vectors = (hidden * kept).sum(1) / kept.sum(1)
            return torch.nn.functional.normalize(vectors)

    return Pooled().eval()


def write(checkpoint: str, pooling: str, to: str) -> None:
    import torch
    import transformers

    # sdpa's mask code does not survive this exporter; ONNX Runtime fuses the eager attention
    encoder = transformers.AutoModel.from_pretrained(
        checkpoint, attn_implementation="eager", dtype=torch.float32
    )
    ids = torch.ones(2, 16, dtype=torch.int64)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    lengths = {name: {0: "batch", 1: "tokens"} for name in names}
    part = Path(to).with_suffix(".part")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _pooled(encoder, pooling),
            (ids, ids, torch.zeros_like(ids)),
            str(part),
            input_names=names,
            output_names=["vectors"],
            dynamic_axes={**lengths, "vectors": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
    part.rename(to)


if __name__ == "__main__":
    write(*sys.argv[1:])
