"""Tiny checkpoints of two towers with random weights, as transformers writes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vocabularies import SENTENCES, tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KINDS = ("clip", "siglip", "siglip2", "chinese_clip")
SIZE, PATCH, SIDE = 32, 8, 4  # pixels, pixels of a patch, and patches in a row

_CLASSES = {"clip": "CLIP", "siglip": "Siglip", "siglip2": "Siglip2", "chinese_clip": "ChineseCLIP"}
_WINDOWS = {"clip": 77, "siglip": 64, "siglip2": 64, "chinese_clip": 512}
_TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def build_towers(
    kind: str,
    folder: Path,
    *,
    text: Mapping[str, Any] | None = None,
    image: Mapping[str, Any] | None = None,
    processor: Mapping[str, Any] | None = None,
    projection: int = 16,
    old_end: bool = False,
    seed: int = 0,
) -> Path:
    """A checkpoint of KINDS. `text`, `image` and `processor` win over the tiny configuration;
    with `old_end` CLIP's config tells the wrong end token, as OpenAI's own files do."""
    import torch
    import transformers

    tokens = _tokenizer(kind)
    tokens.save_pretrained(folder)
    name = _CLASSES[kind]
    told = {
        "text_config": {**_TINY, **_text(kind, tokens, old_end=old_end), **(text or {})},
        "vision_config": {**_TINY, **_image(kind), **(image or {})},
    }
    if kind in ("clip", "chinese_clip"):
        told["projection_dim"] = projection
    config = getattr(transformers, f"{name}Config")(**told)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, f"{name}Model")(config).eval()
        with torch.no_grad():  # a transformer whose layers do next to nothing hides mistakes
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter.ndim == 1) * 0.1)
    model.save_pretrained(folder)
    made = _processor(kind, **{**_sizes(kind), **(processor or {})})
    made.save_pretrained(folder)
    return folder


def _text(kind: str, tokens: Any, *, old_end: bool) -> dict[str, Any]:
    told = {
        "vocab_size": len(tokens),
        "max_position_embeddings": _WINDOWS[kind],
        "pad_token_id": tokens.pad_token_id,
    }
    if kind == "clip":
        end = 2 if old_end else tokens.eos_token_id
        told |= {"eos_token_id": end, "bos_token_id": tokens.bos_token_id}
    return told


def _image(kind: str) -> dict[str, Any]:
    if kind == "siglip2":
        return {"patch_size": PATCH, "num_patches": SIDE**2}
    return {"patch_size": PATCH, "image_size": SIZE}


def _sizes(kind: str) -> dict[str, Any]:
    if kind == "siglip2":
        return {"patch_size": PATCH, "max_num_patches": SIDE**2}
    if kind == "siglip":
        return {"size": {"height": SIZE, "width": SIZE}}
    return {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}


def _processor(kind: str, **told: Any) -> Any:
    import transformers

    return getattr(transformers, f"{_CLASSES[kind]}ImageProcessorPil")(**told)


# ── the reference ────────────────────────────────────────────────────────────────────────


def reference_model(folder: Path) -> Any:
    import transformers

    return transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()


def reference_processor(folder: Path) -> Any:
    """transformers' own, the one that needs no torchvision."""
    import transformers

    named = json.loads((folder / "preprocessor_config.json").read_text())
    name = named["image_processor_type"].removesuffix("Fast").removesuffix("Pil")
    return getattr(transformers, f"{name}Pil").from_pretrained(folder)


# ── tokenizers ───────────────────────────────────────────────────────────────────────────


def _tokenizer(kind: str) -> Any:
    if kind == "chinese_clip":
        return tokenizer("wordpiece", _WINDOWS[kind], segments=True)
    from transformers import PreTrainedTokenizerFast

    inner = _letters(kind)
    end = "<|endoftext|>" if kind == "clip" else "</s>" if kind == "siglip" else "<eos>"
    names = {"eos_token": end, "pad_token": "<pad>" if kind == "siglip2" else end}
    if kind == "clip":
        names["bos_token"] = "<|startoftext|>"
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=_WINDOWS[kind],
        model_input_names=["input_ids", *(["attention_mask"] if kind == "clip" else [])],
        padding_side="right",
        **names,
    )


def _letters(kind: str) -> Any:
    """Bytes and pieces. CLIP's special tokens have the highest ids, SigLIP's the lowest."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    first = {"clip": [], "siglip": ["<unk>", "</s>"], "siglip2": ["<pad>", "<eos>", "<bos>"]}[kind]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=first,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES, trainer)
    if kind == "clip":
        made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        made.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    made.post_processor = _around(kind, made)
    return made


def _around(kind: str, made: Any) -> Any:
    from tokenizers import processors

    before = {"clip": ["<|startoftext|>"]}.get(kind, [])
    after = {"clip": "<|endoftext|>", "siglip": "</s>", "siglip2": "<eos>"}[kind]
    return processors.TemplateProcessing(
        single=[*before, "$A", after],
        pair=[*before, "$A", after, "$B:1", f"{after}:1"],
        special_tokens=[(name, made.token_to_id(name)) for name in (*before, after)],
    )
