"""A graph of ONNX operations that is being written, and the tensors that it reads.

Large tensors stay where they are: the graph names them, and a session is given their memory.
So a file of weights is not copied into a message, which could hold 2 GB at most.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omnivec.core.nouns import Array

Node: TypeAlias = str
"""A value of the graph, by its name."""

OPSET = 20  # the first with Gelu
OURS = "com.microsoft"  # the operations that ONNX Runtime has beside the standard's
VERSION = 9  # of the file format; opset 20 came with it


class Graph:
    """Axes of a size that the batch chooses have a name in place of a number."""

    def __init__(self) -> None:
        self.tensors: dict[str, Array] = {}
        """What the graph reads and does not hold, float32, by name."""
        self._inputs: list[Any] = []
        self._nodes: list[Any] = []
        self._held: list[Any] = []
        self._numbers = itertools.count()

    def input(self, name: str, *axes: str) -> Node:
        """int64, of these axes."""
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.INT64, list(axes)))
        return name

    def add(self, kind: str, *inputs: Node, domain: str = "", **attributes: Any) -> Node:
        """One operation's first result. An input "" is one that is left out."""
        name = self._name(kind)
        made = helper.make_node(kind, list(inputs), [name], domain=domain, **attributes)
        self._nodes.append(made)
        return name

    def constant(self, array: Array) -> Node:
        name = self._name("constant")
        self._held.append(numpy_helper.from_array(array, name))
        return name

    def whole(self, *numbers: int) -> Node:
        """int64 [len(numbers)]."""
        return self.constant(np.array(numbers, np.int64))

    def tensor(self, array: Array) -> Node:
        """float32, of any size; its memory is the caller's to keep."""
        name = self._name("tensor")
        self.tensors[name] = np.ascontiguousarray(array, np.float32)
        held = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape)
        held.data_location = TensorProto.EXTERNAL
        for key, value in {"location": name, "length": str(4 * array.size)}.items():
            held.external_data.add(key=key, value=value)
        self._held.append(held)
        return name

    def serialised(self, outputs: Mapping[str, Node]) -> bytes:
        """The whole graph, its results float32 and under their names."""
        named = [helper.make_node("Identity", [node], [name]) for name, node in outputs.items()]
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        nodes = [*self._nodes, *named]
        made = helper.make_graph(nodes, "omnivec", self._inputs, results, self._held)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(OURS, 1)]
        model = helper.make_model(made, opset_imports=opsets, ir_version=VERSION)
        return bytes(model.SerializeToString())

    def _name(self, kind: str) -> str:
        return f"{kind}_{next(self._numbers)}"
