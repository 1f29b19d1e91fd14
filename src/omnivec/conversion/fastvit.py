"""FastViT's image tower (arXiv 2303.14189), as timm names its tensors, to convolutions and
attention without anything that only training needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from omnivec.conversion import folding
from omnivec.conversion.folding import Convolution, Norm

if TYPE_CHECKING:
    from omnivec.conversion.stock import Stock
    from omnivec.core.nouns import Floats

HEAD = 32  # a head's size, in every FastViT
_STEM = 4  # pixels a side of each place that the first stage is given
EPSILON = 1e-5  # of the layer norms of the largest two

PREFIX = "vision_model."
PROJECTION = "visual_projection"


def convert(trunk: Stock, side: int) -> tuple[dict[str, Any], dict[str, Floats]]:
    """The section of config.json for a tower that looks at pictures of `side` x `side`, and the
    tensors. Raises CheckpointError.

    Its `patch_size` is that of a place in the stage that has most of the blocks: by it a picture's
    cost is told, and two are a batch, which is as good as any (docs/experiments.md)."""
    stages = range(trunk.count("stages"))
    depths = [trunk.count(f"stages.{stage}.blocks") for stage in stages]
    tensors: dict[str, Floats] = {}
    for index in range(trunk.count("stem")):
        tensors |= folding.block(trunk, f"stem.{index}").tensors(f"stem.{index}")
    for stage, depth in enumerate(depths):
        tensors |= _entry(trunk, f"stages.{stage}")
        for index in range(depth):
            tensors |= _block(trunk, f"stages.{stage}.blocks.{index}")
    tensors |= folding.block(trunk, "final_conv").tensors("final.conv")
    tensors |= _squeeze(trunk, "final_conv.se", "final.squeeze")
    mixing = [f"stages.{stage}.blocks.0.token_mixer.qkv.weight" not in trunk for stage in stages]
    config = {
        "model_type": "mobileclip_fastvit_model",
        "image_size": side,
        "patch_size": _STEM << int(np.argmax(depths)),
        "hidden_sizes": [len(tensors[f"stages.{i}.blocks.0.mlp.conv.bias"]) for i in stages],
        "depths": depths,
        "mixers": ["convolution" if mixes else "attention" for mixes in mixing],
        "head_size": HEAD,
        "hidden_act": "gelu",
        "layer_norm_eps": EPSILON if _is_layer_normed(trunk) else None,
    }
    named = {PREFIX + name: tensor for name, tensor in tensors.items()}
    return config, named | folding.plain(trunk, "head.fc").tensors(PROJECTION)


def _is_layer_normed(trunk: Stock) -> bool:
    stages = range(trunk.count("stages"))
    normed = [stage for stage in stages if f"stages.{stage}.blocks.0.norm.weight" in trunk]
    return any(f"stages.{stage}.blocks.0.norm.running_mean" not in trunk for stage in normed)


def _entry(trunk: Stock, key: str) -> dict[str, Floats]:
    """What comes before a stage's blocks: half as many pixels a side, and positions."""
    made: dict[str, Floats] = {}
    down = f"{key}.downsample.proj"
    if trunk.count(down):
        made |= _large(trunk, f"{down}.0").tensors(f"{key}.downsample.conv")
        made |= _squeeze(trunk, f"{down}.0.se", f"{key}.downsample.squeeze")
        made |= folding.block(trunk, f"{down}.1").tensors(f"{key}.downsample.mix")
    if f"{key}.pos_emb.reparam_conv.weight" in trunk:
        made |= folding.plain(trunk, f"{key}.pos_emb.reparam_conv").tensors(f"{key}.position")
    elif f"{key}.pos_emb.pos_enc.weight" in trunk:
        added = folding.plain(trunk, f"{key}.pos_emb.pos_enc")
        kept = folding.same(len(added.bias), added.weight.shape)
        made |= folding.total([kept, added]).tensors(f"{key}.position")
    return made


def _large(trunk: Stock, key: str) -> Convolution:
    """A large kernel that was trained with a small one beside it (arXiv 2203.06717)."""
    if f"{key}.reparam_conv.weight" in trunk:
        return folding.plain(trunk, f"{key}.reparam_conv")
    large = folding.normed(trunk, f"{key}.large_conv")
    if f"{key}.small_conv.conv.weight" not in trunk:
        return large
    small = folding.normed(trunk, f"{key}.small_conv")
    return folding.total([large, folding.widened(small, large.weight.shape)])


def _squeeze(trunk: Stock, key: str, name: str) -> dict[str, Floats]:
    if f"{key}.fc1.weight" not in trunk:
        return {}
    made: dict[str, Floats] = {}
    for layer in ("fc1", "fc2"):
        made |= folding.plain(trunk, f"{key}.{layer}").tensors(f"{name}.{layer}")
    return made


def _block(trunk: Stock, key: str) -> dict[str, Floats]:
    if f"{key}.token_mixer.qkv.weight" in trunk:
        made = _attention(trunk, key)
        scale = folding.layer_scale(trunk, f"{key}.layer_scale_2")
    else:
        made = folding.mixer(trunk, f"{key}.token_mixer").tensors(f"{key}.mixer")
        scale = folding.layer_scale(trunk, f"{key}.layer_scale")
    out = folding.plain(trunk, f"{key}.mlp.fc2")
    made |= folding.normed(trunk, f"{key}.mlp.conv").tensors(f"{key}.mlp.conv")
    made |= folding.plain(trunk, f"{key}.mlp.fc1").tensors(f"{key}.mlp.fc1")
    return made | (out if scale is None else out.scaled(scale)).tensors(f"{key}.mlp.fc2")


def _attention(trunk: Stock, key: str) -> dict[str, Floats]:
    """The norm's scale and shift go into the matrices behind it, the layer's scale into the
    one before it. What is left of a layer norm is to make each mean 0 and each variance 1."""
    before = _before(trunk, f"{key}.norm")
    joined = folding.plain(trunk, f"{key}.token_mixer.qkv")
    bias = joined.bias + joined.weight @ before.shift
    parts = zip(np.split(joined.weight * before.scale, 3), np.split(bias, 3), strict=True)
    made: dict[str, Floats] = {}
    for name, part in zip("qkv", parts, strict=True):
        made |= Convolution(*part).tensors(f"{key}.self_attn.{name}_proj")
    out = folding.plain(trunk, f"{key}.token_mixer.proj")
    scale = folding.layer_scale(trunk, f"{key}.layer_scale_1")
    return made | (out if scale is None else out.scaled(scale)).tensors(f"{key}.self_attn.out_proj")


def _before(trunk: Stock, key: str) -> Norm:
    if f"{key}.running_mean" in trunk:
        return folding.norm(trunk, key)
    weight, bias = (trunk.take(f"{key}.{name}").astype(np.float64) for name in ("weight", "bias"))
    return Norm(weight, bias)
