"""A checkpoint's encoder as CTranslate2 opens it, and the steps after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from omnivec.core.checkpoint import CheckpointError
from omnivec.runtimes._ctranslate2 import binary
from omnivec.runtimes._ctranslate2.classifier import Classifier
from omnivec.runtimes._ctranslate2.plans import PLANS
from omnivec.runtimes._steps import Steps
from omnivec.runtimes._weights import Weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from omnivec.core.checkpoint import Checkpoint
    from omnivec.core.nouns import Array, Floats
    from omnivec.core.steps import Head
    from omnivec.runtimes._ctranslate2.plans import Plan

ANCHOR = "embeddings.word_embeddings.weight"
SEGMENTS = "embeddings.token_type_embeddings.weight"
SUM = 1  # of the embeddings that a token has, where another number would lay them side by side


class Limits(NamedTuple):
    """How many rows the tables have that tokens, their places and their segments choose in;
    `segments` is 0 where there is no such table. `padding` is the token that RoBERTa and its kin
    count no place for, which CTranslate2 would: None where all count."""

    vocabulary: int
    positions: int
    segments: int
    padding: int | None = None


class Made(NamedTuple):
    """`variables` are the encoder's, by CTranslate2's names for them. `finish` makes the head's
    outputs of hidden states float32 [B, T, H] and a batch's arrays."""

    variables: Mapping[str, Array]
    epsilon: float
    limits: Limits
    finish: Callable[[Floats, Mapping[str, Array]], dict[str, Array]]

    def save(self, folder: Path) -> None:
        """What CTranslate2 opens. It is given numbers, so its vocabulary is one word that stands
        for all that it wants to know of. Raises OSError."""
        specials = dict.fromkeys(("unk_token", "bos_token", "eos_token"), "-")
        config = {"layer_norm_epsilon": self.epsilon, **specials}
        (folder / "config.json").write_bytes(msgspec.json.encode(config))
        (folder / "vocabulary.json").write_bytes(b'["-"]')
        binary.write(folder / "model.bin", self.variables)


def build(checkpoint: Checkpoint, head: Head) -> Made:
    """Raises CheckpointError."""
    try:
        plan = PLANS[checkpoint.architecture](checkpoint.config)
        weights = Weights(checkpoint.name, checkpoint.weights())
        weights.root(ANCHOR)
        variables = _variables(plan, weights)
        steps = (
            Classifier(plan, weights)
            if head.kind == "logits"
            else Steps(checkpoint, head, plan.width)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint.name}: config.json lacks or garbles {error}, which a "
            f"{checkpoint.architecture} model needs; download the model again"
        ) from error
    return Made(variables, plan.epsilon, _limits(plan, variables), steps.finish)


def _limits(plan: Plan, variables: Mapping[str, Array]) -> Limits:
    segments = variables.get("encoder/embeddings_1/weight")
    return Limits(
        len(variables["encoder/embeddings_0/weight"]),
        len(variables["encoder/position_encodings/encodings"]),
        0 if segments is None else len(segments),
        plan.start - 1 if plan.start else None,
    )


# ── the encoder ──────────────────────────────────────────────────────────────────────────


def _variables(plan: Plan, weights: Weights) -> dict[str, Array]:
    """Under CTranslate2's names (python/ctranslate2/specs/transformer_spec.py). Raises ValueError
    for heads that do not share the width, by which it would divide unseen."""
    if plan.heads < 1 or plan.width % plan.heads:
        raise ValueError("the number of attention heads")
    positions = weights.take("embeddings.position_embeddings.weight", None, plan.width)
    variables: dict[str, Array] = {
        "encoder/activation": np.array(plan.activation, np.int8),
        "encoder/embeddings_merge": np.array(SUM, np.int8),
        "encoder/num_heads": np.array(plan.heads, np.int16),
        "encoder/pre_norm": np.array(0, np.int8),
        "encoder/scale_embeddings": np.array(0, np.int8),
        "encoder/embeddings_0/weight": weights.take(ANCHOR, None, plan.width),
        "encoder/position_encodings/encodings": positions[plan.start :],
        **_norm(weights, "embeddings.LayerNorm", plan, "encoder/layernorm_embedding"),
    }
    if SEGMENTS in weights:
        variables["encoder/embeddings_1/weight"] = weights.take(SEGMENTS, None, plan.width)
    for index in range(plan.layers):
        variables |= _layer(weights, plan, index)
    return variables


def _layer(weights: Weights, plan: Plan, index: int) -> dict[str, Array]:
    names, width, inner = plan.names, plan.width, plan.inner
    key, to = f"{names.layer}.{index}.", f"encoder/layer_{index}"
    asked = [key + name for name in names.asked]
    attention = f"{to}/self_attention"
    return {
        **_linear(weights, asked, width, width, f"{attention}/linear_0"),
        **_linear(weights, [key + names.mixed], width, width, f"{attention}/linear_1"),
        **_norm(weights, key + names.mixed_norm, plan, f"{attention}/layer_norm"),
        **_linear(weights, [key + names.inner], inner, width, f"{to}/ffn/linear_0"),
        **_linear(weights, [key + names.outer], width, inner, f"{to}/ffn/linear_1"),
        **_norm(weights, key + names.outer_norm, plan, f"{to}/ffn/layer_norm"),
    }


def _linear(
    weights: Weights, keys: Sequence[str], out: int, into: int, name: str
) -> dict[str, Array]:
    """Several are one, whose outputs lie side by side."""
    matrices = [weights.take(f"{key}.weight", out, into) for key in keys]
    biases = [weights.take(f"{key}.bias", out) for key in keys]
    return {
        f"{name}/weight": matrices[0] if len(keys) == 1 else np.concatenate(matrices),
        f"{name}/bias": np.concatenate(biases),
    }


def _norm(weights: Weights, key: str, plan: Plan, name: str) -> dict[str, Array]:
    scale, shift = weights.norm(key, plan.width)
    return {f"{name}/gamma": scale, f"{name}/beta": shift}
