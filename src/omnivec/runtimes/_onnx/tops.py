"""What lies above an encoder and is the architecture's own: a classifier, a language head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from omnivec.runtimes._languages import LAYOUTS, decoder
from omnivec.runtimes._onnx.parts import ANCHOR

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from omnivec.core.nouns import Array
    from omnivec.core.steps import Vocabulary
    from omnivec.runtimes._onnx.encoder import Encoder
    from omnivec.runtimes._onnx.graph import Graph, Node

TOGETHER = 2048  # words whose logits are there at once: of 512 tokens all would be 62 MB
BOOL = 9  # onnx.TensorProto's number


def classify(encoder: Encoder, hidden: Node, names: tuple[str, str, str]) -> Node:
    """[N, H] to [B, labels]; `names` are a Kind's `head`. BERT's pooler lies in its encoder."""
    graph, size, outer = encoder.graph, encoder.width, encoder.weights.outer()
    dense, function, last = names
    first = graph.add("Gather", encoder.laid_out(hidden), graph.constant(np.array(0)), axis=1)
    of = encoder.weights if f"{dense}.weight" in encoder.weights else outer
    pooled = graph.add(function, encoder.linear(first, dense, size, size, of=of))
    return encoder.linear(pooled, last, None, size, of=outer)


def spell(encoder: Encoder, hidden: Node, config: Mapping[str, Any], step: Vocabulary) -> Node:
    """[N, H] to [B, V]: the numbers of a head of kind "words", those that are 0 among them."""
    graph, outer, size = encoder.graph, encoder.weights.outer(), encoder.width
    layout = LAYOUTS[config["model_type"]](config)
    x = encoder.linear(hidden, layout.dense, size, size, of=outer)
    x = encoder.norm(encoder.activate(x, layout.activation), layout.norm, of=outer)
    kept = graph.add("Cast", graph.input("pool_mask", "B", "T"), to=BOOL)
    kept = graph.add("Unsqueeze", kept, graph.whole(2))
    matrix, bias = decoder(layout, encoder.weights, ANCHOR, size)
    parts = []
    for at in range(0, len(matrix), TOGETHER):
        words = slice(at, at + TOGETHER)
        parts.append(_reduced(graph, x, kept, matrix[words], bias[words], step))
    values = graph.add("Concat", *parts, axis=1)
    return _applied(graph, values, step) if step.mode == "max" else values


def _reduced(
    graph: Graph, x: Node, kept: Node, matrix: Array, bias: Array, step: Vocabulary
) -> Node:
    """[N, H] to [B, words]. The functions grow with their argument, so that they are done
    after the greatest was found; a sum is over what they give."""
    logits = graph.add("Gemm", x, graph.tensor(matrix), graph.tensor(bias), transB=1)
    if step.mode == "sum":
        logits = _applied(graph, logits, step)
    lengths = graph.add("Shape", kept)
    shape = graph.add(
        "Concat",
        graph.add("Slice", lengths, graph.whole(0), graph.whole(2)),
        graph.whole(len(matrix)),
        axis=0,
    )
    rows = graph.add("Reshape", logits, shape)
    there = graph.add("Where", kept, rows, graph.constant(np.zeros(1, np.float32)))
    kind = "ReduceMax" if step.mode == "max" else "ReduceSum"
    return graph.add(kind, there, graph.whole(1), keepdims=0)


def _applied(graph: Graph, x: Node, step: Vocabulary) -> Node:
    x = graph.add("Relu", x)
    one = graph.constant(np.ones(1, np.float32))
    for _ in range(step.function.count("log1p")):
        x = graph.add("Log", graph.add("Add", x, one))
    return x
