"""MobileCLIP-B's image tower, a ViT (arXiv 2010.11929) behind three convolutions, as timm names
its tensors, to CLIP's own names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from omnivec.conversion import folding
from omnivec.conversion.layers import layer, same

if TYPE_CHECKING:
    from omnivec.conversion.stock import Stock
    from omnivec.core.nouns import Floats

HEAD = 64  # a head's size
PREFIX = "vision_model."
_LAYER = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.proj": "self_attn.out_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def convert(
    trunk: Stock, side: int, *, epsilon: float, border: int
) -> tuple[dict[str, Any], dict[str, Floats]]:
    """As fastvit.convert. `epsilon` is of the norms; `border` how many black pixels the first
    convolution has around the picture. Raises CheckpointError."""
    made: dict[str, Floats] = {}
    stem = "patch_embed.backbone"
    kernels = [folding.normed(trunk, f"{stem}.{index}") for index in (0, 1)]
    for index, kernel in enumerate(kernels):
        made |= kernel.tensors(f"embeddings.stem.{index}")
    last = folding.plain(trunk, f"{stem}.2.conv")
    made |= last.tensors("embeddings.patch_embedding")
    made |= _places(trunk)
    depth = trunk.count("blocks")
    for index in range(depth):
        made |= layer(trunk, f"blocks.{index}", f"encoder.layers.{index}", _LAYER, "attn.qkv.")
    made |= same(trunk, "norm", "post_layernorm")
    size = len(last.bias)
    config = {
        "model_type": "mobileclip_vit_model",
        "image_size": side,
        "patch_size": int(np.prod([one.weight.shape[-1] for one in (*kernels, last)])),
        "stem_padding": border,
        "hidden_size": size,
        "intermediate_size": len(made["encoder.layers.0.mlp.fc1.bias"]),
        "num_hidden_layers": depth,
        "num_attention_heads": max(1, size // HEAD),
        "hidden_act": "gelu",
        "layer_norm_eps": epsilon,
    }
    named = {PREFIX + name: tensor for name, tensor in made.items()}
    return config, named | folding.plain(trunk, "head").tensors("visual_projection")


def _places(trunk: Stock) -> dict[str, Floats]:
    """Positions are the patches'; the class token, which has none, gets zeros."""
    first = trunk.take("cls_token").reshape(-1)
    table = trunk.take("pos_embed").reshape(-1, len(first))
    whole = np.concatenate([np.zeros((1, len(first)), np.float32), table])
    return {
        "embeddings.class_embedding": first,
        "embeddings.position_embedding.weight": whole,
    }
