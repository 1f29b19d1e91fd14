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


# ── ColBERT ──────────────────────────────────────────────────────────────────────────────


def build_stanford(
    tiny: Callable[..., Path], folder: Path, kind: str = "bert", **told: Any
) -> Path:
    """As colbert-ai saves it: one file with the encoder under `bert.` and the projection."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(_with_words(tiny, kind), folder, dirs_exist_ok=True)
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    _add_words(folder, ["[unused0]", "[unused1]"])
    _edit(folder / "config.json", architectures=["HF_ColBERT"])
    weights = load_file(folder / "model.safetensors")
    weights = {f"bert.{name}": array for name, array in weights.items()}
    random = np.random.default_rng(3)
    weights["linear.weight"] = random.standard_normal((16, 32)).astype(np.float32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    metadata = {
        "query_token_id": "[unused0]",
        "doc_token_id": "[unused1]",
        "query_maxlen": 32,
        "doc_maxlen": 40,
        "mask_punctuation": True,
        "attend_to_mask_tokens": False,
        "dim": 16,
    }
    write_json(folder / "artifact.metadata", {**metadata, **told})
    return folder


def build_pylate(
    tiny: Callable[..., Path],
    folder: Path,
    kind: str = "bert",
    *,
    added: bool = True,
    **told: Any,
) -> Path:
    """As PyLate saves it: the projection in 1_Dense, all else in one file. `added`: whether its
    markers are tokens."""
    shutil.copytree(_with_words(tiny, kind), folder, dirs_exist_ok=True)
    shutil.rmtree(folder / "1_Pooling")
    (folder / "2_Dense").rename(folder / "1_Dense")
    _edit(folder / "1_Dense/config.json", activation_function="torch.nn.modules.linear.Identity")
    if added:
        _add_tokens(folder, ["[Q] ", "[D] "])
    listed = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
    ]
    write_json(folder / "modules.json", listed)
    config = {
        "model_type": "ColBERT",
        "__version__": {"pylate": "1.3.0"},
        "prompts": {"query": "", "document": ""},
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": 32,
        "document_length": 40,
        "attend_to_expansion_tokens": False,
        "skiplist_words": [".", ",", "!", "?", "-"],
    }
    write_json(folder / "config_sentence_transformers.json", {**config, **told})
    return folder


def _with_words(tiny: Callable[..., Path], kind: str) -> Path:
    """An encoder with places in its table for two words more, and a Dense to 16."""
    rows = json.loads((tiny(kind) / "config.json").read_text())["vocab_size"] + 2
    config = {"vocab_size": rows, **({"local_attention": 64} if kind == "modernbert" else {})}
    return tiny(kind, dense=((16, "torch.nn.modules.linear.Identity"),), config=config)


def _add_words(folder: Path, words: Sequence[str]) -> None:
    told = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = told["model"]["vocab"]
    for word in words:
        vocabulary[word] = len(vocabulary)
    write_json(folder / "tokenizer.json", told)


def _add_tokens(folder: Path, words: Sequence[str]) -> None:
    told = json.loads((folder / "tokenizer.json").read_text())
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "special": False}
    for at, word in enumerate(words, start=rows - len(words)):
        told["added_tokens"].append({"id": at, "content": word, "normalized": True, **flags})
    write_json(folder / "tokenizer.json", told)


def _edit(path: Path, **changes: Any) -> None:
    write_json(path, {**json.loads(path.read_text()), **changes})
