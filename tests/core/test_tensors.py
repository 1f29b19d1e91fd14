"""Files of safetensors that lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnivec.core.checkpoint import CheckpointError
from omnivec.core.tensors import open_file


@pytest.mark.parametrize("shape", [[0, 1 << 62, 1 << 62], [0, 1 << 70], [1] * 100])
def test_a_shape_that_no_array_has_is_told(tmp_path: Path, shape: list[int]) -> None:
    end = 0 if 0 in shape else 4
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}
    header = json.dumps({"t": entry}).encode()
    header += b" " * (-len(header) % 8)
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(end))
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        open_file("m", file)
