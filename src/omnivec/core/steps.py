"""A graph's last steps as nouns: what a family names and every runtime does on its device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec

Mode: TypeAlias = Literal["cls", "mean", "max", "mean_sqrt_len", "weightedmean", "last"]
"""How a Pool makes one state of all that a row has."""
Reduction: TypeAlias = Literal["max", "sum"]
Function: TypeAlias = Literal["relu", "log1p_relu", "log1p_log1p_relu"]
"""How a Vocabulary makes one number of all that a word has, and what it does to each before."""


class Pool(msgspec.Struct, frozen=True, tag=True):
    """hidden [B, T, H] and mask [B, T] to [B, len(modes) * H]; formulas in core/heads.py.

    `partial`: of tokens that are attended to some may not be pooled, as `pool_mask` says.
    """

    modes: tuple[Mode, ...]
    partial: bool = False


class Dense(msgspec.Struct, frozen=True, tag=True):
    """x [.., in] to activation(x W^T + b) [.., out]; weights in `file` of the checkpoint,
    under `linear.weight` and, where there is one, `linear.bias`. A file of torch.save that
    holds this layer alone has `weight` and `bias`."""

    file: str
    activation: str


class LayerNorm(msgspec.Struct, frozen=True, tag=True):
    """Weights in `file` under `norm.weight`, `norm.bias`; epsilon 1e-5 (torch's default)."""

    file: str


class Normalize(msgspec.Struct, frozen=True, tag=True):
    """x / max(|x|, 1e-12) over the last axis."""


class Vocabulary(msgspec.Struct, frozen=True, tag=True):
    """A masked language model's logits [B, T, V] to one number >= 0 for each word of the
    vocabulary, [B, V]: `function` of each, and the greatest or the sum over the tokens."""

    mode: Reduction
    function: Function


class Contrast(msgspec.Struct, frozen=True, tag=True):
    """x [B, H] to what a causal language model would answer of two words, [B, 1]: the logit of
    token `plus` less that of token `minus` (None: that of `plus` alone). One product with the
    difference of two rows of the output embeddings, where all logits are 150,000."""

    plus: int
    minus: int | None = None


class Scale(msgspec.Struct, frozen=True, tag=True):
    """A picture's channels, uint8 [.., 3], to (x * factor - mean) / std; core/heads.py. It comes
    first among the steps of whatever head has one."""

    factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


Step: TypeAlias = Pool | Dense | LayerNorm | Normalize | Vocabulary | Contrast | Scale


class Head(msgspec.Struct, frozen=True):
    """A graph's last steps, named and not coded, so that each runtime does them on the device.

    kind "pooled": `steps` begins with a Pool; one vector for each row, [B, d]. A Contrast comes
    right after it and is the last step.
    kind "tokens": `steps` (no Pool among them) over single tokens' hidden states, [K, d]: those
    of the K tokens that a mask keeps, row after row, so that no padding is computed or leaves.
    kind "logits": the architecture's own classification head, [B, labels]; no steps.
    kind "words": `steps` is one Vocabulary, after the architecture's own language model head.
    "output" [N] is what is not 0 of all rows; "rows" and "columns", int64 [N], say where it
    is, row after row and in each by columns.
    kind "contrast": `steps` are a Pool and a Contrast, whose rows are of the architecture's own
    language model head, [B, 1].
    kind "tower": a tower's own pooling and projection, one vector for each row, [B, d]. For
    pictures `steps` is one Scale, which comes before all else; for texts there are none.

    The session returns the result under the name "output", as float32. `also` are further
    outputs of the same pass, under names of their own. The mask of a "tokens" head comes as
    "output_mask" or "NAME_mask", int64 [B, T]: without "output_mask" every token that is
    attended to is kept, without "NAME_mask" none is.

    `spare`: of a graph that does a part of what another one does, texts alone, and can do without
    it. It is opened beside the other where that is worth its memory, and in its place where no
    runtime can open the other; the model then reads texts only.
    """

    kind: Literal["tokens", "pooled", "logits", "words", "contrast", "tower"]
    steps: tuple[Step, ...] = ()
    also: Mapping[str, Head] = {}
    spare: bool = False
