"""Attention over sequences that lie packed in one row, without a mask: transformers' models
call it by the name NAME, once `register` has told them of it.

On a GPU it is torch's own variable-length attention (FlashAttention's kernels, f16 and bf16);
elsewhere torch's scaled-dot-product attention, once for each run of sequences of one length.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeAlias

from omnivec.core.nouns import Array
from omnivec.runtimes._torch.packing import Packing, Run

Tensor: TypeAlias = Any  # torch is not there when this module is imported

NAME = "omnivec_packed"
HALF = 2  # bytes of the numbers that the kernels take
MOST_WIDE = 256  # and head dimensions


class Sequences(NamedTuple):
    """`starts` int32 [B + 1] on the device; `packing` on the host, so that no kernel has to
    wait for a number."""

    starts: Tensor
    packing: Packing


class Reach(NamedTuple):
    """Whom a token attends to: `window` counts itself, and looks both ways unless `causal`.
    `cap`: what scaled products of queries and keys stay below, where they are bent to."""

    causal: bool
    window: int | None
    scale: float | None
    cap: float | None = None


@cache
def register() -> str:
    """Makes `attend` known to transformers; gives the name to ask for it by."""
    from transformers import AttentionInterface

    # There is no mask function of that name, and so transformers makes no mask.
    AttentionInterface.register(NAME, attend)
    return NAME


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sequences: Sequences,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    **_unused: Any,
) -> tuple[Tensor, None]:
    """query [1, heads, S, d], key and value [1, heads or fewer, S, d] to [1, S, heads, d].

    Tokens that are there without being attended to see the others and are seen by none.
    Raises ValueError for what a packed row has no form of: a mask.
    """
    if attention_mask is not None:
        raise ValueError("packed attention takes no mask")
    causal = module.is_causal if is_causal is None else is_causal
    reach = Reach(causal, sliding_window, scaling, softcap)
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    whole = sequences.packing.attended is None
    fast = whole and softcap is None and _has_kernel(query)
    kernel = _variable_length if fast else _by_runs
    return kernel(q, k, v, sequences, reach)[None], None


def _has_kernel(query: Tensor) -> bool:
    width = query.shape[-1]
    return (
        query.is_cuda
        and query.element_size() == HALF
        and width % 8 == 0
        and width <= MOST_WIDE
        and _varlen_attn() is not None
        and _is_ampere(query.device.index)
    )


@cache
def _is_ampere(device: int | None) -> bool:
    """The first generation that the kernels are built for."""
    import torch

    return bool(torch.cuda.get_device_capability(device) >= (8, 0))


@cache
def _varlen_attn() -> Callable[..., Tensor] | None:
    """torch's, where it has one with windows and grouped heads (from 2.12 on)."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    takes = inspect.signature(varlen_attn).parameters
    return varlen_attn if {"window_size", "enable_gqa"} <= takes.keys() else None


def _variable_length(
    query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, reach: Reach
) -> Tensor:
    """[S, heads, d] each, to [S, heads, d], in one kernel."""
    varlen_attn = _varlen_attn()
    if varlen_attn is None:
        raise RuntimeError("this torch has no variable-length attention")
    back = -1 if reach.window is None else reach.window - 1
    return varlen_attn(
        query,
        key,
        value,
        sequences.starts,
        sequences.starts,
        sequences.packing.longest,
        sequences.packing.longest,
        scale=reach.scale,
        window_size=(back, 0 if reach.causal else back),
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _by_runs(
    query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, reach: Reach
) -> Tensor:
    """[S, heads, d] each, to [S, heads, d], a run of equal lengths at a time."""
    import torch

    done = []
    attended = sequences.packing.attended
    for run in sequences.packing.runs:
        q, k, v = (_cut(states, run) for states in (query, key, value))
        seen = None if attended is None else _seen(attended, run, query.device)
        done.append(_dense(q, k, v, reach, seen).transpose(1, 2).flatten(0, 1))
    return done[0] if len(done) == 1 else torch.cat(done)


def _seen(attended: Array, run: Run, device: Any) -> Tensor:
    """bool [rows, 1, 1, length] of the run's tokens."""
    import torch

    part = attended[run.start : run.start + run.rows * run.length]
    return torch.from_numpy(part.reshape(run.rows, 1, 1, run.length)).to(device)


def _cut(states: Tensor, run: Run) -> Tensor:
    """[S, heads, d] to the run's [rows, heads, length, d]."""
    part = states[run.start : run.start + run.rows * run.length]
    return part.unflatten(0, (run.rows, run.length)).transpose(1, 2)


def _dense(query: Tensor, key: Tensor, value: Tensor, reach: Reach, seen: Tensor | None) -> Tensor:
    from torch.nn import functional

    mask = _mask(query, reach, seen)
    if reach.cap is not None:
        return _capped(query, key, value, mask, reach.scale or query.shape[3] ** -0.5, reach.cap)
    return functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=reach.causal and mask is None,
        scale=reach.scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _capped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, cap: float
) -> Tensor:
    """As torch's own, with products bent to cap tanh(scale product / cap) before the softmax."""
    groups = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(groups, 1) for states in (key, value))
    bent = ((query @ key.transpose(2, 3)).float() * (scale / cap)).tanh() * cap
    if mask is not None:
        bent = bent.masked_fill(~mask, float("-inf"))
    return bent.softmax(-1).to(value.dtype) @ value


def _mask(query: Tensor, reach: Reach, seen: Tensor | None) -> Tensor | None:
    """bool [.., length, length]: who is attended to. None where nothing but being causal says
    it, which torch's own attention can be told without a mask."""
    length = query.shape[2]
    window = min(reach.window or length, length)
    told = seen is None and reach.cap is None
    if window == length and (told or not reach.causal):
        return seen
    band = _band(query, window, causal=reach.causal)
    return band if seen is None else band & seen


def _band(query: Tensor, window: int, *, causal: bool) -> Tensor:
    """bool [length, length]: who is within the window."""
    import torch

    places = torch.arange(query.shape[2], device=query.device)
    distance = places[:, None] - places[None]
    return (distance < window) & (distance >= 0 if causal else distance > -window)
