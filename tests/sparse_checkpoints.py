"""Tiny learned sparse encoders, as sentence-transformers and transformers save them.

folder = sparse("bert")                                   # SpladePooling behind a transformer
folder = sparse("bert", layout="router")                  # queries by weights of their own
folder = sparse("bert", layout="bare")                    # no file of sentence-transformers
folder = sparse("bert", layout="idf")                     # the same with OpenSearch's idf.json
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from checkpoints import KINDS, _common, _model
from vocabularies import tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_OLD = "sentence_transformers.sparse_encoder.models."


def build_sparse(
    kind: str,
    folder: Path,
    *,
    layout: str = "chain",
    strategy: str = "max",
    function: str = "relu",
    active: int | None = None,
    prompts: dict[str, str] | None = None,
    spelling: str = "new",
    positions: int = 64,
    root: bool = False,
    untied: bool = False,
    seed: int = 0,
) -> Path:
    """`strategy`, `function` and `active` are named as sentence-transformers' config has them.
    `root` puts a router's transformer into the root folder, as OpenSearch's repositories do."""
    folder.mkdir(parents=True, exist_ok=True)
    made = KINDS[kind]
    tokens = tokenizer(made.tokenizer, positions, segments=made.segments)
    told = made.config(_common(made, tokens, positions, 32))
    model = _model(made.classes, "ForMaskedLM", {**told, "tie_word_embeddings": not untied}, seed)
    if layout in ("bare", "idf"):
        tokens.save_pretrained(folder)
        model.save_pretrained(folder)
        if layout == "idf":
            _write_idf(folder, tokens)
        return folder
    inner = folder / "given"
    tokens.save_pretrained(inner)
    model.save_pretrained(inner)
    _save(inner, folder, tokens, layout, strategy, function, active, prompts)
    if spelling == "old":
        _spell_old(folder)
    if root:
        _move_to_root(folder)
    return folder


def _save(inner, folder, tokens, layout, strategy, function, active, prompts) -> None:
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    chain = [
        Transformer(str(inner), transformer_task="fill-mask"),
        SpladePooling(strategy, function),
    ]
    if layout == "router":
        weights = torch.from_numpy(_weights(len(tokens)))
        query = SparseStaticEmbedding(tokens, weight=weights, frozen=True)
        chain = [Router.for_query_document(query_modules=[query], document_modules=chain)]
    model = SparseEncoder(modules=chain, max_active_dims=active, prompts=prompts, device="cpu")
    model.save_pretrained(str(folder), create_model_card=False)


def _weights(count: int) -> np.ndarray:
    """A few of them 0, as of words that a corpus has everywhere."""
    weights = np.random.default_rng(1).uniform(0.1, 9, count).astype(np.float32)
    weights[::7] = 0
    return weights


def _write_idf(folder: Path, tokens: Any) -> None:
    weights = _weights(len(tokens)).tolist()
    listed = {token: weights[at] for token, at in tokens.get_vocab().items() if at % 3}
    (folder / "idf.json").write_text(json.dumps({**listed, "no such token": 1.0}))


def _spell_old(folder: Path) -> None:
    path = folder / "modules.json"
    listed = json.loads(path.read_text())
    for module in listed:
        name = module["type"].rpartition(".")[2]
        module["type"] = _OLD + {"Transformer": "MLMTransformer"}.get(name, name)
    path.write_text(json.dumps(listed))
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 32, "do_lower_case": False})
    )


def _move_to_root(folder: Path) -> None:
    path = folder / "router_config.json"
    config = json.loads(path.read_text())
    inner = config["structure"]["document"][0]
    config["structure"]["document"][0] = ""
    config["types"][""] = config["types"].pop(inner)
    path.write_text(json.dumps(config))
    for file in (folder / inner).iterdir():
        file.rename(folder / file.name)
    (folder / inner).rmdir()


@pytest.fixture(scope="session", name="sparse")
def sparse_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`sparse(kind, **options) -> folder`, as `tiny` of checkpoints.py."""
    built: dict[str, Path] = {}

    def sparse(kind: str, **options: Any) -> Path:
        key = json.dumps([kind, options], sort_keys=True)
        if key not in built:
            built[key] = build_sparse(kind, tmp_path_factory.mktemp(f"sparse_{kind}"), **options)
        return built[key]

    return sparse
