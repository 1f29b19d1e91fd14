"""Arrays in msgpack, read as msgpack-numpy 0.4 reads them: what SIE's clients do."""

from __future__ import annotations

from typing import Any

import numpy as np

KEYS = {b"nd", b"type", b"kind", b"shape", b"data"}


def unpack_array(value: dict[bytes, Any]) -> np.ndarray[Any, np.dtype[Any]]:
    """The array of a decoded map, in the dtype and the shape that it tells."""
    assert value.keys() == KEYS
    assert (value[b"nd"], value[b"kind"]) == (True, b"")
    return np.ndarray(value[b"shape"], np.dtype(value[b"type"]), value[b"data"])
