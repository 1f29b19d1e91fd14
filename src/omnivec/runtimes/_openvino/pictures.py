"""The towers that look at pictures: CLIP's, Chinese-CLIP's and SigLIP's (a ViT, arXiv
2010.11929), and SigLIP 2's for pictures of any shape (NaFlex, arXiv 2502.14786).

The pixels come as bytes: scaling them is part of the first matrix. They are counted from the
middle of their range, where bf16 has each of them exactly and where a picture's mean is near.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from openvino import Model, Type
from openvino import opset15 as ops

from omnivec.core.steps import Scale
from omnivec.runtimes._openvino import blocks, tower
from omnivec.runtimes._openvino.blocks import Attention, Inputs, Node, Rows, axis
from omnivec.runtimes._openvino.convolutions import CHANNELS, convolve, scaled
from omnivec.runtimes._openvino.feeds import Feed, PatchFeed, PictureFeed
from omnivec.runtimes._openvino.tower import Biases, Whole
from omnivec.runtimes._openvino.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.core.checkpoint import Checkpoint
    from omnivec.core.nouns import Array, Floats
    from omnivec.core.steps import Head

ANCHOR = "embeddings.patch_embedding.weight"
_MIDDLE = 128
_CLASS = "embeddings.class_embedding"
_STEM = "embeddings.stem.0.weight"


class _Seen(NamedTuple):
    """The graph's parameters, and the patches in it: [P, H]."""

    given: list[Node]
    hidden: Node
    inputs: Rows
    biases: Biases
    feed: Feed


def build(checkpoint: Checkpoint, head: Head, *, int8: bool = False) -> tuple[Any, Feed, Weights]:
    """As graphs.build, of a head of kind "tower". Raises CheckpointError, KeyError, TypeError."""
    config = checkpoint.config
    weights = Weights(checkpoint.name, checkpoint.weights())
    weights.root(ANCHOR)
    scale = next(step for step in head.steps if isinstance(step, Scale))
    see = _patches if "num_patches" in config else _picture
    seen = see(config, weights, scale)
    hidden = seen.hidden
    if "pre_layrnorm.weight" in weights:
        hidden = _norm(hidden, weights, "pre_layrnorm", config)
    body = weights.rounded() if int8 else weights
    hidden = tower.layers(hidden, config, body, seen.inputs, seen.biases)
    hidden = _norm(hidden, weights, "post_layernorm", config)
    if _CLASS in weights:
        size, outer = config["hidden_size"], weights.outer()
        bias = "visual_projection.bias" in outer
        pooled = tower.projected(hidden, outer, "visual_projection", size, bias=bias)
    else:
        pooled = _ask(hidden, config, weights, seen)
    model = Model([blocks.result("output", pooled)], seen.given, checkpoint.architecture)
    return model, seen.feed, weights


def _norm(x: Node, weights: Weights, key: str, config: Mapping[str, Any]) -> Node:
    return blocks.layer_norm(x, weights, key, config["hidden_size"], config["layer_norm_eps"])


# ── a picture of one size ────────────────────────────────────────────────────────────────


def _picture(config: Mapping[str, Any], weights: Weights, scale: Scale) -> _Seen:
    """Pixels [B, S, S, 3] in squares, behind the class token where there is one."""
    side, patch, size = config["image_size"], config["patch_size"], config["hidden_size"]
    across = side // patch
    pixels = blocks.parameter("pixels", Type.u8, -1, side, side, CHANNELS)
    if _STEM in weights:
        hidden = _convolved(pixels, config, weights, scale)
    else:
        kernel = weights.take("embeddings.patch_embedding.weight", size, CHANNELS, patch, patch)
        matrix = np.ascontiguousarray(kernel.transpose(0, 2, 3, 1)).reshape(size, -1)
        hidden = _embed(_squares(pixels, side, patch), matrix, _bias(weights, size), scale)
    table = weights.take("embeddings.position_embedding.weight", None, size)
    classed = _CLASS in weights
    count = across**2 + classed
    hidden = ops.reshape(hidden, blocks.shape(-1, across**2, size), False)
    hidden = ops.add(hidden, blocks.constant(table[classed:]))
    rows = ops.gather(ops.shape_of(pixels, "i64"), axis(0), axis(0))
    inputs = Whole(count, size)
    if classed:
        first = (weights.take(_CLASS, size) + table[0]).reshape(1, 1, size)
        shape = ops.concat([ops.unsqueeze(rows, axis(0)), blocks.shape(1, size)], 0)
        hidden = ops.concat([ops.broadcast(blocks.constant(first), shape), hidden], 1)
        starts = ops.multiply(ops.range(axis(0), rows, axis(1), "i64"), axis(count))
        inputs = inputs._replace(chosen=starts)
    return _Seen([pixels], inputs.pack(hidden, size), inputs, Biases(), PictureFeed(side))


def _squares(pixels: Node, side: int, patch: int) -> Node:
    """[B, S, S, 3] to [B * n * n, patch * patch * 3], n in a row; what is over is left out."""
    across = side // patch
    end = across * patch
    if end < side:
        ends = blocks.shape(0, 0), blocks.shape(end, end), blocks.shape(1, 1)
        pixels = ops.slice(pixels, *ends, blocks.shape(1, 2))
    split = blocks.shape(-1, across, patch, across, patch, CHANNELS)
    turned = ops.transpose(ops.reshape(pixels, split, False), blocks.shape(0, 1, 3, 2, 4, 5))
    return ops.reshape(turned, blocks.shape(-1, patch * patch * CHANNELS), False)


def _convolved(pixels: Node, config: Mapping[str, Any], weights: Weights, scale: Scale) -> Node:
    """[B, S, S, 3] to [B * n * n, H], by convolutions whose kernels lie side by side."""
    x, border = scaled(pixels, scale), config["stem_padding"]
    for name in ("stem.0", "stem.1", "patch_embedding"):
        stride = weights.find(f"embeddings.{name}.weight", None, None, None, None).shape[-1]
        x = convolve(x, weights, f"embeddings.{name}", stride=stride, border=border)
        x = x if name == "patch_embedding" else blocks.activation(x, config["hidden_act"])
        border = 0
    turned = ops.transpose(x, blocks.shape(0, 2, 3, 1))
    return ops.reshape(turned, blocks.shape(-1, config["hidden_size"]), False)


# ── pictures of any shape ────────────────────────────────────────────────────────────────


def _patches(config: Mapping[str, Any], weights: Weights, scale: Scale) -> _Seen:
    """Patches [P, D] of all the batch's pictures, with no padding among them."""
    size, count = config["hidden_size"], config["num_patches"]
    width = config["patch_size"] ** 2 * CHANNELS
    patches = blocks.parameter("patches", Type.u8, -1, width)
    spots = blocks.parameter("spots", Type.f32, -1, count)
    tokens = blocks.parameter("tokens", Type.i64, -1)
    mask, places = (blocks.parameter(name, Type.i64, -1, -1) for name in ("mask", "places"))
    matrix = weights.take("embeddings.patch_embedding.weight", size, width)
    hidden = _embed(patches, matrix, _bias(weights, size), scale)
    table = weights.take("embeddings.position_embedding.weight", count, size)
    hidden = ops.add(hidden, ops.matmul(spots, blocks.constant(table), False, False))
    inputs = Inputs(None, mask, None, mask, tokens, places, {})
    given = [patches, spots, tokens, mask, places]
    biases = Biases(blocks.padding_bias(mask))
    return _Seen(given, hidden, inputs, biases, PatchFeed(width, count))


# ── the first matrix ─────────────────────────────────────────────────────────────────────


def _bias(weights: Weights, size: int) -> Floats:
    key = "embeddings.patch_embedding.bias"
    return weights.take(key, size) if key in weights else np.zeros(size, np.float32)


def _embed(pixels: Node, matrix: Array, bias: Array, scale: Scale) -> Node:
    """Bytes [.., D] to ((x * factor - mean) / std) W^T + b, [.., H]; D has the channel last."""
    shift = np.asarray(scale.mean, np.float64)
    spread = np.asarray(scale.std, np.float64)
    each = matrix.astype(np.float64).reshape(len(matrix), -1, CHANNELS)
    middle = ((_MIDDLE * scale.factor - shift) / spread * each).sum((1, 2)) + bias
    folded = (each * (scale.factor / spread)).reshape(len(matrix), -1).astype(np.float32)
    centred = ops.subtract(blocks.floats(pixels), blocks.scalar(_MIDDLE))
    y = ops.matmul(centred, blocks.constant(folded), False, True)
    return ops.add(y, blocks.constant(middle.astype(np.float32)))


# ── SigLIP's head ────────────────────────────────────────────────────────────────────────


def _ask(hidden: Node, config: Mapping[str, Any], weights: Weights, seen: _Seen) -> Node:
    """A learned query attends to all patches [P, H], and a feed-forward comes after it: [B, H]."""
    size, heads = config["hidden_size"], config["num_attention_heads"]
    attention = Attention(heads, size // heads, seen.inputs)
    matrices = weights.take("head.attention.in_proj_weight", 3 * size, size)
    biases = weights.take("head.attention.in_proj_bias", 3 * size)
    probe = weights.take("head.probe", 1, 1, size).reshape(size)
    asking = (matrices[:size] @ probe + biases[:size]) * np.float32(attention.scale)
    q = blocks.constant(asking.reshape(1, heads, 1, size // heads))
    k, v = (
        blocks.heads_of(_times(hidden, matrices[at], biases[at]), attention)
        for at in (slice(size, 2 * size), slice(2 * size, None))
    )
    logits = ops.matmul(q, k, False, True)
    if seen.biases.all is not None:
        logits = ops.add(logits, seen.biases.all)
    mixed = ops.reshape(ops.matmul(ops.softmax(logits, -1), v, False, False), _flat(size), False)
    pooled = blocks.linear(mixed, weights, "head.attention.out_proj", size, size)
    normed = _norm(pooled, weights, "head.layernorm", config)
    return ops.add(pooled, tower.feed_forward(normed, weights, "head.mlp", config))


def _times(x: Node, matrix: Array, bias: Array) -> Node:
    return ops.add(ops.matmul(x, blocks.constant(matrix), False, True), blocks.constant(bias))


def _flat(size: int) -> Node:
    return blocks.shape(-1, size)
