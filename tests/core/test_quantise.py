from __future__ import annotations

import numpy as np
import pytest

from omnivec.core.quantise import DTYPES, quantise

ROWS = np.array([[0.5, -1.0, 0.25, 0.0], [0.0, 0.0, 0.0, 0.0], [3.0, 3.0, 3.0, 3.0]], np.float32)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float32", ROWS.tolist()),
        ("float16", ROWS.tolist()),
        ("int8", [[64, -127, 32, 0], [0, 0, 0, 0], [127, 127, 127, 127]]),
        ("uint8", [[255, 0, 212, 170], [128] * 4, [128] * 4]),
        ("binary", [[0b1010_0000], [0], [0b1111_0000]]),
        ("ubinary", [[0b1010_0000], [0], [0b1111_0000]]),
    ],
)
def test_the_formulas(dtype: str, expected: list[list[float]]) -> None:
    assert quantise(ROWS, dtype).tolist() == expected  # type: ignore[arg-type]
    one_by_one = [quantise(row, dtype).tolist() for row in ROWS]  # type: ignore[arg-type]
    assert one_by_one == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_of_an_odd_length_fill_the_last_byte(dtype: str) -> None:
    rows = np.ones((2, 13), np.float32)
    found = quantise(rows, dtype)  # type: ignore[arg-type]
    assert found.shape == ((2, 2) if "binary" in dtype else (2, 13))
