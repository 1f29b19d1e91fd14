"""Tiny checkpoints with random weights, in the layouts that real repositories have.

    def test_something(tiny):
        folder = tiny("bert", pooling=("cls",), normalize=True)      # a bi-encoder
        folder = tiny("xlm_roberta", num_labels=1)                   # a cross-encoder
        folder = tiny("model2vec")                                   # static embeddings

`tiny` builds each variant once a session. transformers writes the encoder and its tokenizer;
the files of sentence-transformers are written here, in both of their spellings: "old" as
its releases before 5 did, "new" as its release 6 does.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vocabularies import SENTENCES, tokenizer, wordpiece

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "IDENTITY",
    "KINDS",
    "MODES",
    "OTHERS",
    "SENTENCES",
    "TANH",
    "build_encoder",
    "build_static_model2vec",
    "build_static_st",
    "drop_tensor",
    "header_of",
    "laid_out",
    "tiny_checkpoints",
    "truncate_weights",
]

MODES = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "last")
TANH = "torch.nn.modules.activation.Tanh"
IDENTITY = "torch.nn.modules.linear.Identity"

_OLD_MODES = {
    "cls": "cls_token",
    "max": "max_tokens",
    "mean": "mean_tokens",
    "mean_sqrt_len": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean_tokens",
    "last": "lasttoken",
}
_NEW_MODES = {"mean_sqrt_len": "mean_sqrt_len_tokens", "last": "lasttoken"}
_OLD_TYPES = "sentence_transformers.models."
_NEW_TYPES = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "LayerNorm": "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm",
    "StaticEmbedding": (
        "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"
    ),
}


# ── encoders ─────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Kind:
    """One architecture: the names of its transformers classes and what its config is told.

    `offset` is how many positions the architecture keeps for its padding index.
    """

    classes: str
    tokenizer: str
    offset: int = 0
    segments: bool = False
    config: Callable[[dict[str, Any]], dict[str, Any]] = dict


def _distilbert(common: dict[str, Any]) -> dict[str, Any]:
    renamed = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
    }
    return {renamed.get(name, name): value for name, value in common.items()}


def _modernbert(common: dict[str, Any]) -> dict[str, Any]:
    specials = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    windows = {"num_hidden_layers": 4, "global_attn_every_n_layers": 3, "local_attention": 8}
    return {**common, **specials, **windows}


def _deberta(common: dict[str, Any]) -> dict[str, Any]:
    relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16}
    named = {"position_biased_input": False, "norm_rel_ebd": "layer_norm", "share_att_key": True}
    return {**common, **relative, **named, "type_vocab_size": 0}


def _bart(common: dict[str, Any]) -> dict[str, Any]:
    renamed = {"hidden_size": "d_model"}
    told = {renamed.get(name, name): value for name, value in common.items()}
    sides = ("encoder", "decoder")
    told |= {f"{side}_layers": told["num_hidden_layers"] for side in sides}
    told |= {f"{side}_attention_heads": told["num_attention_heads"] for side in sides}
    told |= {f"{side}_ffn_dim": told["intermediate_size"] for side in sides}
    for name in ("num_hidden_layers", "num_attention_heads", "intermediate_size"):
        del told[name]
    specials = {"bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
    return {**told, **specials, "init_std": told.pop("initializer_range")}


KINDS: Mapping[str, _Kind] = {
    "bert": _Kind("Bert", "wordpiece", segments=True),
    "roberta": _Kind("Roberta", "bytes", offset=2),
    "xlm_roberta": _Kind("XLMRoberta", "unigram", offset=2),
    "camembert": _Kind("Camembert", "unigram", offset=2),
    "distilbert": _Kind("DistilBert", "wordpiece", config=_distilbert),
    "mpnet": _Kind("MPNet", "wordpiece_s", offset=2),
    "modernbert": _Kind("ModernBert", "bytes_cls", config=_modernbert),
    "nomic_bert": _Kind("NomicBert", "wordpiece", segments=True),
}
OTHERS: Mapping[str, _Kind] = {
    "deberta_v2": _Kind("DebertaV2", "wordpiece", config=_deberta),
    "bart": _Kind("Bart", "bytes", config=_bart),
}
"""Architectures that are neither graphs of our own nor run packed."""


def build_encoder(
    kind: str,
    folder: Path,
    *,
    pooling: Sequence[str] = ("mean",),
    include_prompt: bool = True,
    dense: Sequence[tuple[int, str]] = (),
    layer_norm: bool = False,
    normalize: bool = True,
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    max_seq_length: int | None = None,
    lower_case: bool = False,
    modules: bool = True,
    num_labels: int | None = None,
    activation: str | None = None,
    labels: Sequence[str] | None = None,
    positions: int = 64,
    hidden_size: int = 32,
    spelling: str = "new",
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    shards: bool = False,
    dtype: str = "float32",
) -> Path:
    """A bi-encoder, or with `num_labels` a sequence classifier, of an architecture of KINDS or
    OTHERS.

    `dense` is a chain of (out_features, dotted torch activation); `positions` the longest
    input; `config` wins over the architecture's tiny configuration. `activation` is the
    cross-encoder's own, as its config.json names it. `modules=False` leaves out every file
    of sentence-transformers. `shards` splits the weights over several files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = {**KINDS, **OTHERS}[kind]
    tokens = tokenizer(made.tokenizer, positions, segments=made.segments)
    tokens.save_pretrained(folder)
    told = {**_common(made, tokens, positions, hidden_size), **_labelled(num_labels, labels)}
    ending = "Model" if num_labels is None else "ForSequenceClassification"
    model = _model(made.classes, ending, {**made.config(told), **(config or {})}, seed)
    size = "20KB" if shards else "5GB"
    model.to(_torch_dtype(dtype)).save_pretrained(folder, max_shard_size=size)
    if num_labels is not None:
        _write_activation(folder, activation, spelling)
    elif modules:
        steps: list[tuple[str, dict[str, Any], dict[str, np.ndarray]]] = [
            ("Pooling", _pooling(pooling, hidden_size, include_prompt, spelling), {})
        ]
        steps += _projections(dense, hidden_size * len(pooling), seed)
        if layer_norm:
            steps.append(_layer_norm(_width(steps, hidden_size * len(pooling)), seed))
        if normalize:
            steps.append(("Normalize", {}, {}))
        _write_modules(folder, steps, spelling)
        _write_transformer(folder, spelling, max_seq_length, lower_case)
        _write_prompts(folder, spelling, prompts or {}, default_prompt_name)
    return folder


def _common(made: _Kind, tokens: Any, positions: int, hidden_size: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokens),
        "hidden_size": hidden_size,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 2 * hidden_size,
        "max_position_embeddings": positions + made.offset,
        "pad_token_id": tokens.pad_token_id,
        "initializer_range": 0.3,
    }


def _labelled(num_labels: int | None, labels: Sequence[str] | None) -> dict[str, Any]:
    if num_labels is None:
        return {}
    names = list(labels or (f"LABEL_{index}" for index in range(num_labels)))
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
    }


def _model(classes: str, ending: str, told: Mapping[str, Any], seed: int) -> Any:
    import torch
    import transformers

    config = getattr(transformers, f"{classes}Config")(**told)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, f"{classes}{ending}")(config).eval()
        with torch.no_grad():  # biases of 0 and scales of 1 would hide a mistake
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def _torch_dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)


def _write_activation(folder: Path, activation: str | None, spelling: str) -> None:
    if activation is None:
        return
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if spelling == "old":
        config["sbert_ce_default_activation_function"] = activation
    else:
        config["sentence_transformers"] = {"activation_fn": activation, "version": "6.2.0"}
    _write_json(path, config)


# ── the files of sentence-transformers ───────────────────────────────────────────────────


def _pooling(modes: Sequence[str], width: int, include_prompt: bool, spelling: str) -> Any:
    if spelling == "old":
        flags = {f"pooling_mode_{old}": mode in modes for mode, old in _OLD_MODES.items()}
        return {"word_embedding_dimension": width, **flags, "include_prompt": include_prompt}
    named = [_NEW_MODES.get(mode, mode) for mode in modes]
    mode = named[0] if len(named) == 1 else named
    return {"embedding_dimension": width, "pooling_mode": mode, "include_prompt": include_prompt}


def _projections(dense: Sequence[tuple[int, str]], width: int, seed: int) -> list[Any]:
    random = np.random.default_rng(seed)
    steps = []
    for features, activation in dense:
        config = {
            "in_features": width,
            "out_features": features,
            "bias": True,
            "activation_function": activation,
        }
        weights = {
            "linear.weight": (random.standard_normal((features, width)) * 0.3).astype(np.float32),
            "linear.bias": random.standard_normal(features).astype(np.float32),
        }
        steps.append(("Dense", config, weights))
        width = features
    return steps


def _layer_norm(width: int, seed: int) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    random = np.random.default_rng(seed + 1)
    weights = {
        "norm.weight": (1 + random.standard_normal(width) * 0.3).astype(np.float32),
        "norm.bias": random.standard_normal(width).astype(np.float32),
    }
    return "LayerNorm", {"dimension": width}, weights


def _width(steps: Sequence[tuple[str, dict[str, Any], Any]], pooled: int) -> int:
    return next((step[1]["out_features"] for step in reversed(steps) if step[0] == "Dense"), pooled)


def _write_modules(folder: Path, steps: Sequence[Any], spelling: str) -> None:
    listed = [_module(0, "Transformer", "", spelling)]
    for index, (name, config, weights) in enumerate(steps, start=1):
        path = f"{index}_{name}"
        listed.append(_module(index, name, path, spelling))
        (folder / path).mkdir(exist_ok=True)
        if config:
            _write_json(folder / path / "config.json", config)
        if weights:
            _write_weights(folder / path / "model.safetensors", weights)
    _write_json(folder / "modules.json", listed)


def _module(index: int, name: str, path: str, spelling: str) -> dict[str, Any]:
    kind = _OLD_TYPES + name if spelling == "old" else _NEW_TYPES[name]
    return {"idx": index, "name": str(index), "path": path, "type": kind}


def _write_transformer(
    folder: Path, spelling: str, max_seq_length: int | None, lower_case: bool
) -> None:
    path = folder / "sentence_bert_config.json"
    if spelling == "old":
        _write_json(path, {"max_seq_length": max_seq_length, "do_lower_case": lower_case})
        return
    text = {"method": "forward", "method_output_name": "last_hidden_state"}
    _write_json(
        path,
        {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": text},
            "module_output_name": "token_embeddings",
        },
    )
    if max_seq_length is not None:  # release 6 keeps it in the tokenizer alone
        path = folder / "tokenizer_config.json"
        _write_json(path, {**json.loads(path.read_text()), "model_max_length": max_seq_length})


def _write_prompts(
    folder: Path, spelling: str, prompts: Mapping[str, str], default: str | None
) -> None:
    old = spelling == "old"
    _write_json(
        folder / "config_sentence_transformers.json",
        {
            **({} if old else {"model_type": "SentenceTransformer"}),
            "__version__": {"sentence_transformers": "2.7.0" if old else "6.2.0"},
            "prompts": dict(prompts),
            "default_prompt_name": default,
            "similarity_fn_name": "cosine",
        },
    )


# ── static embeddings ────────────────────────────────────────────────────────────────────


def build_static_model2vec(
    folder: Path,
    *,
    dims: int = 32,
    normalize: bool = True,
    weights: bool = False,
    mapping: bool = False,
    modules: bool = True,
    dtype: str = "float32",
    seed: int = 0,
) -> Path:
    """As model2vec saves it: one row for each token, or with `mapping` for each of fewer
    clusters; `weights` scales tokens one by one; `modules` adds sentence-transformers' files."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = wordpiece("[CLS]", "[SEP]", "[PAD]")
    tokens.post_processor = None
    tokens.save(str(folder / "tokenizer.json"))
    size = tokens.get_vocab_size()
    random = np.random.default_rng(seed)
    rows = size // 2 if mapping else size
    arrays = {"embeddings": random.standard_normal((rows, dims)).astype(dtype)}
    if weights:
        arrays["weights"] = random.uniform(0.2, 2, size).astype(np.float64)
    if mapping:
        arrays["mapping"] = random.integers(0, rows, size).astype(np.int64)
    _write_weights(folder / "model.safetensors", arrays)
    _write_json(
        folder / "config.json",
        {
            "model_type": "model2vec",
            "architectures": ["StaticModel"],
            "tokenizer_name": "tiny",
            "hidden_dim": dims,
            "seq_length": 1000000,
            "normalize": normalize,
        },
    )
    if modules:
        listed = [_module(0, "StaticEmbedding", ".", "old")]
        if normalize:
            listed.append(_module(1, "Normalize", "1_Normalize", "old"))
        _write_json(folder / "modules.json", listed)
    return folder


def build_static_st(
    folder: Path,
    *,
    dims: int = 32,
    normalize: bool = False,
    prompts: Mapping[str, str] | None = None,
    spelling: str = "new",
    seed: int = 0,
) -> Path:
    """sentence-transformers' StaticEmbedding; in the "old" spelling in a folder of its own."""
    inner = folder / "0_StaticEmbedding" if spelling == "old" else folder
    inner.mkdir(parents=True, exist_ok=True)
    tokens = wordpiece("[CLS]", "[SEP]", "[PAD]")
    tokens.save(str(inner / "tokenizer.json"))
    random = np.random.default_rng(seed)
    rows = random.standard_normal((tokens.get_vocab_size(), dims)).astype(np.float32)
    _write_weights(inner / "model.safetensors", {"embedding.weight": rows})
    path = "0_StaticEmbedding" if spelling == "old" else ""
    listed = [_module(0, "StaticEmbedding", path, spelling)]
    if normalize:
        (folder / "1_Normalize").mkdir(exist_ok=True)
        listed.append(_module(1, "Normalize", "1_Normalize", spelling))
    _write_json(folder / "modules.json", listed)
    _write_prompts(folder, spelling, prompts or {}, None)
    return folder


# ── files, and the fixture ───────────────────────────────────────────────────────────────


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False))


def _write_weights(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    save_file(dict(arrays), path)


def truncate_weights(path: Path, keep: float = 0.5) -> None:
    """Cuts a safetensors file short, as an interrupted download leaves it."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def drop_tensor(path: Path, name: str) -> None:
    """Rewrites a safetensors file without one of its tensors."""
    from safetensors.numpy import load_file, save_file

    arrays = load_file(path)
    del arrays[name]
    save_file(arrays, path)


def header_of(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file: names to dtype, shape and offsets."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(size))


def laid_out(rows: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The tokens [K, d] that a head of single tokens gives, at their places: [B, T, d]."""
    spread = np.zeros((*mask.shape, rows.shape[-1]), rows.dtype)
    spread[mask.astype(bool)] = rows
    return spread


_BUILDERS: Mapping[str, Callable[..., Path]] = {
    "model2vec": build_static_model2vec,
    "static": build_static_st,
}


@pytest.fixture(scope="session", name="tiny")
def tiny_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny(kind, **options) -> folder`: built when first asked for, once a session. The
    folder is shared: copy it before changing anything in it."""
    built: dict[str, Path] = {}

    def tiny(kind: str, **options: Any) -> Path:
        key = json.dumps([kind, options], sort_keys=True)
        if key not in built:
            folder = tmp_path_factory.mktemp(kind)
            if kind in _BUILDERS:
                built[key] = _BUILDERS[kind](folder, **options)
            else:
                built[key] = build_encoder(kind, folder, **options)
        return built[key]

    return tiny
