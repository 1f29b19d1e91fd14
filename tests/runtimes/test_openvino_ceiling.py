"""The matrix products that a bench compares a model with."""

from __future__ import annotations

import math

import numpy as np
import openvino
import pytest

from omnivec.runtimes._openvino import ceiling
from omnivec.runtimes.openvino import PLUGIN


@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
def test_a_rate_is_measured(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "SECONDS", 0.05)
    monkeypatch.setattr(ceiling, "SIZES", ((32, 64), (64, 64)))
    rate = PLUGIN.ceiling(precision)
    assert math.isfinite(rate)
    assert rate > 1e6


@pytest.mark.parametrize(("int8", "off"), [(False, 1e-3), (True, 0.1)])
def test_the_chain_computes_what_is_counted(int8: bool, off: float) -> None:
    compiled = openvino.Core().compile_model(
        ceiling._chain(16, 64, int8=int8), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    x = ceiling._numbers(16, 64)
    expected = x
    for _ in range(ceiling.LAYERS):
        weights = ceiling._numbers(64, 64) * np.float32((2 / 64) ** 0.5)
        expected = np.maximum(expected @ weights.T, 0)
    found = compiled([x])[0]
    assert np.linalg.norm(found - expected) <= off * np.linalg.norm(expected)
    assert 0.1 < found.std() < 10
