from __future__ import annotations

import asyncio
import threading

import pytest

from omnivec.core.errors import BadRequest
from omnivec.server.aside import Aside


def test_work_is_done_on_one_other_thread():
    aside = Aside()

    async def main() -> list[int]:
        return await asyncio.gather(*[aside.run(threading.get_ident) for _ in range(4)])

    found = set(asyncio.run(main()))
    assert len(found) == 1
    assert threading.get_ident() not in found


def test_a_fault_comes_back():
    def fail() -> None:
        raise BadRequest("no", param="x")

    with pytest.raises(BadRequest) as caught:
        asyncio.run(Aside().run(fail))
    assert caught.value.param == "x"
