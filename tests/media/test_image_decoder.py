"""The processes that decode: what they give, and that nothing of a picture outlives them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from children import children
from omnivec.core.errors import TooLarge
from omnivec.media import image_decoder as module
from omnivec.media.image_decoder import Decoder, Undecodable
from pictures import MASQUERADES, SIZES, photo, png, saved

GOOD = saved(photo(), "PNG")


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    found = Decoder()
    yield found
    found.close()
    assert children() == []


def decode(decoder: Decoder, data: bytes) -> object:
    return decoder.decode(data, lambda _: None).rgb.shape


def test_one_process_decodes_one_picture_after_another(decoder: Decoder) -> None:
    for seed in range(5):
        found = decoder.decode(saved(photo(seed=seed), "PNG"), lambda _: None).rgb
        assert np.array_equal(found, np.asarray(photo(seed=seed)))
        assert not found.flags.writeable
    assert len(children()) == 1


def test_the_pixels_are_asked_for_before_they_are_there(decoder: Decoder) -> None:
    asked: list[int] = []
    decoder.decode(GOOD, asked.append)
    assert asked == [1200]

    def refuse(_: int) -> None:
        raise TooLarge("too much")

    with pytest.raises(TooLarge):
        decoder.decode(GOOD, refuse)
    assert decode(decoder, GOOD) == (30, 40, 3)
    assert len(children()) == 1


def test_a_process_survives_what_is_no_picture(decoder: Decoder) -> None:
    for data in [*MASQUERADES.values(), *(png(*size) for size in SIZES), GOOD[:300]]:
        with pytest.raises(Undecodable):
            decoder.decode(data, lambda _: None)
    assert decode(decoder, GOOD) == (30, 40, 3)
    assert len(children()) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_is_that_pictures_alone(decoder: Decoder, number: int) -> None:
    decode(decoder, GOOD)
    (child,) = children()

    def crash(_: int) -> None:
        os.kill(child, number)

    with pytest.raises(Undecodable):
        decoder.decode(GOOD, crash)
    assert decode(decoder, GOOD) == (30, 40, 3)
    assert children() != [child]


def test_a_hang_ends_at_the_deadline(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    decode(decoder, GOOD)
    monkeypatch.setattr(module, "DEADLINE", 0.3)
    (child,) = children()
    with pytest.raises(Undecodable):
        decoder.decode(GOOD, lambda _: os.kill(child, signal.SIGSTOP))
    assert children() == []
    monkeypatch.undo()
    assert decode(decoder, GOOD) == (30, 40, 3)


def test_a_process_that_lies_about_its_size_is_not_believed(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = module.Child._size
    sizes: list[tuple[int, int]] = []

    def lies(child: module.Child, deadline: float) -> tuple[int, int]:
        sizes.append(honest(child, deadline))
        return (1, 1) if len(sizes) == 1 else sizes[-1]

    monkeypatch.setattr(module.Child, "_size", lies)
    with pytest.raises(Undecodable):
        decoder.decode(GOOD, lambda _: None)


def test_the_largest_picture_fits_into_what_a_process_may_have(decoder: Decoder) -> None:
    from PIL import Image

    picture = Image.new("LA", (10_000, 5_000), (0, 128))
    found = decoder.decode(saved(picture, "PNG", compress_level=1), lambda _: None).rgb
    assert found.shape == (5_000, 10_000, 3)
    assert found[-1, -1].tolist() == [127] * 3


def test_a_process_that_waits_keeps_nothing_of_its_last_picture(decoder: Decoder) -> None:
    from PIL import Image

    def resident() -> int:
        pages = Path("/proc", str(children()[0]), "statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    decode(decoder, GOOD)
    most = resident() + (50 << 20)
    decode(decoder, saved(Image.new("RGB", (7_000, 7_000), (200, 100, 0)), "JPEG"))
    end = time.monotonic() + 10
    while resident() > most and time.monotonic() < end:
        time.sleep(0.01)
    assert resident() <= most


def test_threads_have_processes_of_their_own(decoder: Decoder) -> None:
    together = threading.Barrier(3)
    with ThreadPoolExecutor(3) as threads:
        shapes = list(
            threads.map(
                lambda data: decoder.decode(data, lambda _: together.wait(60) and None).rgb.shape,
                [GOOD] * 3,
            )
        )
        assert len(children()) == 3  # while the threads live: a process goes with its own
    assert shapes == [(30, 40, 3)] * 3


def test_a_process_sees_nothing_of_this_one(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "a secret")
    decode(decoder, GOOD)
    folder = Path("/proc", str(children()[0]))
    assert b"secret" not in (folder / "environ").read_bytes()
    assert (folder / "cwd").readlink() == Path("/")
    opened = [str(one.readlink()) for one in (folder / "fd").iterdir()]
    assert sum(one.startswith("socket:") for one in opened) == 1
    limits = (folder / "limits").read_text()
    assert "Max address space         2147483648" in limits
    assert "Max core file size        0 " in limits


def test_a_process_ends_with_the_server_whatever_ends_it() -> None:
    script = (
        "import os, sys\n"
        "from omnivec.media.image_decoder import Decoder\n"
        "from children import children\n"
        "Decoder().decode(sys.stdin.buffer.read(), lambda _: None)\n"
        "print(*children(), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        input=GOOD,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    child = Path("/proc", run.stdout.decode().strip())
    end = time.monotonic() + 20
    while child.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not child.exists()
