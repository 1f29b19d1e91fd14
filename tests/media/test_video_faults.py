"""Hostile videos and processes that crash, hang or are killed: an answer for each, and all well
after it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest

import films
from children import children
from omnivec.core.errors import BadRequest, Fault, Loading, ModelFailed, TooLarge
from omnivec.core.nouns import Clip, Film
from omnivec.media import child
from omnivec.media.showing import Ceilings
from omnivec.media.video import Decoders

CANARY = films.make(frames=10)
VIDEO = films.make(frames=60, size=(320, 240))  # its frames do not all fit a socket's buffer
FTYP = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2"
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
SDP = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n"
CONCAT = b"ffconcat version 1.0\nfile /etc/passwd\n"


def changed(video: bytes, at: int, new: bytes) -> bytes:
    return video[:at] + new + video[at + len(new) :]


def counting(video: bytes, count: int) -> bytes:
    """An MP4 whose tables say that it has so many samples."""
    times, sizes = video.index(b"stts"), video.index(b"stsz")
    number = count.to_bytes(4, "big")
    return changed(changed(video, times + 12, number), sizes + 12, number)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "one byte": lambda: b"\0",
    "text": lambda: b"hello",
    "HTML": lambda: b"<!doctype html><html><body>404</body></html>",
    "JPEG": lambda: b"\xff\xd8\xff\xe0\0\x10JFIF\0" + b"\0" * 200,
    "GIF": lambda: b"GIF89a\1\0\1\0\0\0\0;",
    "a GIF of FFmpeg's": lambda: films.make("gif", "gif", pixels="rgb8"),
    "AVIF brand": lambda: b"\0\0\0\x18ftypavif\0\0\0\0avifmif1" + CANARY[24:],
    "playlist": lambda: PLAYLIST,
    "DASH": lambda: b'<?xml version="1.0"?><MPD><BaseURL>file:///etc/</BaseURL></MPD>',
    "SDP": lambda: SDP,
    "concat": lambda: CONCAT,
    "protocol": lambda: b"subfile,,start,0,end,99,,:/etc/passwd",
    "playlist in MP4's clothes": lambda: FTYP + PLAYLIST,
    "SDP in MP4's clothes": lambda: FTYP + SDP,
    "concat in Matroska's clothes": lambda: b"\x1a\x45\xdf\xa3" + CONCAT,
    "SDP in AVI's clothes": lambda: b"RIFF\0\0\0\0AVI LIST" + SDP,
    "a transport stream of nothing": lambda: (b"G" + b"\xff" * 187) * 50,
    "a program stream of nothing": lambda: b"\0\0\1\xba" + b"\xff" * 5000,
    "noise after a head": lambda: FTYP + bytes(range(256)) * 40,
    "sound only": films.sound,
    "no frames": lambda: counting(CANARY, 0),
    "no moov": lambda: CANARY.replace(b"moov", b"xxxx"),
    "no packets": lambda: CANARY.replace(b"mdat", b"free").replace(b"stco", b"free"),
    "a codec not on the list": lambda: films.make("avi", "ffv1"),
    "no codec at all": lambda: CANARY.replace(b"avc1", b"zzzz"),
    "a billion samples": lambda: counting(CANARY, 10**9),
    "four billion samples": lambda: counting(CANARY, 2**32 - 1),
    "ten hours": lambda: films.declaring(CANARY, 36_000),
    "boxes without end": lambda: b"\0\0\0\x08moov" * 5000,
    "boxes in boxes": lambda: b"".join(
        (8 * n).to_bytes(4, "big") + b"moov" for n in range(9000, 0, -1)
    ),
    "damage in the middle": lambda: changed(VIDEO, len(VIDEO) // 2, b"\xaa" * 2000),
    "wide frames": lambda: films.make(frames=2, size=(8448, 64)),
    **{
        f"MP4 cut at {eighth}/8": lambda eighth=eighth: VIDEO[: len(VIDEO) * eighth // 8]
        for eighth in range(8)
    },
    **{
        f"fragments cut at {eighth}/8": lambda eighth=eighth: films.remux(
            VIDEO, "mp4", {"movflags": "frag_keyframe+empty_moov"}
        )[: len(VIDEO) * eighth // 8]
        for eighth in range(1, 8)
    },
    **{
        f"Matroska cut at {eighth}/8": lambda eighth=eighth: films.remux(VIDEO, "matroska")[
            : len(VIDEO) * eighth // 8
        ]
        for eighth in range(8)
    },
}
READ_ALL_THE_SAME = {
    "ten hours",
    "a billion samples",
    "four billion samples",
    "damage in the middle",
    *(f"fragments cut at {eighth}/8" for eighth in range(1, 8)),
    *(f"Matroska cut at {eighth}/8" for eighth in range(1, 8)),
}


def offspring() -> set[int]:
    """Processes that decode videos for this one, zombies too."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(status[1]) == os.getpid():
            found.add(int(folder.name))
    return found


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = offspring()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    yield
    gc.collect()
    assert offspring() <= before
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors
    assert list(tmp_path.iterdir()) == []


def run(
    scenario: Callable[[Decoders], Coroutine[Any, Any, None]], ceilings: Ceilings | None = None
) -> None:
    """The canary sings before and after it."""

    async def sing(decoders: Decoders) -> None:
        film = await decoders.decode(CANARY, Clip(frames=3))
        assert [films.digest(one.rgb) for one in film.frames] == [
            films.digests(CANARY)[index] for index in (0, 3, 6)
        ]

    async def all_of_it() -> None:
        async with Decoders(most=1, ceilings=ceilings) as decoders:
            await sing(decoders)
            await scenario(decoders)
            await sing(decoders)
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(all_of_it())


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_video_gets_a_clear_answer(name: str) -> None:
    video = HOSTILE[name]()

    async def scenario(decoders: Decoders) -> None:
        (well,) = decoders._idle
        if name in READ_ALL_THE_SAME:
            try:
                film = await decoders.decode(video, Clip(frames=8))
            except BadRequest:
                film = await decoders.decode(CANARY, Clip(frames=1))
            assert film.frames
        else:
            with pytest.raises((BadRequest, TooLarge)):
                await decoders.decode(video, Clip())
        assert decoders._idle == [well]  # none of this costs a process

    run(scenario, Ceilings(seconds=10))


async def at_work(decoders: Decoders, act: Callable[[int], None]) -> Film:
    """Takes one frame, acts on the process that decodes, takes the rest."""
    async with aclosing(decoders.stream(VIDEO, Clip(frames=0))) as shots:
        first = await anext(shots)
        act(decoders._busy[0].pid)
        rest = [shot async for shot in shots]
    return Film((first.pixels, *(shot.pixels for shot in rest)), ())


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (signal.SIGSEGV, ModelFailed),
        (signal.SIGKILL, ModelFailed),
        (signal.SIGABRT, ModelFailed),
        (signal.SIGXCPU, BadRequest),
        (signal.SIGSTOP, BadRequest),
    ],
)
def test_a_process_that_ends_or_hangs_costs_one_video(
    number: signal.Signals, fault: type[Fault]
) -> None:
    async def scenario(decoders: Decoders) -> None:
        pid = decoders._idle[0].pid
        with pytest.raises(fault):
            await at_work(decoders, lambda busy: os.kill(busy, number))
        assert decoders._idle == decoders._busy == []
        assert await decoders.decode(CANARY, Clip())
        assert decoders._idle[0].pid != pid

    run(scenario, Ceilings(seconds=6))


def test_a_process_that_is_killed_while_it_waits_is_replaced() -> None:
    async def scenario(decoders: Decoders) -> None:
        os.kill(decoders._idle[0].pid, signal.SIGKILL)
        decoders._idle[0].wait()

    run(scenario)


def test_too_much_memory_costs_one_video_and_its_process() -> None:
    large = films.make(frames=3, size=(4096, 4096))

    async def scenario(decoders: Decoders) -> None:
        pid = decoders._idle[0].pid
        with pytest.raises((TooLarge, BadRequest)):
            await decoders.decode(large, Clip())
        assert (await decoders.decode(CANARY, Clip())).frames
        assert pid

    run(scenario, Ceilings(memory=420 << 20))


def test_a_video_that_is_given_up_costs_its_process() -> None:
    async def scenario(decoders: Decoders) -> None:
        pid = decoders._idle[0].pid
        async with aclosing(decoders.stream(VIDEO, Clip(frames=0))) as shots:
            assert (await anext(shots)).index == 0
        assert not decoders._idle
        task = asyncio.ensure_future(decoders.decode(VIDEO, Clip(frames=0)))
        while not decoders._busy:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
        assert decoders._busy[0].pid != pid
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert decoders._idle == decoders._busy == []

    run(scenario)


def test_a_caller_that_leaves_while_its_video_is_copied_leaves_nothing() -> None:
    """As the fixture sees."""
    large = VIDEO + bytes(50_000_000)

    async def scenario(decoders: Decoders) -> None:
        for _ in range(5):
            task = asyncio.ensure_future(decoders.decode(large, Clip(frames=1)))
            await asyncio.sleep(0.002)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(scenario)


def test_videos_share_as_many_processes_as_there_may_be() -> None:
    async def all_of_it() -> int:
        async with Decoders(most=2) as decoders:
            work = [decoders.decode(VIDEO, Clip(frames=0)) for _ in range(6)]
            assert all(len(film.frames) == 60 for film in await asyncio.gather(*work))
            return len(decoders._idle)

    assert asyncio.run(all_of_it()) == 2


def test_videos_whose_callers_are_slow_are_in_nobodys_way() -> None:
    async def scenario() -> None:
        async with Decoders(most=4) as decoders, AsyncExitStack() as slow:
            held = [decoders.stream(VIDEO, Clip(frames=0)) for _ in range(3)]
            for shots in held:
                await slow.enter_async_context(aclosing(shots))
                assert (await anext(shots)).index == 0
            film = await asyncio.wait_for(decoders.decode(CANARY, Clip(frames=0)), 60)
            assert len(film.frames) == 10
            for shots in held:
                assert [shot.index async for shot in shots] == list(range(1, 60))
            assert len(decoders._idle) == 2  # what was more is not kept
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(scenario())


def test_there_are_no_more_processes_than_there_may_be() -> None:
    async def scenario() -> None:
        async with Decoders(most=2) as decoders, AsyncExitStack() as slow:
            for shots in [decoders.stream(VIDEO, Clip(frames=0)) for _ in range(2)]:
                await slow.enter_async_context(aclosing(shots))
                assert (await anext(shots)).index == 0
            queued = asyncio.ensure_future(decoders.decode(CANARY, Clip(frames=0)))
            await asyncio.sleep(0.3)  # long enough to begin
            assert (queued.done(), len(decoders._busy)) == (False, 2)
            await slow.aclose()
            assert len((await queued).frames) == 10
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(scenario())


def test_closing_ends_what_is_at_work() -> None:
    async def scenario() -> None:
        decoders = Decoders()
        shots = decoders.stream(VIDEO, Clip(frames=0))
        await anext(shots)
        decoders.close()
        with pytest.raises(ModelFailed):
            async for _ in shots:
                pass
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(scenario())


def test_closing_is_noticed_by_whoever_waits() -> None:
    async def scenario() -> None:
        decoders = Decoders(most=1)
        shots = decoders.stream(VIDEO, Clip(frames=0))
        await anext(shots)
        queued = asyncio.ensure_future(decoders.decode(CANARY, Clip()))
        os.kill(decoders._busy[0].pid, signal.SIGSTOP)

        async def take() -> None:
            async for _ in shots:
                pass

        waiting = asyncio.ensure_future(take())
        await asyncio.sleep(0.3)  # long enough to take what was under way
        assert not waiting.done()
        decoders.close()
        with pytest.raises(ModelFailed):
            await asyncio.wait_for(waiting, 60)
        with pytest.raises(Loading):
            await asyncio.wait_for(queued, 60)
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(scenario())


def test_memory_comes_back() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    video = films.make(frames=200, size=(640, 480))  # 184 MB of pixels

    async def scenario(decoders: Decoders) -> None:
        await decoders.decode(video, Clip(frames=0))
        before = resident()
        for _ in range(4):
            assert len((await decoders.decode(video, Clip(frames=0))).frames) == 200
        gc.collect()
        assert resident() - before < 100 << 20

    run(scenario)


def test_a_process_that_waits_keeps_nothing_of_its_videos() -> None:
    quick = {"preset": "ultrafast", "g": "2"}
    video = films.make(frames=8, size=(3840, 2160), codec_options=quick)

    def resident(pid: int) -> int:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") >> 20

    def lowest(pid: int, enough: int) -> int:
        end = time.monotonic() + 10
        while (found := resident(pid)) > enough and time.monotonic() < end:
            time.sleep(0.01)
        return found

    async def scenario(decoders: Decoders) -> None:
        await decoders.decode(VIDEO, Clip(frames=2))
        (pid,) = children()
        most = resident(pid) + 60
        for _ in range(6):
            await decoders.decode(video, Clip(frames=4))
        assert await asyncio.to_thread(lowest, pid, most) <= most
        assert children() == [pid]

    run(scenario)


def test_no_process_outlives_the_server() -> None:
    """It is killed, and its child hangs at that moment."""
    program = f"""
import asyncio, os, signal
from omnivec.core.nouns import Clip
from omnivec.media.video import Decoders
async def main():
    decoders = Decoders()
    shots = decoders.stream(bytes.fromhex({VIDEO.hex()!r}), Clip(frames=0))
    await anext(shots)
    os.kill(decoders._busy[0].pid, signal.SIGSTOP)
    print(decoders._busy[0].pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    source = str(Path(child.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    orphan = Path("/proc") / done.stdout.strip()
    for _ in range(600):
        if not orphan.exists() or ") Z " in (orphan / "stat").read_text():
            return
        time.sleep(0.05)
    pytest.fail("the child is still there")


def test_the_process_sees_nothing_of_the_environment_and_may_write_no_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMNIVEC_API_KEY", "secret")

    async def scenario(decoders: Decoders) -> None:
        folder = Path("/proc") / str(decoders._idle[0].pid)
        assert b"secret" not in (folder / "environ").read_bytes()
        limits = (folder / "limits").read_text()
        assert "Max file size             0 " in limits
        assert "Max core file size        0 " in limits
        assert (folder / "oom_score_adj").read_text() == "1000\n"  # ends before the server does

    run(scenario)
