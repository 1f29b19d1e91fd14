"""A checkpoint and a head to one OpenVINO model with the output "output", float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openvino import Model, Type
from openvino import opset15 as ops

from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.runtimes._openvino import (
    bert,
    distilbert,
    modernbert,
    mpnet,
    nomic_bert,
)
from omnivec.runtimes._openvino.blocks import Encoded, Inputs
from omnivec.runtimes._openvino.heads import project
from omnivec.runtimes._openvino.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from omnivec.core.nouns import Head

# An architecture is a module with ANCHOR, the name of its word embeddings, which tells the
# prefix of the checkpoint's keys; `encode`; and `classify`.
ARCHITECTURES: Mapping[str, ModuleType] = {
    "bert": bert,
    "roberta": bert,
    "xlm-roberta": bert,
    "camembert": bert,
    "distilbert": distilbert,
    "mpnet": mpnet,
    "modernbert": modernbert,
    "nomic_bert": nomic_bert,
}


def build(checkpoint: Checkpoint, head: Head) -> tuple[Any, Encoded, Weights]:
    """The graph, what its session must check of its inputs, and the weights that it shares
    memory with. Raises CheckpointError."""
    architecture = ARCHITECTURES[checkpoint.architecture]
    weights = Weights(checkpoint.name, checkpoint.weights())
    weights.root(architecture.ANCHOR)
    inputs = Inputs(*(_parameter(name) for name in INPUTS))
    try:
        encoded = architecture.encode(checkpoint.config, weights, inputs)
        if head.kind == "logits":
            output = architecture.classify(checkpoint.config, weights, encoded, inputs)
        else:
            output = project(encoded.hidden, encoded.width, head.steps, inputs, checkpoint)
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{checkpoint.name}: config.json lacks or garbles {error}, which a "
            f"{checkpoint.architecture} model needs; download the model again"
        ) from error
    result = ops.result(output)
    result.get_output_tensor(0).set_names({"output"})
    model = Model([result], list(inputs), checkpoint.architecture)
    return model, encoded._replace(hidden=None), weights


INPUTS = ("input_ids", "attention_mask", "token_type_ids", "pool_mask")


def _parameter(name: str) -> Any:
    made = ops.parameter([-1, -1], Type.i64, name)
    made.get_output_tensor(0).set_names({name})
    return made
