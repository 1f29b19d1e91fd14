"""A checkpoint and a head to one OpenVINO model with the output "output", float32."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from openvino import Model, Type
from openvino import opset15 as ops

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.runtimes._openvino import lora
from omnivec.runtimes._openvino.blocks import Encoded, Inputs
from omnivec.runtimes._openvino.heads import first_place, project, reads_first
from omnivec.runtimes._openvino.limits import ARCHITECTURES
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
    inputs = Inputs(*(_parameter(name) for name in INPUTS))
    body, top = weights.rounded() if int8 else weights, weights
    parameters = list(inputs)[: len(INPUTS)]
    if checkpoint.adapters:
        parameters.append(lora.parameter())
        updates = lora.updates(weights, checkpoint.adapters, parameters[-1], inputs)
        body, top = body.adapted(updates), top.adapted(updates.rows)
    try:
        chosen = first_place(inputs) if reads_first(head, checkpoint.config) else None
        inputs = inputs._replace(chosen=chosen)
        encoded = architecture.encode(checkpoint.config, body, inputs)
        if head.kind == "logits":
            output = architecture.classify(checkpoint.config, top, encoded, inputs)
        else:
            output = project(encoded, head.steps, inputs, checkpoint)
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{checkpoint.name}: config.json lacks or garbles {error}, which a "
            f"{checkpoint.architecture} model needs; download the model again"
        ) from error
    result = ops.result(output)
    result.get_output_tensor(0).set_names({"output"})
    model = Model([result], parameters, checkpoint.architecture)
    return model, encoded._replace(hidden=None, adapters=len(checkpoint.adapters)), weights


INPUTS = ("input_ids", "attention_mask", "token_type_ids", "pool_mask", "tokens", "places")


def _parameter(name: str) -> Any:
    made = ops.parameter([-1] if name == "tokens" else [-1, -1], Type.i64, name)
    made.get_output_tensor(0).set_names({name})
    return made


def _module(model_type: str) -> ModuleType:
    """It has ANCHOR, the name of the word embeddings, which tells the prefix of the
    checkpoint's keys; `encode`; and `classify`."""
    return importlib.import_module(f"omnivec.runtimes._openvino.{ARCHITECTURES[model_type]}")
