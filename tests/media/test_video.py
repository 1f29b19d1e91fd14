"""Frames of real videos and of made ones, each equal to what a full decode gives at its index."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import films
from omnivec.core.errors import BadRequest, Fault, TooLarge, Unsupported
from omnivec.core.nouns import Clip, Film
from omnivec.media.showing import Ceilings, Shot
from omnivec.media.video import Decoders

KINDS: dict[str, dict[str, Any]] = {
    "mp4": {},
    "fragments": {"options": {"movflags": "frag_keyframe+empty_moov"}},
    "matroska": {"container": "matroska"},
    "mov, 10 bits": {"container": "mov", "codec": "prores_ks", "pixels": "yuv422p10le"},
    "3gp": {"container": "3gp"},
    "transport stream": {"container": "mpegts"},
    "program stream": {"container": "mpeg", "codec": "mpeg2video", "codec_options": {"bf": "2"}},
    "avi, H.264": {"container": "avi"},
    "avi, MPEG-4": {"container": "avi", "codec": "mpeg4", "codec_options": {"bf": "2"}},
    "avi, JPEG": {"container": "avi", "codec": "mjpeg", "pixels": "yuvj420p"},
    "mp4, MPEG-4": {"codec": "mpeg4", "codec_options": {"bf": "2"}},
    "webm, VP9": {
        "container": "webm",
        "codec": "libvpx-vp9",
        "codec_options": {"deadline": "realtime"},
    },
    "webm, VP8 with hidden frames": {
        "container": "webm",
        "codec": "libvpx",
        "codec_options": {"auto-alt-ref": "1", "lag-in-frames": "16"},
    },
    "AV1": {"codec": "libsvtav1", "codec_options": {"preset": "12"}},
    "open groups": {"codec_options": {"x264-params": "open-gop=1:bframes=3:scenecut=0"}},
    "intra refresh": {"codec_options": {"x264-params": "intra-refresh=1"}},
    "HEVC, open groups": {
        "codec": "libx265",
        "codec_options": {"x265-params": "open-gop=1:bframes=4:keyint=12:log-level=none"},
    },
    "HEVC, 10 bits": {
        "codec": "libx265",
        "pixels": "yuv420p10le",
        "codec_options": {"x265-params": "log-level=none"},
    },
    "odd sides": {"size": (63, 47), "pixels": "yuv444p"},
}


TABLE: list[tuple[str, Clip, int, list[int], int]] = [
    ("bottle-detection.mp4", Clip(), 64, [0, 18, 37], 1170),
    ("bottle-detection.mp4", Clip(frames=8), 8, [0, 148, 297, 445, 594, 743], 1040),
    ("bottle-detection.mp4", Clip(start=1, duration=2), 59, [29, 30], 87),
    ("bottle-detection.mp4", Clip(start=5, duration=5, frames=8), 8, [149, 167], 279),
    ("bottle-detection.mp4", Clip(fps=1), 40, [0, 29, 59], 1163),
    ("bottle-detection.mp4", Clip(fps=2.5, duration=10), 25, [0, 11, 23], 286),
    ("bottle-detection.mp4", Clip(indexes=(20, 1, 10, 10)), 3, [1, 10], 20),
    ("bottle-detection.mp4", Clip(indexes=(99999,)), 64, [0, 18, 37], 1170),
    ("car-detection.mp4", Clip(fps=1), 31, [0, 12, 25], 375),
    ("car-detection.mp4", Clip(start=1, duration=2), 25, [12, 13], 36),
    ("small_video.mp4", Clip(), 32, [0, 1, 2], 31),
    ("small_video.mp4", Clip(frames=10), 10, [0, 3, 6, 9, 13], 29),
    ("small_video.mp4", Clip(indexes=(32,)), 32, [0, 1], 31),
    ("small_video.mp4", Clip(indexes=(31, 32)), 1, [31], 31),
    ("bird.mkv", Clip(), 63, [0, 1], 62),
    ("bird.mkv", Clip(frames=8), 8, [0, 7, 15], 55),
    ("book.mkv", Clip(fps=10), 37, [0, 3, 6], 108),
]


def shots(video: bytes | int, *clips: Clip, ceilings: Ceilings | None = None) -> list[list[Shot]]:
    """One child answers all clips."""

    async def all_of_them() -> list[list[Shot]]:
        async with Decoders(ceilings=ceilings) as decoders:
            taken = []
            for clip in clips:
                async with aclosing(decoders.stream(video, clip)) as stream:
                    taken.append([shot async for shot in stream])
            return taken

    return asyncio.run(all_of_them())


def film(video: bytes | int, clip: Clip, ceilings: Ceilings | None = None) -> Film:
    async def take() -> Film:
        async with Decoders(ceilings=ceilings) as decoders:
            return await decoders.decode(video, clip)

    return asyncio.run(take())


def indexes(taken: list[Shot], video: bytes) -> list[int]:
    """Of the frames that came, each of which must be the one of its index."""
    frames = films.digests(video)
    for shot in taken:
        assert films.digest(shot.pixels.rgb) == frames[shot.index]
    return [shot.index for shot in taken]


@pytest.mark.parametrize(("name", "clip", "rows", "begins", "last"), TABLE)
def test_the_services_table(name: str, clip: Clip, rows: int, begins: list[int], last: int) -> None:
    video = films.real(name)
    taken = indexes(shots(video, clip)[0], video)
    assert (len(taken), taken[: len(begins)], taken[-1]) == (rows, begins, last)


@pytest.mark.parametrize("container", ["matroska", "mov", "fragments", "mpegts"])
@pytest.mark.parametrize("name", ["bottle-detection.mp4", "car-detection.mp4"])
def test_the_table_in_other_containers(name: str, container: str) -> None:
    """Most of them do not say how many frames there are."""
    options = KINDS["fragments"]["options"] if container == "fragments" else {}
    container = "mp4" if options else container
    video = films.remux(films.real(name), container, options)
    rows = [one for one in TABLE if one[0] == name]
    for taken, row in zip(shots(video, *(one[1] for one in rows)), rows, strict=True):
        got = indexes(taken, video)
        assert (len(got), got[: len(row[3])], got[-1]) == row[2:]


@pytest.mark.parametrize("name", films.REAL)
def test_few_frames_are_those_of_a_full_decode(name: str) -> None:
    video = films.real(name)
    count = len(films.digests(video))
    rng = np.random.default_rng(0)
    lists = [tuple(rng.integers(0, count, many).tolist()) for many in (1, 1, 2, 5, 30)]
    clips = [Clip(indexes=one) for one in lists]
    taken = [indexes(one, video) for one in shots(video, *clips, Clip(frames=0))]
    assert taken == [*(sorted(set(one)) for one in lists), list(range(count))]


@pytest.mark.parametrize("kind", KINDS)
def test_every_container_and_codec(kind: str) -> None:
    video = films.make(**KINDS[kind])
    lists = [(20,), (13, 14, 25, 39), (11, 30), (0,), (39,)]
    clips = [Clip(frames=0), Clip(start=0.8, duration=0.4), *(Clip(indexes=one) for one in lists)]
    taken = [indexes(one, video) for one in shots(video, *clips)]
    assert taken == [list(range(40)), list(range(20, 30)), *map(list, lists)]


def test_frames_are_counted_however_long_each_is_shown() -> None:
    video = films.uneven(films.make())
    lists = [(20,), (13, 14, 25, 39)]
    taken = shots(video, Clip(frames=0), *(Clip(indexes=one) for one in lists))
    assert [indexes(one, video) for one in taken] == [list(range(40)), *map(list, lists)]


def test_what_is_no_regular_file_is_no_video(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, flags in ((tmp_path, os.O_RDONLY), (tmp_path / "pipe", os.O_RDWR)):
        descriptor = os.open(path, flags)
        try:
            with pytest.raises(BadRequest):
                film(descriptor, Clip())
        finally:
            os.close(descriptor)


def test_without_the_extra_the_answer_is_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(Unsupported, match=r"omnivec\[video\]"):
        film(b"", Clip())


def test_times_are_places_at_the_videos_rate() -> None:
    assert film(films.make(), Clip(indexes=(0, 10, 35))).times == pytest.approx((0, 0.4, 1.4))


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), lambda rgb: rgb),
        ((0, 1, -1, 0), lambda rgb: np.rot90(rgb, -1)),
        ((-1, 0, 0, -1), lambda rgb: np.rot90(rgb, 2)),
        ((0, -1, 1, 0), lambda rgb: np.rot90(rgb, 1)),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda rgb: rgb.swapaxes(0, 1)),
    ],
)
def test_a_video_is_shown_upright(matrix: tuple[int, int, int, int], turn: Any) -> None:
    video = films.make(size=(64, 48))
    frame = film(films.with_matrix(video, matrix), Clip(indexes=(7,))).frames[0]
    assert np.array_equal(frame.rgb, turn(films.decode_all(video)[7]))


def test_a_file_is_read_from_its_descriptor_which_stays_open(tmp_path: Path) -> None:
    video = films.make()
    (tmp_path / "video").write_bytes(video)
    descriptor = os.open(tmp_path / "video", os.O_RDONLY)
    try:
        taken = shots(descriptor, Clip(indexes=(3,)), Clip(indexes=(4,)))
        assert [indexes(one, video) for one in taken] == [[3], [4]]
        assert os.lseek(descriptor, 0, os.SEEK_END) == len(video)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("clip", "ceilings", "fault"),
    [
        (Clip(start=2), Ceilings(), BadRequest),
        (Clip(start=-1), Ceilings(), BadRequest),
        (Clip(frames=-1), Ceilings(), BadRequest),
        (Clip(frames=0), Ceilings(frames=39), BadRequest),
        (Clip(), Ceilings(side=63), TooLarge),
        (Clip(), Ceilings(pixels=64 * 48 - 1), TooLarge),
        (Clip(), Ceilings(packets=39), TooLarge),
        (Clip(), Ceilings(total=64 * 48 * 3 * 39), TooLarge),
    ],
)
def test_ceilings_and_clips_beyond_the_video(
    clip: Clip, ceilings: Ceilings, fault: type[Fault]
) -> None:
    video = films.make()

    async def ask() -> int:
        async with Decoders(most=1, ceilings=ceilings) as decoders:
            for _ in range(2):  # the second finds the child well
                with pytest.raises(fault):
                    await decoders.decode(video, clip)
            return len(decoders._idle)

    assert asyncio.run(ask()) == (0 if clip.start < 0 or clip.frames < 0 else 1)
