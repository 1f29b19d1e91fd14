"""What a reply of many vectors costs to write: processor time alone, without server or model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from omnivec.core.nouns import Call, Card, Dtype, Encode, Item, Reply, Result, Text, Vectors
from omnivec.core.quantise import quantise
from omnivec.dialects.sie import encode_encode

DOCUMENTS, TOKENS, WIDTH = 64, 300, 128
ABOUT = f"{DOCUMENTS} documents of {TOKENS} tokens, {WIDTH} numbers each"
FORMS: tuple[tuple[str, Dtype], ...] = (
    ("msgpack", "float32"),
    ("msgpack", "float16"),
    ("msgpack", "int8"),
    ("msgpack", "binary"),
    ("json", "float32"),
    ("json", "int8"),
)
SECONDS = 0.5


def measure(repeats: int) -> Iterator[dict[str, Any]]:
    shape = (DOCUMENTS, TOKENS, WIDTH)
    rows = np.random.default_rng(0).standard_normal(shape, np.float32)
    for repeat in range(repeats):
        about = {"suite": "replies", "server": "omnivec", "repeat": repeat}
        for form, dtype in FORMS:
            write = _writer(rows, form, dtype)
            size, spent = _timed(write)
            yield {**about, "workload": f"{form}, {dtype}", "mb": size / 1e6, "cpu_ms": spent}


def _writer(rows: Any, form: str, dtype: Dtype) -> Callable[[], Reply]:
    outputs = tuple(Vectors(multivector=quantise(one, dtype)) for one in rows)
    items = tuple(Item((Text(""),)) for _ in outputs)
    task = Encode(items, "model", dtype=dtype, kinds=("multivector",))
    call = Call("POST", "/v1/encode/model", headers={"accept": f"application/{form}"})
    result = Result(Card("model", token_dims=WIDTH), outputs)
    return lambda: encode_encode(call, task, result)


def _timed(write: Callable[[], Reply]) -> tuple[int, float]:
    """Bytes of the body, and the milliseconds of the middle one of many times."""
    size, spent, until = len(write().body), [], time.monotonic() + SECONDS
    while time.monotonic() < until or not spent:
        began = time.process_time()
        write()
        spent.append(1e3 * (time.process_time() - began))
    return size, sorted(spent)[len(spent) // 2]
