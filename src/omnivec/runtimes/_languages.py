"""The heads of masked language models, for every runtime that makes them by itself: what the
checkpoints of each architecture call their parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.core.nouns import Floats
    from omnivec.runtimes._weights import Weights


class Layout(NamedTuple):
    """Every architecture's is a projection, an activation, a norm and a decoder, whose matrix is
    that of the word embeddings where the file has none."""

    dense: str
    norm: str
    decoder: str
    activation: str
    epsilon: float
    dense_bias: bool = True
    norm_bias: bool = True
    decoder_bias: bool = True

    @property
    def biases(self) -> tuple[str, str]:
        """The decoder's bias is shared by two modules, and a file has it under one of them."""
        return f"{self.decoder}.bias", f"{self.decoder.removesuffix('.decoder')}.bias"


def decoder(layout: Layout, weights: Weights, anchor: str, size: int) -> tuple[Floats, Floats]:
    """The matrix [V, size] and the bias [V]. `anchor` names the word embeddings among `weights`.
    Raises CheckpointError."""
    outer, key = weights.outer(), f"{layout.decoder}.weight"
    matrix = outer.take(key, None, size) if key in outer else weights.take(anchor, None, size)
    if not layout.decoder_bias:
        return matrix, np.zeros(len(matrix), np.float32)
    key = next((key for key in layout.biases if key in outer), layout.biases[-1])
    return matrix, outer.take(key, len(matrix))


def _bert(config: Mapping[str, Any]) -> Layout:
    name, act = "cls.predictions", config.get("hidden_act", "gelu")
    transform = f"{name}.transform"
    norm = f"{transform}.LayerNorm"
    return Layout(f"{transform}.dense", norm, f"{name}.decoder", act, _epsilon(config))


def _roberta(config: Mapping[str, Any]) -> Layout:
    name = "lm_head"  # whose activation no config changes
    return Layout(
        f"{name}.dense", f"{name}.layer_norm", f"{name}.decoder", "gelu", _epsilon(config)
    )


def _distilbert(config: Mapping[str, Any]) -> Layout:
    act = config.get("activation", "gelu")
    return Layout("vocab_transform", "vocab_layer_norm", "vocab_projector", act, 1e-12)


def _modernbert(config: Mapping[str, Any]) -> Layout:
    return Layout(
        "head.dense",
        "head.norm",
        "decoder",
        config.get("classifier_activation", "gelu"),
        config.get("norm_eps", 1e-5),
        config.get("classifier_bias", False),
        config.get("norm_bias", False),
        config.get("decoder_bias", True),
    )


def _nomic_bert(config: Mapping[str, Any]) -> Layout:
    norm, act = "cls.predictions.transform.layer_norm", config.get("hidden_act", "silu")
    return _bert(config)._replace(norm=norm, activation=act)


def _epsilon(config: Mapping[str, Any]) -> float:
    return float(config.get("layer_norm_eps", 1e-12))


LAYOUTS = {
    "bert": _bert,
    "camembert": _roberta,
    "distilbert": _distilbert,
    "modernbert": _modernbert,
    "mpnet": _roberta,
    "nomic_bert": _nomic_bert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
}
