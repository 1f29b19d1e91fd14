"""A graph of our own, from config.json and safetensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from omnivec.core.checkpoint import CheckpointError
from omnivec.core.steps import Vocabulary
from omnivec.runtimes._onnx import tops
from omnivec.runtimes._onnx.encoder import Encoder
from omnivec.runtimes._onnx.graph import Graph
from omnivec.runtimes._onnx.parts import ANCHOR, KINDS
from omnivec.runtimes._onnx.session import Limits, Use
from omnivec.runtimes._steps import Steps, sparse
from omnivec.runtimes._weights import Weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from omnivec.core.checkpoint import Checkpoint
    from omnivec.core.nouns import Array, Floats
    from omnivec.core.steps import Head
    from omnivec.runtimes._onnx.graph import Node

RESULT = "result"


class Written(NamedTuple):
    """`model` is a file's bytes, `tensors` what it names and does not hold; `rest` is called once
    they were read."""

    model: bytes
    tensors: Mapping[str, Array]
    use: Use
    rest: Callable[[], None]


def write(checkpoint: Checkpoint, head: Head) -> Written:
    """Raises CheckpointError."""
    try:
        return _write(checkpoint, head)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint.name}: config.json lacks or garbles {error}, which a "
            f"{checkpoint.architecture} model needs; download the model again"
        ) from error


def _write(checkpoint: Checkpoint, head: Head) -> Written:
    weights = Weights(checkpoint.name, checkpoint.weights())
    weights.root(ANCHOR)
    graph, kind = Graph(), KINDS[checkpoint.architecture]
    encoder = Encoder(graph, weights, checkpoint.config, kind)
    encoded = encoder.encode()
    result, finish = _top(encoder, encoded.hidden, checkpoint, head)
    limits = Limits(encoded.vocabulary, encoded.positions, encoded.segments)
    model = graph.serialised({RESULT: result})
    return Written(model, graph.tensors, Use(limits, RESULT, finish), weights.rest)


def _top(
    encoder: Encoder, hidden: Node, checkpoint: Checkpoint, head: Head
) -> tuple[Node, Callable[[Floats, Mapping[str, Array]], dict[str, Array]]]:
    """The graph's result, and what is made of it."""
    if head.kind == "logits":
        names = KINDS[checkpoint.architecture].head
        return tops.classify(encoder, hidden, names), lambda found, _: {"output": found}
    if head.kind == "words":
        (step,) = (step for step in head.steps if isinstance(step, Vocabulary))
        values = tops.spell(encoder, hidden, checkpoint.config, step)
        return values, lambda found, _: sparse(found)
    return encoder.laid_out(hidden), Steps(checkpoint, head, encoder.width).finish
