"""Tiny files of Apple's own MobileCLIP: open_clip's tiny towers under Apple's names, and the text
tower of MobileCLIP-S0, whose convolutions are written here as they are trained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import open_clips
from open_clips import DIMS, WIDTH, WORDS, Reference

KERNEL = 11
_TEXT = (
    (r"^token_embedding", "embedding_layer"),
    (r"^positional_embedding$", "positional_embedding.pos_embed.pos_embed"),
    (r"^transformer\.resblocks\.", "transformer."),
    (r"ln_1", "pre_norm_mha.0"),
    (r"attn\.in_proj_", "pre_norm_mha.1.qkv_proj."),
    (r"attn\.out_proj", "pre_norm_mha.1.out_proj"),
    (r"ln_2", "pre_norm_ffn.0"),
    (r"mlp\.c_fc", "pre_norm_ffn.1"),
    (r"mlp\.c_proj", "pre_norm_ffn.4"),
    (r"^ln_final", "final_layer_norm"),
    (r"^text_projection$", "projection_layer"),
)
_VIT = (
    (r"^patch_embed\.backbone\.(\d)\.conv", r"patch_emb.\1.block.conv"),
    (r"^patch_embed\.backbone\.(\d)\.bn", r"patch_emb.\1.block.norm"),
    (r"^norm\.", "post_transformer_norm."),
    (r"^blocks\.", "transformer."),
    (r"norm1", "pre_norm_mha.0"),
    (r"attn\.qkv", "pre_norm_mha.1.qkv_proj"),
    (r"attn\.proj", "pre_norm_mha.1.out_proj"),
    (r"norm2", "pre_norm_ffn.0"),
    (r"mlp\.fc1", "pre_norm_ffn.1"),
    (r"mlp\.fc2", "pre_norm_ffn.4"),
    (r"^pos_embed$", "pos_embed.pos_embed.pos_embed"),
    (r"^head\.weight$", "classifier.proj"),
)
_FASTVIT = (
    (r"^stem", "patch_embed"),
    (r"conv_kxk", "rbr_conv"),
    (r"conv_scale", "rbr_scale"),
    (r"identity", "rbr_skip"),
    (r"large_conv", "lkb_origin"),
    (r"\bmlp\b", "convffn"),
    (r"^final_conv\.se\.fc1", "final_conv.se.reduce"),
    (r"^final_conv\.se\.fc2", "final_conv.se.expand"),
    (r"^final_conv", "conv_exp"),
    (r"\.gamma$", ""),
    (r"^head\.fc\.weight$", "head.proj"),
    (r"^stages\.0\.blocks", "network.0"),
    (r"^stages\.(\d)\.downsample", lambda found: f"network.{2 * int(found[1]) - 1}"),
    (r"^stages\.3\.pos_emb\.pos_enc", "network.6.pe"),
    (r"^stages\.3\.blocks", "network.7"),
    (r"^stages\.(\d)\.blocks", lambda found: f"network.{2 * int(found[1])}"),
)


def build(kind: str, file: Path) -> Reference:
    """A file of kind "s0", "s" or "b", and a tokenizer beside it."""
    import torch

    folder = file.parent
    open_clips.tokenizer().save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        image = open_clips._shaken(open_clips._image("s" if kind == "s0" else kind))
        text = open_clips._shaken(_hybrid() if kind == "s0" else _text(causal=kind == "b"))
    if kind == "b":
        _as_apple(image)
    state = {f"image_encoder.model.{key}": one for key, one in _image(kind, image).items()}
    state |= {f"text_encoder.{key}": one for key, one in _named(text.state_dict(), _TEXT).items()}
    state["text_encoder.positional_embedding.pos_embed.pos_embed"].unsqueeze_(0).unsqueeze_(0)
    torch.save({**state, "logit_scale": torch.tensor(2.6)}, file)
    return Reference(image, text)


def _text(*, causal: bool) -> Any:
    """Of one head: Apple's have one for each 64 numbers."""
    _, _, transformer = open_clips.packages()
    return transformer.TextTransformer(
        WORDS,
        len(open_clips.tokenizer()),
        WIDTH,
        heads=1,
        layers=2,
        output_dim=DIMS,
        no_causal_mask=not causal,
    ).eval()


def _as_apple(image: Any) -> None:
    """Apple's ViT has a border of black around the picture, and other norms than timm's."""
    import torch

    image.patch_embed.backbone[0].conv.padding = (1, 1)
    for one in image.modules():
        if isinstance(one, torch.nn.LayerNorm):
            one.eps = 1e-5


def _image(kind: str, image: Any) -> dict[str, Any]:
    state = _named(image.state_dict(), _VIT if kind == "b" else _FASTVIT)
    for key in ("head.proj", "classifier.proj"):
        if key in state:
            state[key] = state[key].T.contiguous()
    bias = next(key for key in ("head.fc.bias", "head.bias") if key in state)
    state.pop(bias)
    (image.head if kind == "b" else image.head.fc).bias.data.zero_()
    return state


def _named(state: Any, rules: tuple[Any, ...]) -> dict[str, Any]:
    made = {}
    for key, one in state.items():
        name = key
        for pattern, told in rules:
            name = re.sub(pattern, told, name)
        made[name] = one.clone()
    return made


# ── MobileCLIP-S0's texts ────────────────────────────────────────────────────────────────


def _hybrid() -> Any:
    import torch

    text = _text(causal=False)
    text.transformer.resblocks = torch.nn.ModuleList(
        [_mixing(), *text.transformer.resblocks, _mixing()]
    )
    return text.eval()


def _mixing() -> Any:
    import torch
    from torch import nn

    def along(kernel: int) -> Any:
        made = nn.Conv2d(
            WIDTH, WIDTH, (1, kernel), padding=(0, kernel // 2), groups=WIDTH, bias=False
        )
        return nn.ModuleDict({"conv": made, "bn": nn.BatchNorm2d(WIDTH)})

    def pair(one: Any, x: Any) -> Any:
        return one["bn"](one["conv"](x))

    class Mixing(nn.Module):
        """What is added and subtracted in training, one after the other."""

        def __init__(self) -> None:
            super().__init__()
            mixer = {
                "rbr_skip": nn.BatchNorm2d(WIDTH),
                "rbr_conv": nn.ModuleList([along(KERNEL)]),
                "rbr_scale": along(1),
            }
            norm = nn.ModuleDict({"rbr_skip": nn.BatchNorm2d(WIDTH)})
            self.token_mixer = nn.ModuleDict({"mixer": nn.ModuleDict(mixer), "norm": norm})
            scale = nn.Parameter(torch.ones(WIDTH, 1, 1))
            self.token_mixer.register_parameter("layer_scale", scale)
            self.convffn = nn.ModuleDict(
                {
                    "conv": along(KERNEL),
                    "fc1": nn.Conv2d(WIDTH, 4 * WIDTH, 1),
                    "fc2": nn.Conv2d(4 * WIDTH, WIDTH, 1),
                }
            )
            self.layer_scale = nn.Parameter(torch.ones(WIDTH, 1, 1))

        def get_weight_dtype(self) -> Any:
            return self.layer_scale.dtype

        def forward(self, x: Any, **_: Any) -> Any:
            x = x.transpose(1, 2)[:, :, None]
            mixer, feed = self.token_mixer["mixer"], self.convffn
            mixed = mixer["rbr_skip"](x) + pair(mixer["rbr_conv"][0], x)
            mixed = mixed + pair(mixer["rbr_scale"], x) - self.token_mixer["norm"]["rbr_skip"](x)
            x = x + self.token_mixer.layer_scale * mixed
            inner = nn.functional.gelu(feed["fc1"](pair(feed["conv"], x)))
            x = x + self.layer_scale * feed["fc2"](inner)
            return x[:, :, 0].transpose(1, 2)

    return Mixing()
