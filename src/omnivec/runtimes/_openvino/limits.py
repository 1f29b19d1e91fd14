"""What the graphs here do not do, told from config.json alone, without OpenVINO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omnivec.runtimes import _sides

if TYPE_CHECKING:
    from collections.abc import Mapping

DECODER = "decoder"
# config.json's `model_type` and the module here that builds its graph.
ARCHITECTURES = {
    "bert": "bert",
    "camembert": "bert",
    "chinese_clip_text_model": "chinese_clip_text",
    "chinese_clip_vision_model": "pictures",
    "clip_text_model": "clip_text",
    "clip_vision_model": "pictures",
    "distilbert": "distilbert",
    "gemma": DECODER,
    "gemma2": DECODER,
    "gemma3_text": DECODER,
    "llama": DECODER,
    "mistral": DECODER,
    "mobileclip_fastvit_model": "fastvit",
    "mobileclip_text_model": "mobileclip_text",
    "mobileclip_vit_model": "pictures",
    "modernbert": "modernbert",
    "mpnet": "mpnet",
    "nomic_bert": "nomic_bert",
    "qwen2": DECODER,
    "qwen3": DECODER,
    "qwen3_vl_text": DECODER,
    "roberta": "bert",
    "siglip_text_model": "siglip_text",
    "siglip_vision_model": "pictures",
    "siglip2_text_model": "siglip_text",
    "siglip2_vision_model": "pictures",
    "xlm-roberta": "bert",
}

# A key of config.json, the values under which the graph is right, and what another one means.
_NEEDED: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("position_embedding_type", (None, "absolute"), "positions other than absolute ones"),
    ("is_decoder", (None, False), "causal attention"),
    ("causal", (None, False), "causal attention"),
    ("prenorm", (None, False), "norms before the blocks"),
    ("parallel_block", (None, False), "parallel blocks"),
    ("use_rms_norm", (None, False), "RMS norms"),
    ("rotary_emb_interleaved", (None, False), "interleaved rotary positions"),
    ("rotary_emb_fraction", (None, 1, 1.0), "partial rotary positions"),
    ("rotary_scaling_factor", (None, 1, 1.0), "scaled rotary positions"),
    ("num_experts", (None, 0, 1), "mixtures of experts"),
    ("num_channels", (None, 3), "pictures without three channels"),
    ("vision_use_head", (None, True), "towers without a head"),
    ("activation_function", (None, "swiglu", "geglu", "glu"), "feed-forwards without a gate"),
)


def reason(architecture: str, config: Mapping[str, Any]) -> str | None:
    """Why the graph of `config` cannot be built here, or None."""
    if architecture not in ARCHITECTURES:
        what = repr(architecture) if architecture else "a config.json without model_type"
        return f"the openvino runtime has no graph for {what} (it has {', '.join(ARCHITECTURES)})"
    for key, right, what in _NEEDED:
        if config.get(key) not in right:
            return f"the openvino runtime's {architecture} graph has no {what} ({key!r})"
    if ARCHITECTURES[architecture] != DECODER:
        return None
    return _sides.reason(architecture, config) or _scaled(architecture, config)


def _scaled(architecture: str, config: Mapping[str, Any]) -> str | None:
    """What stretches rotary positions: in transformers 5's spelling, or the older ones. Gemma 3
    tells them for each kind of layer."""
    for key in ("rope_parameters", "rope_scaling"):
        told = config.get(key) or {}
        for one in (told, *(part for part in told.values() if isinstance(part, dict))):
            if one.get("rope_type", one.get("type", "default")) != "default":
                return (
                    f"the openvino runtime's {architecture} graph has no scaled positions ({key!r})"
                )
    return None
