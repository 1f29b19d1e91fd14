"""What a decoder's config.json says of its layers, each model in words of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

GEMMA = {"gemma", "gemma2", "gemma3_text"}
FULL, SLIDING = "full_attention", "sliding_attention"
THETA = 10_000.0
# of Gemma 3: the bases of rotary positions, where config.json has them in its older spelling,
# and what they are where it has none
BASES = {FULL: ("rope_theta", 1_000_000.0), SLIDING: ("rope_local_base_freq", THETA)}


class Sizes(NamedTuple):
    """Of a layer. `groups` heads of keys and of values serve `heads` of queries, each of
    `head` numbers.

    `scale`: what products of queries and keys are multiplied by, and `cap` (None: none) what
    they then stay below. Embeddings are multiplied by `embedding`; the weights of norms are
    stored without `unit`.
    """

    hidden: int
    heads: int
    groups: int
    head: int
    inner: int
    epsilon: float
    activation: str
    scale: float
    cap: float | None = None
    embedding: float = 1.0
    unit: float = 0.0

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Sizes:
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        gemma = config["model_type"] in GEMMA
        head = config.get("head_dim") or (256 if gemma else hidden // heads)
        return cls(
            hidden,
            heads,
            config.get("num_key_value_heads") or heads,
            head,
            config["intermediate_size"],
            config.get("rms_norm_eps", 1e-6),
            _activation(config),
            (config.get("query_pre_attn_scalar") or head) ** -0.5,
            _cap(config),
            hidden**0.5 if gemma else 1.0,
            1.0 if gemma else 0.0,
        )


class Reach(NamedTuple):
    """Of a layer: how many tokens its queries see, themselves among them (None: all that they
    may), and the base of its rotary positions."""

    window: int | None
    theta: float


def reaches(config: Mapping[str, Any]) -> list[Reach]:
    """Of each layer in turn."""
    size = _window(config)
    return [
        Reach(size if kind == SLIDING else None, _theta(config, kind)) for kind in _kinds(config)
    ]


def looks_both_ways(config: Mapping[str, Any]) -> bool:
    """Whether a token sees those after it, too: so were gte-Qwen2 and EmbeddingGemma trained."""
    if config["model_type"] == "gemma3_text":
        return bool(config.get("use_bidirectional_attention"))
    return config.get("is_causal") is False


def _activation(config: Mapping[str, Any]) -> str:
    """Gemma's first files say `gelu`, the exact one, and were trained so."""
    if config["model_type"] not in GEMMA:
        return str(config.get("hidden_act", "silu"))
    told = "hidden_act" if config["model_type"] == "gemma" else "hidden_activation"
    return str(config.get(told) or "gelu_pytorch_tanh")


def _cap(config: Mapping[str, Any]) -> float | None:
    """Gemma 3 has the key and does not cap."""
    if config["model_type"] != "gemma2":
        return None
    told = config.get("attn_logit_softcapping", 50.0)
    return None if told is None else float(told)


def _kinds(config: Mapping[str, Any]) -> list[str]:
    """Which layers look through a window: all of Mistral's, of Qwen's those that `layer_types`
    names or that are not the first, of Gemma's all but every second (Gemma 2) or sixth."""
    count, kind = config["num_hidden_layers"], config["model_type"]
    listed = config.get("layer_types")
    if kind in ("llama", "gemma") or config.get("sliding_window") is None:
        return [FULL] * count
    if kind == "mistral":
        return [SLIDING] * count
    if kind in GEMMA:
        every = 2 if kind == "gemma2" else config.get("sliding_window_pattern", 6)
        return listed or [SLIDING if index % every else FULL for index in range(1, count + 1)]
    if not config.get("use_sliding_window", False):
        return [FULL] * count
    first = config.get("max_window_layers", 28)
    return listed or [SLIDING if index >= first else FULL for index in range(count)]


def _window(config: Mapping[str, Any]) -> int:
    """Gemma 3 that looks both ways has its window told as the width of both sides."""
    size = int(config.get("sliding_window") or 0)
    if config["model_type"] == "gemma3_text" and looks_both_ways(config):
        return size // 2 + 1
    return size


def _theta(config: Mapping[str, Any], kind: str) -> float:
    told = config.get("rope_parameters") or {}
    if config["model_type"] != "gemma3_text":
        return float(told.get("rope_theta") or config.get("rope_theta") or THETA)
    name, usual = BASES[kind]
    return float((told.get(kind) or {}).get("rope_theta") or config.get(name) or usual)
