"""Frames by their indexes, in this process: the same however they are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from tempfile import TemporaryFile

import pytest
from av.video.reformatter import VideoReformatter

import films
from omnivec.media import projection, tape
from omnivec.media.messages import Open
from omnivec.media.projection import plan, project, upright
from omnivec.media.tape import Tape

VIDEO = films.make(frames=60)  # a key every twelve
SPARSE = (3, 13, 22, 30, 41, 59)


@contextmanager
def opened(video: bytes, format_: str = "mov", threads: int = 4) -> Iterator[Tape]:
    with TemporaryFile() as file:
        file.write(video)
        file.flush()
        wishes = Open(format_, 8192, 10**8, 10**6, 3 << 30, 60, threads)
        with closing(Tape(file.fileno(), wishes)) as found:
            found.threads = threads  # however many processors there are
            yield found


def shown(one: Tape, indexes: tuple[int, ...]) -> list[tuple[int, str]]:
    reformatter = VideoReformatter()
    return [
        (index, films.digest(upright(frame, reformatter))) for index, frame in project(one, indexes)
    ]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_runs_are_the_same_side_by_side(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[Tape] = []
    copy = Tape.copy

    def noted(self: Tape) -> Tape:
        copies.append(copy(self))
        return copies[-1]

    monkeypatch.setattr(Tape, "copy", noted)
    with opened(VIDEO, threads=threads) as one:
        assert len(plan(one, SPARSE)) == 5
        found = shown(one, SPARSE)
        assert found == [(index, films.digests(VIDEO)[index]) for index in SPARSE]
        assert 1 <= len(copies) <= threads if threads > 1 else copies == []
        copies.clear()
        monkeypatch.setattr(projection, "_HELD", 0)
        assert shown(one, SPARSE) == found
        assert copies == []


def test_a_run_that_goes_astray_is_put_right_by_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(VIDEO) as one:
        one.order[41], one.order[42] = one.order[42], one.order[41]  # as if its times were wrong
        one.order[59] = one.order[58]
        found = shown(one, (3, 13, 41, 42))
        assert [index for index, _ in found] == [3, 13, 41, 42]
        assert found[2:] == [(index, films.digests(VIDEO)[index]) for index in (41, 42)]
    monkeypatch.setattr(tape, "TIMED", frozenset())
    with opened(VIDEO) as one:
        assert one.order == []
        assert shown(one, (3, 59)) == [(index, films.digests(VIDEO)[index]) for index in (3, 59)]


def test_copies_read_beside_one_another() -> None:
    with opened(VIDEO) as one, closing(one.copy()) as other:
        mine, theirs = one.read(12), other.read(24)
        places = [(next(mine)[0], next(theirs)[0]) for _ in range(10)]
        assert places == [(12 + step, 24 + step) for step in range(10)]


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video", "mpeg4"])
def test_counting_tells_where_frames_are(codec: str) -> None:
    video = films.make("mpegts", codec, frames=60, codec_options={"bf": "2"})
    with opened(video, "mpegts") as one:
        assert (one.order, one.count) == ([], None)
        assert projection.count(one) == len(films.digests(video)) == 60
        assert len(plan(one, SPARSE)) > 2
        assert shown(one, SPARSE) == [(index, films.digests(video)[index]) for index in SPARSE]


def test_packets_without_times_of_their_own_are_counted_again() -> None:
    video = films.make("mpeg", "mpeg2video", frames=60, codec_options={"bf": "2"})
    with opened(video, "mpeg") as one:
        assert projection.count(one) == 60
        assert one.order == []
        assert shown(one, SPARSE) == [(index, films.digests(video)[index]) for index in SPARSE]


def test_times_that_tell_nothing_are_not_learnt() -> None:
    video = films.make("mpegts", "libx264", frames=20)
    with opened(video, "mpegts") as one:
        times = sorted(stamp for stamp in one.stamps if stamp is not None)
        for stamps in ([None, *times[1:]], times[::-1], [*times, times[-1]], [*times, 7]):
            one.learn(stamps)
            assert one.order == []
        one.learn(times[:-1])  # the last cannot be decoded
        assert len(one.order) == len(times) - 1
        one.learn(times)
        assert [one.stamps[place] for place in one.order] == times


def test_what_nobody_refers_to_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first run as in others, and never while frames are counted."""
    video = films.make(frames=36, codec_options={"g": "36", "bf": "2", "b-adapt": "0"})
    decoded: list[int] = []
    frames = projection._frames

    def noted(*given: object) -> list[object]:
        found = frames(*given)  # type: ignore[arg-type]
        decoded.append(len(found))
        return found  # type: ignore[return-value]

    monkeypatch.setattr(projection, "_frames", noted)
    with opened(video) as one:
        assert [index for index, _ in shown(one, (33,))] == [33]
        assert sum(decoded) < 30
        decoded.clear()
        assert projection.count(one) == sum(decoded) == 36
