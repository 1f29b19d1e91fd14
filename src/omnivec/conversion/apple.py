"""The names of tensors in Apple's own MobileCLIP files, to those of open_clip and timm."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from omnivec.core.tensors import Tensor

IMAGE, TEXT = "image_encoder.model.", "text_encoder."
VISUAL, WORDS = "visual.trunk.", "text."

_BLOCKS = (  # of convolutions
    (r"\brbr_conv\b", "conv_kxk"),
    (r"\brbr_scale\b", "conv_scale"),
    (r"\brbr_skip\b", "identity"),
    (r"\blkb_origin\b", "large_conv"),
    (r"\blkb_reparam\b", "reparam_conv"),
    (r"\bconvffn\b", "mlp"),
    (r"\bse\.reduce\b", "se.fc1"),
    (r"\bse\.expand\b", "se.fc2"),
    (r"\b(layer_scale(?:_[12])?)$", r"\1.gamma"),
)
_FASTVIT = (
    *_BLOCKS,
    (r"^patch_embed\b", "stem"),
    (r"^conv_exp\b", "final_conv"),
    (r"^head\.proj$", "head.fc.weight"),
)
_VIT = (
    (r"^patch_emb\.(\d+)\.block\.conv\b", r"patch_embed.backbone.\1.conv"),
    (r"^patch_emb\.(\d+)\.block\.norm\b", r"patch_embed.backbone.\1.bn"),
    (r"^post_transformer_norm\b", "norm"),
    (r"^transformer\b", "blocks"),
    (r"\bpre_norm_mha\.0\b", "norm1"),
    (r"\bpre_norm_mha\.1\.qkv_proj\b", "attn.qkv"),
    (r"\bpre_norm_mha\.1\.out_proj\b", "attn.proj"),
    (r"\bpre_norm_ffn\.0\b", "norm2"),
    (r"\bpre_norm_ffn\.1\b", "mlp.fc1"),
    (r"\bpre_norm_ffn\.4\b", "mlp.fc2"),
    (r"^pos_embed\.pos_embed\.pos_embed$", "pos_embed"),
    (r"^classifier\.proj$", "head.weight"),
)
_TEXT = (
    *_BLOCKS,
    (r"^embedding_layer\b", "token_embedding"),
    (r"^positional_embedding\.pos_embed\.pos_embed$", "positional_embedding"),
    (r"^transformer\b", "transformer.resblocks"),
    (r"\bpre_norm_mha\.0\b", "ln_1"),
    (r"\bpre_norm_mha\.1\.qkv_proj\.", "attn.in_proj_"),
    (r"\bpre_norm_mha\.1\.out_proj\b", "attn.out_proj"),
    (r"\bpre_norm_ffn\.0\b", "ln_2"),
    (r"\bpre_norm_ffn\.1\b", "mlp.c_fc"),
    (r"\bpre_norm_ffn\.4\b", "mlp.c_proj"),
    (r"^final_layer_norm\b", "ln_final"),
    (r"^projection_layer$", "text_projection"),
)
_TURNED = ("head.fc.weight", "head.weight")  # which lie there as [in, out]


def claims(tensors: Mapping[str, Tensor]) -> bool:
    return any(key.startswith(IMAGE) for key in tensors)


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What has no such name keeps its own."""
    return dict(_renamed(tensors))


def _renamed(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    stages = _stages(tensors)
    rules = _FASTVIT if stages else _VIT
    for key, tensor in tensors.items():
        if key.startswith(IMAGE):
            name = _apply(rules, _placed(key.removeprefix(IMAGE), stages))
            yield VISUAL + name, _turned(tensor) if name in _TURNED else tensor
        elif key.startswith(TEXT):
            yield WORDS + _apply(_TEXT, key.removeprefix(TEXT)), tensor
        else:
            yield key, tensor


def _apply(rules: tuple[tuple[str, str], ...], name: str) -> str:
    for pattern, told in rules:
        name = re.sub(pattern, told, name)
    return name


def _turned(tensor: Tensor) -> Tensor:
    return tensor._replace(stored=tensor.stored.T)


def _stages(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """FastViT's flat list `network.N`, each to the part of a stage that it is: each stage but
    the first begins with what halves the sides, and positions come before its blocks."""
    parts: dict[int, set[str]] = {}
    for key in tensors:
        found = re.match(rf"{re.escape(IMAGE)}network\.(\d+)\.(\w+)", key)
        if found:
            parts.setdefault(int(found[1]), set()).add(found[2])
    stage, made = 0, {}
    for number in sorted(parts):
        stage += "proj" in parts[number]
        if "proj" in parts[number]:
            made[f"network.{number}.proj."] = f"stages.{stage}.downsample.proj."
        elif "pe" in parts[number]:
            made[f"network.{number}.pe."] = f"stages.{stage}.pos_emb.pos_enc."
        elif "reparam_conv" in parts[number]:
            made[f"network.{number}."] = f"stages.{stage}.pos_emb."
        else:
            made[f"network.{number}."] = f"stages.{stage}.blocks."
    return made


def _placed(name: str, stages: Mapping[str, str]) -> str:
    start = next((start for start in stages if name.startswith(start)), None)
    return name if start is None else stages[start] + name.removeprefix(start)
