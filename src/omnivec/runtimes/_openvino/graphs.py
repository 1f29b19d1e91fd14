"""A checkpoint and a head to one OpenVINO model, its outputs named as `Head` says."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from openvino import Model, Type

from omnivec.core import heads
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.runtimes._openvino import blocks, fastvit, lora, pictures, words
from omnivec.runtimes._openvino.blocks import Encoded, Inputs
from omnivec.runtimes._openvino.feeds import Feed, TokenFeed
from omnivec.runtimes._openvino.heads import first_place, last_place, project, reads_one
from omnivec.runtimes._openvino.limits import ARCHITECTURES, DECODER
from omnivec.runtimes._openvino.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from omnivec.core.steps import Head

PICTURES: Mapping[str, Callable[..., tuple[Any, Feed, Weights]]] = {
    "fastvit": fastvit.build,
    "pictures": pictures.build,
}
"""What makes the graph of a tower that looks at pictures, which is not like the others."""


def build(checkpoint: Checkpoint, head: Head, *, int8: bool = False) -> tuple[Any, Feed, Weights]:
    """The graph, what brings a batch to it, and the weights that it shares memory with. With
    `int8` the encoder's matrices are rounded, the head's never. Raises CheckpointError."""
    try:
        sight = PICTURES.get(ARCHITECTURES[checkpoint.architecture])
        if sight is not None:
            return sight(checkpoint, head, int8=int8)
        return _build(_module(checkpoint.architecture), checkpoint, head, int8=int8)
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{checkpoint.name}: config.json lacks or garbles {error}, which a "
            f"{checkpoint.architecture} model needs; download the model again"
        ) from error


def _build(
    architecture: ModuleType, checkpoint: Checkpoint, head: Head, *, int8: bool
) -> tuple[Any, Feed, Weights]:
    weights = Weights(checkpoint.name, checkpoint.weights())
    weights.root(architecture.ANCHOR)
    parameters = {name: _parameter(name) for name in INPUTS}
    kept = {name: _parameter(f"{name}_kept") for name in heads.of_tokens(head)}
    inputs = Inputs(**parameters, kept=kept)
    given = [*parameters.values(), *kept.values()]
    body, top = weights.rounded() if int8 else weights, weights
    if checkpoint.adapters:
        given.append(_parameter("adapter"))
        updates = lora.updates(weights, checkpoint.adapters, given[-1], inputs)
        body, top = body.adapted(updates), top.adapted(updates)
    inputs = inputs._replace(chosen=_chosen(architecture, checkpoint, head, inputs))
    encoded = architecture.encode(checkpoint.config, body, inputs)
    outputs = _outputs(architecture, checkpoint, head, encoded, top, inputs)
    results = [blocks.result(name, output) for name, output in outputs.items()]
    model = Model(results, given, checkpoint.architecture)
    limits = encoded._replace(hidden=None, adapters=len(checkpoint.adapters))
    return model, TokenFeed(limits, head), weights


INPUTS = ("ids", "mask", "segments", "pooled", "tokens", "places")  # of blocks.Inputs


def _parameter(name: str) -> Any:
    flat = name in ("tokens", "adapter") or name.endswith("_kept")
    return blocks.parameter(name, Type.i64, *([-1] if flat else [-1, -1]))


def _chosen(
    architecture: ModuleType, checkpoint: Checkpoint, head: Head, inputs: Inputs
) -> Any | None:
    """The packed token of each row that the head reads, where it reads no other."""
    if head.kind == "tower":
        return architecture.choose(checkpoint.config, inputs)
    decoder = ARCHITECTURES[checkpoint.architecture] == DECODER
    if not reads_one(head, checkpoint.config, decoder=decoder):
        return None
    if not decoder:
        return first_place(inputs)
    padding = checkpoint.config.get("pad_token_id") if head.kind == "logits" else None
    return last_place(inputs, padding)


def _outputs(
    architecture: ModuleType,
    checkpoint: Checkpoint,
    head: Head,
    encoded: Encoded,
    weights: Weights,
    inputs: Inputs,
) -> dict[str, Any]:
    """The nodes of a head's outputs, by name."""
    config, outputs = checkpoint.config, {}
    for name, one in heads.named(head).items():
        if one.kind == "logits":
            outputs[name] = architecture.classify(config, weights.of_rows(), encoded, inputs)
        elif one.kind == "words":
            outputs |= words.find(encoded, one, config, weights, inputs, architecture.ANCHOR)
        elif one.kind == "tower":
            outputs[name] = architecture.finish(encoded, weights.of_rows())
        else:
            outputs[name] = project(encoded, name, one, inputs, checkpoint, weights)
    return outputs


def _module(model_type: str) -> ModuleType:
    """It has ANCHOR, the name of the word embeddings, which tells the prefix of the
    checkpoint's keys; `encode`; and `classify`, or of a tower `choose` and `finish`."""
    return importlib.import_module(f"omnivec.runtimes._openvino.{ARCHITECTURES[model_type]}")
