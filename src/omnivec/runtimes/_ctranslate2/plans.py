"""The encoders that CTranslate2 computes, each read from its config.json, without CTranslate2.

BERT, RoBERTa, XLM-RoBERTa, CamemBERT and DistilBERT (arXiv 1810.04805, 1907.11692, 1910.01108)
differ for it in what their files call things, and in where positions begin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from omnivec.core.checkpoint import Checkpoint
    from omnivec.core.steps import Head

# config.json's activations by CTranslate2's numbers (include/ctranslate2/ops/activation.h)
ACTIVATIONS = {
    "gelu": 3,
    "gelu_fast": 1,
    "gelu_new": 1,
    "gelu_python": 3,
    "gelu_pytorch_tanh": 1,
    "quick_gelu": 4,
    "relu": 0,
    "silu": 2,
    "swish": 2,
}

_HEADS = {
    "tokens": "computes no token that the others do not see, as late interaction wants",
    "words": "has no language model's head",
}


class Names(NamedTuple):
    """What the tensors of layer N are called, after `layer`.N."""

    layer: str
    asked: tuple[str, str, str]  # queries, keys and values
    mixed: str
    mixed_norm: str
    inner: str
    outer: str
    outer_norm: str


class Plan(NamedTuple):
    """An encoder. `start` is the first row of the table of positions that a text has. `logits`:
    the two layers of its classifier, the first of them with `tanh` or else ReLU after it, and
    part of the encoder itself where it is its pooler."""

    layers: int
    heads: int
    width: int
    inner: int
    activation: int
    epsilon: float
    start: int
    names: Names
    logits: tuple[str, str]
    tanh: bool = True


BERT = Names(
    "encoder.layer",
    ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)
DISTILBERT = Names(
    "transformer.layer",
    ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    "attention.out_lin",
    "sa_layer_norm",
    "ffn.lin1",
    "ffn.lin2",
    "output_layer_norm",
)


def _bert(config: Mapping[str, Any]) -> Plan:
    return Plan(
        config["num_hidden_layers"],
        config["num_attention_heads"],
        config["hidden_size"],
        config["intermediate_size"],
        ACTIVATIONS[config.get("hidden_act", "gelu")],
        config.get("layer_norm_eps", 1e-12),
        0,
        BERT,
        ("pooler.dense", "classifier"),
    )


def _roberta(config: Mapping[str, Any]) -> Plan:
    """Its positions are counted from the row after the padding's."""
    logits = ("classifier.dense", "classifier.out_proj")
    return _bert(config)._replace(start=config.get("pad_token_id", 1) + 1, logits=logits)


def _distilbert(config: Mapping[str, Any]) -> Plan:
    return Plan(
        config["n_layers"],
        config["n_heads"],
        config["dim"],
        config["hidden_dim"],
        ACTIVATIONS[config.get("activation", "gelu")],
        1e-12,  # fixed in the architecture
        0,
        DISTILBERT,
        ("pre_classifier", "classifier"),
        tanh=False,
    )


PLANS: Mapping[str, Callable[[Mapping[str, Any]], Plan]] = {
    "bert": _bert,
    "camembert": _roberta,
    "distilbert": _distilbert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
}


def reason(checkpoint: Checkpoint, head: Head) -> str | None:
    """Why CTranslate2 does not compute this, or None."""
    why = _unplanned(checkpoint.architecture, checkpoint.config) or _unfinished(head)
    if checkpoint.adapters and why is None:
        why = "applies no LoRA adapters"
    return why and f"the ctranslate2 runtime {why}; use --runtime openvino, or torch"


def _unplanned(architecture: str, config: Mapping[str, Any]) -> str | None:
    if architecture not in PLANS:
        what = repr(architecture) if architecture else "a config.json without model_type"
        return f"has nothing for {what} (it has {', '.join(PLANS)})"
    if config.get("position_embedding_type") not in (None, "absolute"):
        return "has no positions other than absolute ones ('position_embedding_type')"
    if config.get("is_decoder"):
        return "has no causal attention ('is_decoder')"
    act = config.get("activation" if architecture == "distilbert" else "hidden_act", "gelu")
    return None if str(act) in ACTIVATIONS else f"has no activation {act!r}"


def _unfinished(head: Head) -> str | None:
    if head.kind not in ("pooled", "logits"):
        return _HEADS.get(head.kind, "computes texts' encoders only")
    besides = {one.kind for one in head.also.values()} - {"tokens"}
    return "makes one vector for each row" if besides else None
