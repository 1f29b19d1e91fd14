"""The tower that reads texts, as open_clip names its tensors, to CLIP's own names; with
MobileCLIP-S0's two blocks of convolutions around its layers where there are some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from omnivec.conversion import folding
from omnivec.conversion.layers import layer, same
from omnivec.core.checkpoint import CheckpointError

if TYPE_CHECKING:
    from omnivec.conversion.stock import Stock
    from omnivec.core.nouns import Floats

EPSILON = 1e-5
FILLER = 0  # the id that open_clip fills rows with
PREFIX = "text_model."
_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def convert(stock: Stock, *, heads: int, causal: bool) -> tuple[dict[str, Any], dict[str, Floats]]:
    """The section of config.json and the tensors of the tower. Raises CheckpointError."""
    words = stock.take("token_embedding.weight")
    places = stock.take("positional_embedding").reshape(-1, words.shape[1])
    count, around = stock.count("transformer.resblocks"), _around(stock)
    first, last = (1, count - 1) if around else (0, count)
    made = {
        "embeddings.token_embedding.weight": words,
        "embeddings.position_embedding.weight": places,
    }
    for place, index in enumerate(range(first, last)):
        made |= layer(
            stock,
            f"transformer.resblocks.{index}",
            f"encoder.layers.{place}",
            _LAYER,
            "attn.in_proj_",
        )
    if around:
        made |= _mixing(stock, "transformer.resblocks.0", "encoder.before")
        made |= _mixing(stock, f"transformer.resblocks.{last}", "encoder.after")
    made |= same(stock, "ln_final", "final_layer_norm")
    config = {
        "model_type": "mobileclip_text_model",
        "hidden_size": words.shape[1],
        "intermediate_size": len(made["encoder.layers.0.mlp.fc1.bias"]),
        "num_hidden_layers": last - first,
        "num_attention_heads": heads,
        "vocab_size": len(words),
        "max_position_embeddings": len(places),
        "hidden_act": "gelu",
        "layer_norm_eps": EPSILON,
        "pad_token_id": FILLER,
        "eos_token_id": len(words) - 1,
        "causal_mask": causal,
        "convolutions": around,
    }
    return config, {PREFIX + name: tensor for name, tensor in made.items()} | _projection(stock)


def _around(stock: Stock) -> bool:
    return any(
        f"transformer.resblocks.0.token_mixer.{name}.weight" in stock
        for name in ("reparam_conv", "mixer.conv_kxk.0.conv")
    )


def _mixing(stock: Stock, key: str, name: str) -> dict[str, Floats]:
    """A block of convolutions along the text: kernels [out, in of a group, K]."""
    kernels = {
        "mixer": folding.mixer(stock, f"{key}.token_mixer"),
        "conv": folding.normed(stock, f"{key}.mlp.conv"),
    }
    made: dict[str, Floats] = {}
    for part, kernel in kernels.items():
        made |= kernel._replace(weight=kernel.weight[:, :, 0]).tensors(f"{name}.{part}")
    scale = folding.layer_scale(stock, f"{key}.layer_scale")
    inner, out = (folding.plain(stock, f"{key}.mlp.{one}") for one in ("fc1", "fc2"))
    out = out if scale is None else out.scaled(scale)
    for part, linear in (("fc1", inner), ("fc2", out)):
        matrix = linear._replace(weight=linear.weight[:, :, 0, 0])
        made |= matrix.tensors(f"{name}.mlp.{part}")
    return made


def _projection(stock: Stock) -> dict[str, Floats]:
    if "text_projection.weight" in stock:
        raise CheckpointError(
            f"{stock.name}: its texts are projected with a bias, which none of the models that "
            "are converted here does"
        )
    return {"text_projection.weight": np.ascontiguousarray(stock.take("text_projection").T)}
