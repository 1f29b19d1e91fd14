"""What config.json says of each tower of a model that has one for texts and one for pictures, and
of the language model within one that is shown pictures: that is its "text".

transformers writes only what differs from the defaults of its configuration classes, so those
are told here: SigLIP's own files say little more than their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TEXT, IMAGE = "text", "image"

_NAMES = {TEXT: "text", IMAGE: "vision"}

_COMMON = {"num_hidden_layers": 12, "num_attention_heads": 12}
_BASE = {**_COMMON, "hidden_size": 768, "intermediate_size": 3072}
_CLIP_IMAGE = {
    **_BASE,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_SIGLIP = {**_BASE, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_SIGLIP_TEXT = {**_SIGLIP, "vocab_size": 32000, "max_position_embeddings": 64}

_DEFAULTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "clip": {
        TEXT: {
            **_COMMON,
            "num_attention_heads": 8,
            "hidden_size": 512,
            "intermediate_size": 2048,
            "vocab_size": 49408,
            "max_position_embeddings": 77,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
            "pad_token_id": 1,
            "eos_token_id": 49407,
        },
        IMAGE: _CLIP_IMAGE,
    },
    "chinese_clip": {
        TEXT: {
            **_BASE,
            "vocab_size": 30522,
            "max_position_embeddings": 512,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
            "pad_token_id": 0,
            "type_vocab_size": 2,
        },
        IMAGE: _CLIP_IMAGE,
    },
    # omnivec convert writes all there is to say
    "mobileclip": {TEXT: {"parameters": 1}, IMAGE: {"parameters": 1}},
    "siglip": {TEXT: _SIGLIP_TEXT, IMAGE: {**_SIGLIP, "image_size": 224, "patch_size": 16}},
    "siglip2": {TEXT: _SIGLIP_TEXT, IMAGE: {**_SIGLIP, "num_patches": 256, "patch_size": 16}},
}

_OWN = ("mobileclip",)  # whose towers are of several kinds, which their sections name

_WITHIN: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "qwen3_vl": {
        TEXT: {
            "model_type": "qwen3_vl_text",
            "vocab_size": 151_936,
            "hidden_size": 4096,
            "intermediate_size": 22_016,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "head_dim": 128,
            "rope_theta": 500_000.0,
        },
        IMAGE: {
            "model_type": "qwen3_vl_vision",
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
        },
    },
}
"""By architecture and tower. All of them name their sections' kinds."""
_SHARED = ("dtype", "torch_dtype", "tie_word_embeddings")  # told of a whole model and its towers

ARCHITECTURES = tuple(_DEFAULTS)
"""The values of `model_type` whose two towers make vectors that can be compared."""


def section(config: Mapping[str, Any], tower: str) -> dict[str, Any] | None:
    """What the config of a model of ARCHITECTURES says of its tower "text" or "image", and
    what it leaves out; so, too, of a model that is shown pictures. None for any other."""
    architecture = str(config.get("model_type", ""))
    known = {**_DEFAULTS, **_WITHIN}
    if tower not in _NAMES or architecture not in known:
        return None
    name = _NAMES[tower]
    told: dict[str, Any] = dict(known[architecture][tower])
    for key in (f"{name}_config", f"{name}_config_dict"):  # the second wins, in old files
        found = config.get(key)
        told |= found if isinstance(found, dict) else {}
    if architecture in _WITHIN:
        return told | {key: config[key] for key in _SHARED if key in config}
    kind = told.get("model_type", "") if architecture in _OWN else f"{architecture}_{name}_model"
    return {**told, "model_type": kind}


def share(config: Mapping[str, Any], tower: str) -> float:
    """About which part of a model's weights a tower of it has."""
    each = {name: _weights(section(config, name) or {}) for name in _NAMES}
    return each[tower] / sum(each.values())


def _weights(told: Mapping[str, Any]) -> int:
    """Numbers in a tower's layers and in its words, which are nearly all of them; or in all of
    it, where config.json tells."""
    if "parameters" in told:
        return int(told["parameters"])
    size, inner = told["hidden_size"], told["intermediate_size"]
    layer = 4 * size * size + 2 * size * inner
    layers = told["num_hidden_layers"] if "num_hidden_layers" in told else told["depth"]
    return int(layers * layer + told.get("vocab_size", 0) * size)
