"""FastViT, MobileCLIP's tower that looks at pictures (arXiv 2303.14189, 2311.17049), without
what only its training needs (src/omnivec/conversion)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openvino import Model, Type
from openvino import opset15 as ops

from omnivec.core.steps import Scale
from omnivec.runtimes._openvino import blocks, tower
from omnivec.runtimes._openvino.blocks import Attention, Node
from omnivec.runtimes._openvino.convolutions import CHANNELS, convolve, scaled, squeeze
from omnivec.runtimes._openvino.feeds import Feed, PictureFeed
from omnivec.runtimes._openvino.tower import Whole
from omnivec.runtimes._openvino.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.core.checkpoint import Checkpoint
    from omnivec.core.steps import Head

ANCHOR = "stem.0.weight"
_STEM = (2, 2, 1)  # strides


def build(checkpoint: Checkpoint, head: Head, *, int8: bool = False) -> tuple[Any, Feed, Weights]:
    """As graphs.build, of a head of kind "tower". Raises CheckpointError, KeyError, TypeError."""
    config = checkpoint.config
    weights = Weights(checkpoint.name, checkpoint.weights())
    weights.root(ANCHOR)
    scale = next(step for step in head.steps if isinstance(step, Scale))
    side = config["image_size"]
    pixels = blocks.parameter("pixels", Type.u8, -1, side, side, CHANNELS)
    x = scaled(pixels, scale)
    act = config["hidden_act"]
    for index, stride in enumerate(_STEM):
        x = blocks.activation(convolve(x, weights, f"stem.{index}", stride=stride), act)
    body = weights.rounded() if int8 else weights
    for stage in range(len(config["depths"])):
        x = _stage(x, body, config, stage)
    x = squeeze(convolve(x, weights, "final.conv"), weights, "final.squeeze")
    pooled = ops.reduce_mean(blocks.activation(x, act), blocks.shape(2, 3), keep_dims=False)
    width, outer = pooled.get_output_partial_shape(0)[1].get_length(), weights.outer()
    vectors = tower.projected(pooled, outer, "visual_projection", width, bias=True)
    model = Model([blocks.result("output", vectors)], [pixels], checkpoint.architecture)
    return model, PictureFeed(side), weights


def _stage(x: Node, weights: Weights, config: Mapping[str, Any], stage: int) -> Node:
    key, act = f"stages.{stage}", config["hidden_act"]
    if f"{key}.downsample.conv.weight" in weights:
        x = convolve(x, weights, f"{key}.downsample.conv", stride=2)
        if f"{key}.downsample.squeeze.fc1.weight" in weights:
            x = squeeze(x, weights, f"{key}.downsample.squeeze")
        x = convolve(blocks.activation(x, act), weights, f"{key}.downsample.mix")
        x = blocks.activation(x, act)
    if f"{key}.position.weight" in weights:
        x = convolve(x, weights, f"{key}.position")
    attends = config["mixers"][stage] == "attention"
    for index in range(config["depths"][stage]):
        block = f"{key}.blocks.{index}"
        if attends:
            x = ops.add(x, _attended(x, weights, f"{block}.self_attn", config))
        else:
            x = convolve(x, weights, f"{block}.mixer")
        x = ops.add(x, _feed_forward(x, weights, f"{block}.mlp", act))
    return x


def _feed_forward(x: Node, weights: Weights, key: str, act: str) -> Node:
    inner = convolve(convolve(x, weights, f"{key}.conv"), weights, f"{key}.fc1")
    return convolve(blocks.activation(inner, act), weights, f"{key}.fc2")


def _attended(x: Node, weights: Weights, key: str, config: Mapping[str, Any]) -> Node:
    """Each place of [B, C, H, W] attends to all places."""
    channels, height, width = (x.get_output_partial_shape(0)[at].get_length() for at in (1, 2, 3))
    rows = Whole(height * width, channels)
    flat = ops.reshape(x, blocks.shape(0, 0, -1), True)
    tokens = rows.pack(ops.transpose(flat, blocks.shape(0, 2, 1)), channels)
    if config.get("layer_norm_eps") is not None:  # its scale and shift are in the matrices
        tokens = ops.mvn(tokens, blocks.shape(-1), True, config["layer_norm_eps"], "inside_sqrt")
    attention = Attention(channels // config["head_size"], config["head_size"], rows)
    mixed = rows.spread(tower.attend(tokens, weights, key, None, attention, None))
    turned = ops.transpose(mixed, blocks.shape(0, 2, 1))
    return ops.reshape(turned, blocks.shape(-1, channels, height, width), False)
