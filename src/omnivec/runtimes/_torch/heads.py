"""Heads over packed hidden states, as core/heads.py has them in numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.heads import LAYER_NORM_EPSILON, NORM_FLOOR, activation, ids_of
from omnivec.core.nouns import Array
from omnivec.core.steps import (
    Contrast,
    Dense,
    Head,
    LayerNorm,
    Normalize,
    Pool,
    Scale,
    Step,
    Vocabulary,
)
from omnivec.core.tensors import output_rows
from omnivec.runtimes._torch.loading import state
from omnivec.runtimes._torch.packing import Packing

Tensor: TypeAlias = Any  # torch is not there when this module is imported
Layer: TypeAlias = Callable[[Tensor], Tensor]
Move: TypeAlias = Callable[[Array], Tensor]
"""A host array to the device."""
HeadRun: TypeAlias = Callable[[Tensor, Packing, Move], Tensor]

LOGITS = 2048  # tokens whose logits are there at once: 250 MB of them for BERT's vocabulary


def build(checkpoint: Checkpoint, name: str, head: Head, model: Any) -> HeadRun:
    """The steps of the output `name` as one function of the `model`'s hidden states [S, H] and
    their packing: [B, d], or [K, d] of tokens. They are done in float32 whatever the model's dtype:
    they cost next to nothing. Raises CheckpointError."""
    pools = [step for step in head.steps if isinstance(step, Pool)]
    layers = [
        _layer(checkpoint, step, model) for step in head.steps if not isinstance(step, Pool | Scale)
    ]

    def run(x: Tensor, packing: Packing, move: Move) -> Tensor:
        for step in pools:
            x = pool(x, step.modes, packing, move)
        if name in packing.given:
            x = x[move(packing.given[name])]
        x = x.float()
        for layer in layers:
            x = layer(x)
        return x

    return run


def pool(x: Tensor, modes: Sequence[str], packing: Packing, move: Move) -> Tensor:
    """[S, H] to float32 [B, len(modes) * H]. A row that nothing is pooled of gives zeros."""
    import torch

    return torch.cat([_pool(x, mode, packing, move) for mode in modes], dim=1)


def words(
    step: Vocabulary, spell: Layer, states: Tensor, packing: Packing, move: Move
) -> dict[str, Tensor]:
    """What a head of kind "words" gives of [S, H]; `spell` makes logits [.., V] of some."""
    import torch

    kept = move(packing.kept)[:, None]
    found = []
    for first, end in packing.spans(LOGITS):
        at = slice(int(packing.starts[first]), int(packing.starts[end]))
        weights = _weigh(step, spell(states[at]).float().masked_fill_(~kept[at], 0.0))
        rows = weights.split(packing.lengths[first:end].tolist())
        found += [row.amax(0) if step.mode == "max" else row.sum(0) for row in rows]
    values = torch.stack(found)
    places = values.nonzero(as_tuple=True)
    return {"output": values[places], "rows": places[0], "columns": places[1]}


def _weigh(step: Vocabulary, logits: Tensor) -> Tensor:
    weights = logits.relu_()
    for _ in range(step.function.count("log1p")):
        weights = weights.log1p_()
    return weights


def _pool(x: Tensor, mode: str, packing: Packing, move: Move) -> Tensor:
    if mode in ("cls", "last"):
        index, some = packing.chosen(last=mode == "last")
        return x[move(index)].float() * move(some)[:, None]
    starts = move(packing.starts)
    if mode == "max":
        kept = move(packing.kept)[:, None]
        highest = _reduce(x.float().masked_fill(~kept, float("-inf")), "max", starts)
        return highest.masked_fill(highest == float("-inf"), 0.0)
    return _reduce(x.float() * move(packing.weights(mode))[:, None], "sum", starts)


def _reduce(x: Tensor, how: str, starts: Tensor) -> Tensor:
    import torch

    # its checks of `starts` would wait for the device
    return torch.segment_reduce(x, how, offsets=starts, axis=0, unsafe=True)


def _answers(checkpoint: Checkpoint, step: Contrast, model: Any) -> Tensor:
    """The rows of its words in the output embeddings, of which a model without its language
    head has none loaded: float32 [1 or 2, H]."""
    import torch

    table = model.get_output_embeddings()
    if table is not None:
        return table.weight[ids_of(step)].float()
    return torch.from_numpy(output_rows(checkpoint, ids_of(step))).to(model.device)


def _layer(checkpoint: Checkpoint, step: Step, model: Any) -> Layer:
    import torch
    from torch.nn import functional

    device = model.device
    if isinstance(step, Contrast):
        rows = _answers(checkpoint, step, model)
        between = (rows[0] - rows[1:].sum(0))[:, None]
        return lambda x: x @ between
    if isinstance(step, Normalize):
        return lambda x: functional.normalize(x, dim=-1, eps=NORM_FLOOR)
    if isinstance(step, Dense):
        weights = _weights(checkpoint, step.file, device, "linear.weight")
        function = getattr(torch.nn, activation(step.activation))()
        bias = weights.get("linear.bias")
        return lambda x: function(functional.linear(x, weights["linear.weight"], bias))
    if isinstance(step, LayerNorm):
        weights = _weights(checkpoint, step.file, device, "norm.weight", "norm.bias")
        scale, shift = weights["norm.weight"], weights["norm.bias"]
        return lambda x: functional.layer_norm(x, scale.shape, scale, shift, LAYER_NORM_EPSILON)
    raise ValueError(f"a {type(step).__name__} step comes first or not at all")


def _weights(checkpoint: Checkpoint, file: str, device: Any, *names: str) -> dict[str, Tensor]:
    found = {name: tensor.float() for name, tensor in _tensors(checkpoint, file).items()}
    for name in names:
        if name not in found:
            raise CheckpointError(f"{checkpoint.name}: {file} lacks {name}; download it again")
    return {name: tensor.to(device) for name, tensor in found.items()}


def _tensors(checkpoint: Checkpoint, file: str) -> dict[str, Tensor]:
    """Of a head's step alone: a file may hold the whole model beside it."""
    from safetensors import SafetensorError, safe_open

    if not checkpoint.has(file):
        raise CheckpointError(f"{checkpoint.name}: {file} is missing; download the model again")
    if not file.endswith(".safetensors"):
        found = state(checkpoint.name, checkpoint.path(file))
        return {name: found[name] for name in found if name in _NAMES}
    try:
        with safe_open(checkpoint.path(file), framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys() if name in _NAMES}  # noqa: SIM118 - it is no dict
    except SafetensorError as error:
        raise CheckpointError(
            f"{checkpoint.name}: {file} cannot be read ({error}); download it again"
        ) from error


_NAMES = {"linear.weight", "linear.bias", "norm.weight", "norm.bias"}
