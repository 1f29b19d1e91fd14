"""What this processor multiplies at best, in the library that runs the graphs.

A model cannot be faster than its matrix products. So they are measured alone: chains of dense
layers of the sizes that encoders have, one chain on each core as in a session, the best of
several sizes. What a model reaches of that is what its graph and its batches are worth.
"""

from __future__ import annotations

import time
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
from openvino import Core, Model, Type
from openvino import opset15 as ops

from omnivec.runtimes._openvino.int8 import matrix

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZES = ((256, 384), (512, 768), (512, 1024), (1024, 1024))
"""(rows, width): tokens of a batch and hidden sizes."""
LAYERS = 8
SECONDS = 0.25  # for each size


def ceiling(wishes: Mapping[str, Any], streams: int, *, int8: bool) -> float:
    """FLOP/s of all cores together, for graphs that are compiled with `wishes`; with `int8`
    the chains are rounded as a model's matrices are, and so is each layer's input."""
    core = Core()
    return max(
        _rate(
            core.compile_model(_chain(rows, width, int8=int8), "CPU", wishes), streams, rows, width
        )
        for rows, width in SIZES
    )


def _rate(compiled: Any, streams: int, rows: int, width: int) -> float:
    requests = [compiled.create_infer_request() for _ in range(streams)]
    x = _numbers(rows, width)
    for request in requests:
        request.infer([x])  # packs the weights
    done = [0] * streams

    def work(number: int) -> None:
        while time.perf_counter() < end:
            requests[number].infer([x], share_inputs=True)
            done[number] += 1

    threads = [Thread(target=work, args=(number,)) for number in range(streams)]
    began = time.perf_counter()
    end = began + SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) * LAYERS * 2 * rows * width**2 / (time.perf_counter() - began)


def _chain(rows: int, width: int, *, int8: bool = False) -> Model:
    """relu(x W) eight times; W keeps the size of x, so that no number grows or vanishes."""
    y = x = ops.parameter([rows, width], Type.f32)
    for _ in range(LAYERS):
        weights = _numbers(width, width) * np.float32((2 / width) ** 0.5)
        y = ops.relu(ops.matmul(y, matrix(weights) if int8 else ops.constant(weights), False, True))
    return Model([ops.result(y)], [x], "ceiling")


def _numbers(rows: int, width: int) -> Any:
    return np.random.default_rng(0).standard_normal((rows, width), dtype=np.float32)
