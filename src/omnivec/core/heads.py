"""Each head step in numpy: the reference that every runtime's graph is tested against.

Which tokens a head gives and which must be computed for it is reckoned here as well.

The formulas are sentence-transformers 6.2's (modules Pooling, Dense, LayerNorm, Normalize),
with one difference: a row with nothing to pool over gives zeros, never NaN or infinity.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from omnivec.core.nouns import Array, Floats
from omnivec.core.steps import (
    Contrast,
    Dense,
    Head,
    LayerNorm,
    Mode,
    Normalize,
    Pool,
    Scale,
    Vocabulary,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Files: TypeAlias = "Mapping[str, Mapping[str, Array]]"

PICTURES: Mapping[str, str] = {
    "pixel_values": "image_grid_thw",
    "pixel_values_videos": "video_grid_thw",
}
"""What a batch of texts with pictures and videos has of them, and of the sizes of each: arrays
whose first axis is not the batch's."""
OUTPUT = "lm_head.weight"  # a language model's output embeddings, [V, H]
LAYER_NORM_EPSILON = 1e-5  # torch.nn.LayerNorm's default; the files do not carry it
NORM_FLOOR = 1e-12  # torch.nn.functional.normalize's
MASK_FLOOR = 1e-9  # sentence-transformers' Pooling's


def named(head: Head) -> dict[str, Head]:
    """Each output of the head's pass by its name, "output" first."""
    return {"output": head, **head.also}


def of_tokens(head: Head) -> list[str]:
    """The names of those outputs that are of single tokens."""
    return [name for name, one in named(head).items() if one.kind == "tokens"]


def kept(name: str, arrays: Mapping[str, Array]) -> Array:
    """bool [B, T]: the tokens that the output `name`, of kind "tokens", gives a row for."""
    whole = arrays["attention_mask"].astype(bool)
    told = arrays.get(f"{name}_mask")
    if told is not None:
        return told.astype(bool)
    return whole if name == "output" else np.zeros_like(whole)


def computed(names: Iterable[str], arrays: Mapping[str, Array]) -> Array:
    """bool [B, T]: the tokens that are attended to, and those that one of the outputs `names`
    keeps although no other token sees them (ColBERT's query expansion)."""
    there: Array = arrays["attention_mask"].astype(bool)
    for name in names:
        there = there | kept(name, arrays)
    return there


def apply(
    head: Head,
    hidden: Floats,
    mask: Array,
    weights: Files,
    pool_mask: Array | None = None,
    output_mask: Array | None = None,
) -> Floats:
    """The head of hidden states [B, T, H] under mask [B, T]: [B, d], or of tokens [K, d].

    `weights` are tensors by file, then by name; a Contrast's is OUTPUT of the file "".
    `pool_mask` [B, T] says which of the unmasked tokens are pooled (sentence-transformers'
    `include_prompt: false`) and `output_mask` [B, T] which tokens a head of kind "tokens"
    keeps; None means all that are attended to.
    Raises ValueError for kinds "logits", "words", "contrast" and "tower", which need what is the
    architecture's own.
    """
    if head.kind in ("logits", "words", "contrast", "tower"):
        raise ValueError(f"a head of {head.kind} belongs to the architecture")
    x = hidden.astype(np.float32)
    if head.kind == "tokens":
        x = x[(mask if output_mask is None else output_mask).astype(bool)]
    for step in head.steps:
        if isinstance(step, Pool):
            x = pool(step, x, mask, mask if pool_mask is None else pool_mask)
        elif not isinstance(step, Vocabulary | Scale):
            x = _project(step, x, weights)
    return x


def pool(step: Pool, hidden: Floats, mask: Array, pool_mask: Array) -> Floats:
    """[B, T, H] to [B, len(modes) * H], the modes side by side in the step's order."""
    kept = pool_mask.astype(bool)
    return np.concatenate([_POOLS[mode](hidden, mask, kept) for mode in step.modes], axis=1)


def words(step: Vocabulary, logits: Floats, pool_mask: Array) -> Floats:
    """Logits [B, T, V] to [B, V]; 0 for a row that keeps nothing. SPLADE: arXiv 2107.05720
    (sum), 2109.10086 (max); a second log1p: 2504.14839."""
    weights = np.where(pool_mask.astype(bool)[..., None], np.maximum(logits, 0), np.float32(0))
    for _ in range(step.function.count("log1p")):
        weights = np.log1p(weights)
    return np.asarray(weights.max(axis=1) if step.mode == "max" else weights.sum(axis=1))


def scaled(step: Scale, pixels: Array) -> Floats:
    """uint8 [.., 3] to float32 [.., 3], rounded where transformers' processors round."""
    bright = (pixels.astype(np.float64) * step.factor).astype(np.float32)
    mean, std = (np.array(each, np.float32) for each in (step.mean, step.std))
    return np.asarray((bright - mean) / std)


def activation(name: str) -> str:
    """The key of ACTIVATIONS that a dotted torch class means: "torch.nn.modules.activation.Tanh"
    is "Tanh". Raises ValueError for one that is not known here."""
    short = name.rpartition(".")[2]
    if short not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} is not one of {', '.join(ACTIVATIONS)}")
    return short


def ids_of(step: Contrast) -> list[int]:
    """The tokens that it reads the output embeddings of: `plus`, and `minus` where there is one."""
    return [step.plus] if step.minus is None else [step.plus, step.minus]


def contrast(rows: Floats) -> Floats:
    """The one vector [H] that a Contrast multiplies with, of its output embeddings [1 or 2, H]:
    `plus`, or `plus` and `minus`."""
    return np.asarray(rows[0] if len(rows) == 1 else rows[0] - rows[1], np.float32)


def _project(step: Dense | LayerNorm | Normalize | Contrast, x: Array, weights: Files) -> Array:
    if isinstance(step, Contrast):
        table = weights[""][OUTPUT]
        return np.asarray(x @ contrast(table[ids_of(step)].astype(np.float32)))[:, None]
    if isinstance(step, Dense):
        return _dense(x, weights[step.file], ACTIVATIONS[activation(step.activation)])
    if isinstance(step, LayerNorm):
        return _layer_norm(x, weights[step.file])
    norm: Array = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, np.maximum(norm, NORM_FLOOR), dtype=np.float32)


def _dense(x: Array, weights: Mapping[str, Array], function: Callable[[Array], Array]) -> Array:
    y: Array = x @ weights["linear.weight"].astype(np.float32).T
    if "linear.bias" in weights:
        y = y + weights["linear.bias"].astype(np.float32)
    return function(y)


def _layer_norm(x: Array, weights: Mapping[str, Array]) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + LAYER_NORM_EPSILON)
    return np.asarray(scaled * weights["norm.weight"] + weights["norm.bias"], np.float32)


# ── pooling: hidden [B, T, H], mask [B, T] as attended to, kept [B, T] as pooled ──────────


def _first(hidden: Array, _mask: Array, kept: Array) -> Array:
    """The first unmasked token: with padding on the left it is not token 0."""
    return _chosen(hidden, kept, kept.argmax(axis=1))


def _last(hidden: Array, _mask: Array, kept: Array) -> Array:
    return _chosen(hidden, kept, kept.shape[1] - 1 - kept[:, ::-1].argmax(axis=1))


def _chosen(hidden: Array, kept: Array, index: Array) -> Array:
    rows = np.arange(len(hidden))
    return np.multiply(hidden[rows, index], kept[rows, index, None])


def _mean(hidden: Array, _mask: Array, kept: Array) -> Array:
    return np.divide(_summed(hidden, kept), np.maximum(_count(kept), MASK_FLOOR))


def _mean_sqrt_len(hidden: Array, _mask: Array, kept: Array) -> Array:
    return np.divide(_summed(hidden, kept), np.sqrt(np.maximum(_count(kept), MASK_FLOOR)))


def _max(hidden: Array, _mask: Array, kept: Array) -> Array:
    highest = np.where(kept[..., None], hidden, np.float32(-np.inf)).max(axis=1)
    return np.where(kept.any(axis=1, keepdims=True), highest, np.float32(0))


def _weightedmean(hidden: Array, mask: Array, kept: Array) -> Array:
    """Weights 1, 2, 3 … from the first token attended to, whether it is pooled or not."""
    start = mask.astype(bool).argmax(axis=1)[:, None]
    ramp = np.arange(1, mask.shape[1] + 1)[None] - start
    weights = (kept * ramp).astype(np.float32)
    return np.divide(_summed(hidden, weights), np.maximum(_count(weights), MASK_FLOOR))


def _summed(hidden: Array, weights: Array) -> Array:
    return np.asarray(np.einsum("bth,bt->bh", hidden, weights.astype(np.float32)))


def _count(weights: Array) -> Array:
    return np.asarray(weights.sum(axis=1, keepdims=True), np.float32)


_POOLS: Mapping[Mode, Callable[[Array, Array, Array], Array]] = {
    "cls": _first,
    "mean": _mean,
    "max": _max,
    "mean_sqrt_len": _mean_sqrt_len,
    "weightedmean": _weightedmean,
    "last": _last,
}


# ── activations, under the names of torch.nn ─────────────────────────────────────────────


def _erf(x: Array) -> Array:
    return np.asarray(np.vectorize(math.erf, otypes=[np.float32])(x))


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))  # the same function, without overflow


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "Identity": lambda x: x,
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, 0),
    "GELU": lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2))),
    "SiLU": lambda x: x * _sigmoid(x),
    "Sigmoid": _sigmoid,
    "LeakyReLU": lambda x: np.where(x > 0, x, np.float32(0.01) * x),
    "ELU": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "Softplus": lambda x: np.logaddexp(x, 0),
    "Mish": lambda x: x * np.tanh(np.logaddexp(x, 0)),
}
