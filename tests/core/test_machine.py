from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from omnivec.core.machine import cores, has_cuda, quota, share


@pytest.mark.parametrize(
    ("limit", "count"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 1.5),
        ("50000 100000", 0.5),
        ("max 100000\n", math.inf),
        ("", math.inf),
    ],
)
def test_a_quota_in_cores(limit: str, count: float) -> None:
    assert quota(limit) == count


def test_cores_are_no_more_than_there_are() -> None:
    assert 0 < share() <= (os.cpu_count() or 1)
    assert cores() == math.ceil(share())


def test_a_gpu_is_known_by_the_files_of_its_driver(tmp_path: Path) -> None:
    assert not has_cuda(str(tmp_path))
    (tmp_path / "nvidiactl").touch()
    assert has_cuda(str(tmp_path))
