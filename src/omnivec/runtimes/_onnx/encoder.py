"""BERT and its kin, layer by layer, as ONNX operations.

B is the batch's rows, T its width, N = B * T, H the hidden size. Between the layers hidden states
are [N, H]: ONNX Runtime multiplies two matrices faster than it does a stack of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from omnivec.core.checkpoint import CheckpointError
from omnivec.runtimes._distances import FARTHEST, relative
from omnivec.runtimes._onnx.graph import OURS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.core.nouns import Array
    from omnivec.runtimes._onnx.graph import Graph, Node
    from omnivec.runtimes._onnx.parts import Kind
    from omnivec.runtimes._weights import Weights

INT32, INT64 = 6, 7  # onnx.TensorProto's numbers

_GELU: Mapping[str, str] = {
    **dict.fromkeys(("gelu", "gelu_python"), "none"),
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), "tanh"),
}
_PLAIN = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "mish": "Mish"}


class Encoded(NamedTuple):
    """`hidden` [N, H]; how many words, positions and segments (0: none) there are."""

    hidden: Node
    vocabulary: int
    positions: int
    segments: int


class Encoder:
    """One checkpoint's, in a `graph` whose inputs it makes: int64 [B, T] each. Raises
    CheckpointError, KeyError for a key that config.json lacks, ValueError and TypeError for what
    is no number that it can have."""

    def __init__(
        self, graph: Graph, weights: Weights, config: Mapping[str, Any], kind: Kind
    ) -> None:
        self.graph = graph
        self.weights = weights
        self.width = _count(config, kind.size)
        names = ("input_ids", "attention_mask", "token_type_ids")
        self._ids, mask, self._segments = (graph.input(name, "B", "T") for name in names)
        self._mask = graph.add("Cast", mask, to=INT32)
        shape = graph.add("Shape", self._ids)
        self._shape = graph.add("Concat", shape, graph.whole(self.width), axis=0)
        self._config = config
        self._kind = kind
        self._heads = _count(config, kind.heads)
        if self.width % self._heads:
            raise ValueError(repr(kind.heads))
        self._epsilon = kind.epsilon or _epsilon(config)

    def encode(self) -> Encoded:
        encoded = self._embed()
        hidden = encoded.hidden
        bias = self._relative() if self._kind.relative else ""
        for index in range(_count(self._config, self._kind.layers)):
            hidden = self._layer(hidden, self._kind.layer.format(index), bias)
        return encoded._replace(hidden=hidden)

    def laid_out(self, hidden: Node) -> Node:
        """[N, H] to [B, T, H]."""
        return self.graph.add("Reshape", hidden, self._shape)

    def linear(
        self,
        x: Node,
        key: str,
        out: int | None,
        inner: int,
        *,
        of: Weights | None = None,
        bias: bool = True,
    ) -> Node:
        """x [.., inner] to x W^T + b [.., out]; `of` other weights than the encoder's."""
        weights = of or self.weights
        matrix = weights.take(f"{key}.weight", out, inner)
        given = [x, self.graph.tensor(matrix)]
        if bias:
            given.append(self.graph.tensor(weights.take(f"{key}.bias", len(matrix))))
        return self.graph.add("Gemm", *given, transB=1)

    def norm(self, x: Node, key: str, *, of: Weights | None = None) -> Node:
        """Over the last axis, with `key`.weight and `key`.bias (`gamma`, `beta` in old files)."""
        scale, shift = map(self.graph.tensor, (of or self.weights).norm(key, self.width))
        return self.graph.add("LayerNormalization", x, scale, shift, epsilon=self._epsilon)

    def activate(self, x: Node, name: str) -> Node:
        """By transformers' name (`hidden_act`). Raises CheckpointError for an unknown one."""
        if name in _GELU:
            return self.graph.add("Gelu", x, approximate=_GELU[name])
        if name in _PLAIN:
            return self.graph.add(_PLAIN[name], x)
        if name in ("silu", "swish"):
            return self.graph.add("Mul", x, self.graph.add("Sigmoid", x))
        raise CheckpointError(
            f"the activation {name!r} of config.json is not one of the onnx runtime's; "
            "use the torch runtime"
        )

    def _embed(self) -> Encoded:
        add = self.graph.add
        words = self._table("word_embeddings")
        hidden = add("Gather", self.graph.tensor(words), self._ids)
        placed, positions = self._positions()
        hidden, segments = add("Add", hidden, placed), 0
        if "embeddings.token_type_embeddings.weight" in self.weights:
            table = self._table("token_type_embeddings")
            hidden = add("Add", hidden, add("Gather", self.graph.tensor(table), self._segments))
            segments = len(table)
        flat = add("Reshape", hidden, self.graph.whole(-1, self.width))
        normed = self.norm(flat, "embeddings.LayerNorm")
        return Encoded(normed, len(words), positions, segments)

    def _table(self, name: str) -> Array:
        return self.weights.take(f"embeddings.{name}.weight", None, self.width)

    def _positions(self) -> tuple[Node, int]:
        """[T, H] or [B, T, H], and the longest row. RoBERTa and its kin count from behind the
        padding's own position, and only what is no padding (fairseq's way)."""
        add, table = self.graph.add, self._table("position_embeddings")
        padding = self._kind.padding(self._config)
        if padding is None:
            places, count = self._columns(len(table)), len(table)
        else:
            other = add("Not", add("Equal", self._ids, self.graph.constant(np.array(padding))))
            real = add("Cast", other, to=INT64)
            count_up = add("CumSum", real, self.graph.constant(np.array(1)))
            places = add("Add", add("Mul", count_up, real), self.graph.whole(padding))
            count = len(table) - padding - 1
        return add("Gather", self.graph.tensor(table), places), count

    def _columns(self, end: int) -> Node:
        """0, 1, 2 …: int64 [T]. Padding may reach past the last of the `end` positions."""
        ends = (self.graph.constant(np.array(each)) for each in (0, end - 1))
        return self.graph.add("Clip", _counted(self.graph, self._ids), *ends)

    def _layer(self, x: Node, key: str, bias: Node) -> Node:
        kind, add = self._kind, self.graph.add
        x = add("Add", x, self._attend(x, key, bias))
        x = self.norm(x, f"{key}.{kind.mixed_norm}")
        inner = self._config[kind.inner]
        y = self.linear(x, f"{key}.{kind.up}", inner, self.width)
        y = self.activate(y, self._config.get(kind.activation, "gelu"))
        y = self.linear(y, f"{key}.{kind.down}", self.width, inner)
        return self.norm(add("Add", x, y), f"{key}.{kind.norm}")

    def _attend(self, x: Node, key: str, bias: Node) -> Node:
        add, size = self.graph.add, self.width
        q, k, v = (
            self.laid_out(self.linear(x, f"{key}.{name}", size, size)) for name in self._kind.asked
        )
        mixed = add(
            "MultiHeadAttention", q, k, v, "", self._mask, bias, domain=OURS, num_heads=self._heads
        )
        flat = add("Reshape", mixed, self.graph.whole(-1, size))
        return self.linear(flat, f"{key}.{self._kind.mixed}", size, size)

    def _relative(self) -> Node:
        """MPNet's bias [1, heads, T, T] for all layers. It depends on the distance alone, and is
        flat from FARTHEST on, so it is laid out by distance and gathered."""
        graph, add = self.graph, self.graph.add
        places = _counted(graph, self._ids)
        down, across = (add("Unsqueeze", places, graph.whole(axis)) for axis in (1, 0))
        ends = (graph.constant(np.array(end)) for end in (-FARTHEST, FARTHEST))
        near = add("Clip", add("Sub", down, across), *ends)
        rows_of = add("Add", near, graph.whole(FARTHEST))
        by_distance = np.ascontiguousarray(relative(self.weights, self._heads))
        bias = add("Gather", graph.constant(by_distance), rows_of, axis=1)
        return add("Unsqueeze", bias, graph.whole(0))


def _count(config: Mapping[str, Any], key: str) -> int:
    """Raises KeyError and ValueError."""
    number = config[key]
    if not isinstance(number, int) or number < 1:
        raise ValueError(repr(key))
    return number


def _epsilon(config: Mapping[str, Any]) -> float:
    """Raises ValueError."""
    number = config.get("layer_norm_eps", 1e-12)
    if not isinstance(number, float | int) or number < 0:
        raise ValueError("'layer_norm_eps'")
    return float(number)


def _counted(graph: Graph, ids: Node) -> Node:
    """0, 1, 2 … up to the width of [B, T]: int64 [T]."""
    zero, one = (graph.constant(np.array(number)) for number in (0, 1))
    width = graph.add("Gather", graph.add("Shape", ids), one)
    return graph.add("Range", zero, width, one)
