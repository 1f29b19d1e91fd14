"""What the checkpoints of each architecture call the parts of a layer, and their config.json its
sizes. Told without the onnx package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ANCHOR = "embeddings.word_embeddings.weight"
"""What tells the prefix of a checkpoint's keys."""


class Kind(NamedTuple):
    """`asked` are the projections to queries, keys and values. `padding` is the id whose places
    count for nothing, None where places are counted from the row's start. `head` names the
    layers of a classifier and the function between them."""

    padding: Callable[[Mapping[str, Any]], int | None]
    head: tuple[str, str, str]
    layer: str = "encoder.layer.{}"
    asked: tuple[str, str, str] = (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
    )
    mixed: str = "attention.output.dense"
    mixed_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    norm: str = "output.LayerNorm"
    size: str = "hidden_size"
    heads: str = "num_attention_heads"
    layers: str = "num_hidden_layers"
    inner: str = "intermediate_size"
    activation: str = "hidden_act"
    epsilon: float | None = None
    relative: bool = False


def _from_the_start(config: Mapping[str, Any]) -> None:
    del config


def _after_padding(config: Mapping[str, Any]) -> int:
    return int(config.get("pad_token_id", 1))


_DENSE = ("classifier.dense", "Tanh", "classifier.out_proj")
_BERT = Kind(_from_the_start, ("pooler.dense", "Tanh", "classifier"))
_ROBERTA = Kind(_after_padding, _DENSE)
_DISTILBERT = Kind(
    _from_the_start,
    ("pre_classifier", "Relu", "classifier"),
    layer="transformer.layer.{}",
    asked=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    mixed="attention.out_lin",
    mixed_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    norm="output_layer_norm",
    size="dim",
    heads="n_heads",
    layers="n_layers",
    inner="hidden_dim",
    activation="activation",
    epsilon=1e-12,
)
_MPNET = Kind(
    lambda _: 1,  # fixed in the architecture, whatever config.json says
    _DENSE,
    asked=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
    mixed="attention.attn.o",
    mixed_norm="attention.LayerNorm",
    relative=True,
)

KINDS: Mapping[str, Kind] = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
    "mpnet": _MPNET,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
"""By config.json's `model_type`."""

_NEEDED: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("position_embedding_type", (None, "absolute"), "positions other than absolute ones"),
    ("is_decoder", (None, False), "causal attention"),
)


def reason(architecture: str, config: Mapping[str, Any]) -> str | None:
    """Why no graph of `config` can be made here, or None."""
    if architecture not in KINDS:
        what = repr(architecture) if architecture else "a config.json without model_type"
        return f"has no graph of its own for {what} (it has {', '.join(KINDS)})"
    for key, right, what in _NEEDED:
        if config.get(key) not in right:
            return f"has no {what} in its graph for {architecture} ({key!r})"
    return None
