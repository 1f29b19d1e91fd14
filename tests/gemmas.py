"""Tiny checkpoints of Gemma's kin with random weights, in the layouts of their repositories.

build_gemma_reranker(folder)   # as BAAI/bge-reranker-v2-gemma: Gemma, a language model
build_gemma2_embedder(folder)  # as BAAI/bge-multilingual-gemma2: the last token
build_embedding_gemma(folder)  # as google/embeddinggemma-300m: both ways, mean, two Dense
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from checkpoints import IDENTITY, _model, _pooling, _write_json, _write_modules, _write_prompts
from decoders import DECODERS, OWN, SHARED
from vocabularies import SENTENCES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "GEMMA_PROMPTS",
    "build_embedding_gemma",
    "build_gemma2_embedder",
    "build_gemma_reranker",
]

GEMMA_PROMPTS = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    "STS": "task: sentence similarity | query: ",
}
SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")


def build_gemma_reranker(folder: Path, *, longest: int | None = None) -> Path:
    _save(folder, "gemma", "ForCausalLM", side="right", ends=False, longest=longest, config={})
    return folder


def build_gemma2_embedder(folder: Path, prompts: Mapping[str, str], *, longest: int = 64) -> Path:
    _save(folder, "gemma2", "Model", side="left", ends=True, longest=longest, config={})
    _write_modules(
        folder, [("Pooling", _pooling(["last"], 32, True, "old"), {}), _NORMALIZE], "old"
    )
    _write_settings(folder, prompts, longest)
    return folder


def build_embedding_gemma(
    folder: Path, *, side: str = "left", longest: int = 64, dtype: str = "float32", **config: Any
) -> Path:
    told = {"use_bidirectional_attention": True, **config}
    _save(
        folder, "gemma3_text", "Model", side, ends=True, longest=longest, config=told, dtype=dtype
    )
    pooling = ("Pooling", _pooling(["mean"], 32, True, "old"), {})
    _write_modules(folder, [pooling, _dense(32, 48, 0), _dense(48, 32, 1), _NORMALIZE], "old")
    _write_settings(folder, GEMMA_PROMPTS, longest)
    return folder


_NORMALIZE: tuple[str, dict[str, Any], dict[str, Any]] = ("Normalize", {}, {})


def _dense(inner: int, out: int, seed: int) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """Neither bent nor moved, as EmbeddingGemma's two."""
    told = {"in_features": inner, "out_features": out, "bias": False}
    weight = np.random.default_rng(seed).standard_normal((out, inner)) * 0.3
    weights = {"linear.weight": weight.astype(np.float32)}
    return "Dense", {**told, "activation_function": IDENTITY}, weights


def _write_settings(folder: Path, prompts: Mapping[str, str], longest: int) -> None:
    told = {"max_seq_length": longest, "do_lower_case": False}
    _write_json(folder / "sentence_bert_config.json", told)
    _write_prompts(folder, "old", prompts, None)


def _save(
    folder: Path,
    kind: str,
    ending: str,
    side: str,
    *,
    ends: bool,
    longest: int | None,
    config: Mapping[str, Any],
    dtype: str = "float32",
) -> None:
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    tokens = _tokenizer(side, ends=ends, longest=longest)
    tokens.save_pretrained(folder)
    told = {**SHARED, **OWN[kind], "vocab_size": len(tokens), **config}
    model = _model(DECODERS[kind], ending, told, 0)
    model.to(getattr(torch, dtype)).save_pretrained(folder)


def _tokenizer(side: str, *, ends: bool, longest: int | None) -> Any:
    """transformers' own for Gemma over a few merges; "Yes" is one of its tokens."""
    import json

    from tokenizers import Tokenizer, models, normalizers, trainers
    from transformers import GemmaTokenizer

    learnt = Tokenizer(models.BPE())
    learnt.normalizer = normalizers.Replace(" ", "\u2581")
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=[*SPECIALS, "\n"], show_progress=False
    )
    learnt.train_from_iterator([*SENTENCES, *["Yes"] * 9], trainer)
    made = json.loads(learnt.to_str())["model"]
    return GemmaTokenizer(
        vocab=made["vocab"],
        merges=[tuple(pair) for pair in made["merges"]],
        add_bos_token=True,
        add_eos_token=ends,
        padding_side=side,
        **({} if longest is None else {"model_max_length": longest}),
    )
