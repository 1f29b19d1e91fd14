"""A checkpoint and a head to one OpenVINO model, its outputs named as `Head` says."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from openvino import Model, Type
from openvino import opset15 as ops

from omnivec.core import heads
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.runtimes._openvino import lora, words
from omnivec.runtimes._openvino.blocks import Encoded, Inputs
from omnivec.runtimes._openvino.heads import first_place, last_place, project, reads_one
from omnivec.runtimes._openvino.limits import ARCHITECTURES, DECODER
from omnivec.runtimes._openvino.weights import Weights

if TYPE_CHECKING:
    from types import ModuleType

    from omnivec.core.nouns import Head


def build(
    checkpoint: Checkpoint, head: Head, *, int8: bool = False
) -> tuple[Any, Encoded, Weights]:
    """The graph, what its session must check of its inputs, and the weights that it shares
    memory with. With `int8` the encoder's matrices are rounded, the head's never. Raises
    CheckpointError."""
    architecture = _module(checkpoint.architecture)
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
    try:
        inputs = inputs._replace(chosen=_chosen(head, checkpoint, inputs))
        encoded = architecture.encode(checkpoint.config, body, inputs)
        outputs = _outputs(architecture, checkpoint, head, encoded, top, inputs)
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{checkpoint.name}: config.json lacks or garbles {error}, which a "
            f"{checkpoint.architecture} model needs; download the model again"
        ) from error
    results = [_result(name, output) for name, output in outputs.items()]
    model = Model(results, given, checkpoint.architecture)
    return model, encoded._replace(hidden=None, adapters=len(checkpoint.adapters)), weights


def _chosen(head: Head, checkpoint: Checkpoint, inputs: Inputs) -> Any | None:
    """The one token of each row that is read, where no other is."""
    decoder = ARCHITECTURES[checkpoint.architecture] == DECODER
    if not reads_one(head, checkpoint.config, decoder=decoder):
        return None
    if not decoder:
        return first_place(inputs)
    padding = checkpoint.config.get("pad_token_id") if head.kind == "logits" else None
    return last_place(inputs, padding)


INPUTS = ("ids", "mask", "segments", "pooled", "tokens", "places")  # of blocks.Inputs


def _parameter(name: str) -> Any:
    flat = name in ("tokens", "adapter") or name.endswith("_kept")
    made = ops.parameter([-1] if flat else [-1, -1], Type.i64, name)
    made.get_output_tensor(0).set_names({name})
    return made


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
        else:
            outputs[name] = project(encoded, name, one, inputs, checkpoint, weights)
    return outputs


def _result(name: str, output: Any) -> Any:
    made = ops.result(output)
    made.get_output_tensor(0).set_names({name})
    return made


def _module(model_type: str) -> ModuleType:
    """It has ANCHOR, the name of the word embeddings, which tells the prefix of the
    checkpoint's keys; `encode`; and `classify`."""
    return importlib.import_module(f"omnivec.runtimes._openvino.{ARCHITECTURES[model_type]}")
