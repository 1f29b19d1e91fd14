"""Files in memory: what is written, and nothing left of those whose callers leave."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from omnivec.media.memory import filled


def count() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def come_down(before: int) -> None:
    for _ in range(200):
        if count() == before:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("a descriptor is left")


def test_it_has_what_was_written_until_the_block_ends() -> None:
    async def scenario() -> None:
        async with filled(lambda file: file.write(b"abc")) as descriptor:
            assert os.pread(descriptor, 9, 0) == b"abc"
        with pytest.raises(OSError, match="descriptor"):
            os.fstat(descriptor)

    asyncio.run(scenario())


def test_a_fault_while_it_is_written_is_raised_and_leaves_nothing() -> None:
    async def scenario() -> None:
        before = count()
        with pytest.raises(ZeroDivisionError):
            async with filled(lambda file: file.write(bytes(1 // 0))):
                raise AssertionError("filled")
        assert count() == before

    asyncio.run(scenario())


def test_a_caller_that_leaves_while_it_is_written_leaves_nothing() -> None:
    begun, go, sizes = threading.Event(), threading.Event(), []

    def write(file: BinaryIO) -> None:
        begun.set()
        assert go.wait(30)
        file.write(b"abc")
        file.flush()
        sizes.append(os.fstat(file.fileno()).st_size)

    async def ask() -> None:
        async with filled(write):
            raise AssertionError("filled")

    async def scenario() -> None:
        await asyncio.to_thread(int)  # a thread has its own descriptors on some systems
        before = count()
        task = asyncio.create_task(ask())
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert count() == before + 1  # not closed under the thread's hands
        go.set()
        await asyncio.get_running_loop().shutdown_default_executor()
        await come_down(before)

    asyncio.run(scenario())
    assert sizes == [3]


def test_what_goes_wrong_when_the_caller_has_left_is_not_told() -> None:
    begun, go, told = threading.Event(), threading.Event(), []

    def write(_file: BinaryIO) -> None:
        begun.set()
        assert go.wait(30)
        raise ZeroDivisionError

    async def ask() -> None:
        async with filled(write):
            raise AssertionError("filled")

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, about: told.append(about))
        before = count()
        task = asyncio.create_task(ask())
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        await asyncio.get_running_loop().shutdown_default_executor()
        await come_down(before)
        gc.collect()

    asyncio.run(scenario())
    assert told == []


def test_a_caller_that_leaves_before_a_thread_begins_leaves_nothing() -> None:
    go = threading.Event()

    async def ask(threads: ThreadPoolExecutor) -> None:
        async with filled(lambda file: file.write(b"abc"), threads):
            raise AssertionError("filled")

    async def scenario() -> None:
        with ThreadPoolExecutor(1) as threads:
            threads.submit(go.wait, 30)
            before = count()
            task = asyncio.create_task(ask(threads))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go.set()
        await come_down(before)

    asyncio.run(scenario())
