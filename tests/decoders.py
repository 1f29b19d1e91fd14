"""Tiny decoders with random weights, in the layouts that real repositories have.

build_decoder("qwen3", folder)                        # an embedder, as Qwen3-Embedding
build_decoder("qwen3", folder, ending="ForCausalLM")  # what a reranker's file holds
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from checkpoints import _model, _pooling, _write_json, _write_modules, _write_prompts
from vocabularies import SENTENCES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["DECODERS", "END", "OWN", "SHARED", "build_decoder", "edit", "save_tokenizer"]

END = "<|endoftext|>"
SPECIALS = (END, "<|im_start|>", "<|im_end|>", "<think>", "</think>")
WORDS = ("yes", "no", "1", "0", "Yes")
PIECES = (  # as transformers' class for Qwen2 has it, whatever tokenizer.json says
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DECODERS = {
    "qwen3": "Qwen3",
    "qwen2": "Qwen2",
    "mistral": "Mistral",
    "llama": "Llama",
    "gemma": "Gemma",
    "gemma2": "Gemma2",
    "gemma3_text": "Gemma3Text",
}

# Four heads of queries on two of keys; a head's size is not the hidden size by their number.
SHARED = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,
}
# What sets Gemma apart shows only where it bites: narrow windows, low caps, scales of its own.
OWN: Mapping[str, Mapping[str, Any]] = {
    "qwen3": {"head_dim": 16},
    "mistral": {"head_dim": 16},
    "gemma": {"head_dim": 16},
    "gemma2": {
        "head_dim": 16,
        "query_pre_attn_scalar": 24,
        "attn_logit_softcapping": 2.0,
        "sliding_window": 5,
    },
    "gemma3_text": {
        "head_dim": 16,
        "num_hidden_layers": 3,
        "query_pre_attn_scalar": 24,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
}


def build_decoder(
    kind: str,
    folder: Path,
    *,
    ending: str = "Model",
    ends: bool = True,
    side: str = "left",
    modules: bool = True,
    prompts: Mapping[str, str] | None = None,
    longest: int = 256,
    config: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    seed: int = 0,
) -> Path:
    """`ends`: the tokenizer puts END after each text; `side` is where it pads. With `modules`
    an "Model" gets sentence-transformers' files."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    tokens = save_tokenizer(folder, ends=ends, side=side, longest=longest)
    told = {**SHARED, "vocab_size": len(tokens), "pad_token_id": tokens.pad_token_id}
    told |= {"bos_token_id": None, "eos_token_id": tokens.pad_token_id}
    told |= OWN.get(kind, {})
    model = _model(DECODERS[kind], ending, {**told, **(config or {})}, seed)
    with torch.no_grad():  # torch leaves the padding's at 0, and it is what ends a text
        model.get_input_embeddings().weight[tokens.pad_token_id].normal_(0, 0.3)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    if modules and ending == "Model":
        steps = [("Pooling", _pooling(["last"], told["hidden_size"], True, "old"), {})]
        _write_modules(folder, [*steps, ("Normalize", {}, {})], "old")
        _write_json(
            folder / "sentence_bert_config.json",
            {"max_seq_length": longest, "do_lower_case": False},
        )
        _write_prompts(folder, "old", prompts or {}, None)
    return folder


def save_tokenizer(folder: Path, *, ends: bool, side: str, longest: int) -> Any:
    """Bytes and merges, as Qwen's; each of WORDS is one token."""
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES, trainer)
    made.add_tokens([word for word in WORDS if made.token_to_id(word) is None])
    if ends:
        made.post_processor = processors.TemplateProcessing(
            single=f"$A {END}",
            pair=f"$A $B {END}",
            special_tokens=[(END, made.token_to_id(END))],
        )
    tokens = PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token=END,
        eos_token="<|im_end|>",
        padding_side=side,
        model_max_length=longest,
        model_input_names=["input_ids", "attention_mask"],
    )
    tokens.save_pretrained(folder)
    return tokens


def edit(folder: Path, **changes: Any) -> None:
    """Changes config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
