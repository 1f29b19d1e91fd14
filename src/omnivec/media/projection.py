"""Frames of a tape by their indexes, decoding as little as their exactness allows.

Only the child process of `decoder` imports this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from typing import Any

import msgspec
import numpy as np
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from omnivec.core.nouns import Array
from omnivec.media.tape import Refused, Tape

Shown = tuple[int, VideoFrame]  # a frame and its index

_SEVERAL = 2
_HELD = 64_000_000
"""Pixels of frames that are held until it is their turn, at most."""


class Run(msgspec.Struct):
    """Packets `start` to `stop`, decoded in one go for the sake of the frames `wanted`, which
    are ascending."""

    start: int
    stop: int
    wanted: list[int]


class Astray(Exception):  # noqa: N818 - a change of plan
    """Decoding from a key did not give what its packets' times promised. Counting frames from
    the start is slow and always right."""


def project(tape: Tape, indexes: tuple[int, ...]) -> Iterator[Shown]:
    """The frames that `indexes` (ascending) name, in their order; what cannot be decoded is left
    out. Ends as soon as the last one is there. Raises Refused."""
    if not tape.order:
        yield from _counted(tape, list(indexes))
        return
    pending = [index for index in indexes if index < len(tape.order)]
    try:
        for shown in _played(tape, plan(tape, pending)):
            yield shown
            pending.remove(shown[0])
    except Astray:
        yield from _counted(tape, pending)


def count(tape: Tape) -> int:
    """How many frames there are, by decoding them all, from which the tape learns where each is."""
    stamps = [frame.pts for frame in _decode(tape, tape.read(), None)]
    tape.learn(stamps)
    return len(stamps)


def plan(tape: Tape, indexes: Iterable[int]) -> list[Run]:
    """A run begins with the nearest key that is shown no later than its frame: what comes after
    a key and is shown after it needs nothing before it."""
    runs: list[Run] = []
    for index in indexes:
        place = tape.order[index]
        start = _key(tape, place)
        if runs and start <= runs[-1].stop:
            runs[-1].stop = max(runs[-1].stop, place)
            runs[-1].wanted.append(index)
        else:
            runs.append(Run(start, place, [index]))
    return runs


def _key(tape: Tape, place: int) -> int:
    stamps = tape.stamps
    return max(key for key in tape.keys if key <= place and _before(stamps[key], stamps[place]))


def _before(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one <= other


def _played(tape: Tape, runs: list[Run]) -> Iterator[Shown]:
    """No run needs anything of another, so as many are decoded at once as there are threads.
    That keeps these busier than sharing the frames of one run, which depend on one another."""
    most = min(tape.threads, len(runs))
    ahead = 2 * most  # so that no thread waits for a longer run than its own
    context = tape.stream.codec_context
    each = max((len(run.wanted) for run in runs), default=0)
    if most < _SEVERAL or ahead * each * context.width * context.height > _HELD:
        for run in runs:
            yield from _play(tape, run)
        return
    copies: list[Tape] = []

    def play(run: Run) -> list[Shown]:
        own = copies.pop() if copies else tape.copy()
        try:
            return list(_play(own, run))
        finally:
            copies.append(own)

    with ExitStack() as stack:
        stack.callback(_close, copies)
        threads = ThreadPoolExecutor(most)
        stack.callback(threads.shutdown, cancel_futures=True)
        left = iter(runs)
        waiting = deque(threads.submit(play, run) for run in islice(left, ahead))
        while waiting:
            shown = waiting.popleft().result()
            waiting.extend(threads.submit(play, run) for run in islice(left, 1))
            yield from shown


def _close(tapes: list[Tape]) -> None:
    for tape in tapes:
        tape.close()


def _play(tape: Tape, run: Run) -> Iterator[Shown]:
    names = {tape.stamps[tape.order[index]]: index for index in run.wanted}
    packets = tape.read(run.start)
    wanted = list(run.wanted)
    last = None
    for frame in _decode(tape, _until(packets, run.stop), frozenset(names)):
        if last is not None and not _before(last, frame.pts):
            raise Astray
        last = frame.pts
        index = names.get(last)
        if index is None:
            continue
        if index != wanted.pop(0):
            raise Astray
        yield index, frame
        if not wanted:
            return
    raise Astray


def _counted(tape: Tape, indexes: list[int]) -> Iterator[Shown]:
    tape.rewind()
    wanted = set(indexes)
    for index, frame in enumerate(_decode(tape, tape.read(), None)):
        if index in wanted:
            yield index, frame
        if index >= indexes[-1]:
            return


def _until(
    packets: Iterator[tuple[int, Packet[Any]]], stop: int
) -> Iterator[tuple[int, Packet[Any]]]:
    for place, packet in packets:
        yield place, packet
        if place >= stop:
            return


def _decode(
    tape: Tape, packets: Iterator[tuple[int, Packet[Any]]], stamps: frozenset[int | None] | None
) -> Iterator[VideoFrame]:
    """What comes of the packets. With `stamps`, frames that are shown at other times and that
    no frame refers to need not be decoded. A packet that cannot be decoded is passed over."""
    tape.stream.codec_context.flush_buffers()
    for _, packet in packets:
        context = tape.stream.codec_context  # another one, when reading began with a rewind
        dear = stamps is None or packet.pts in stamps
        context.skip_frame = "DEFAULT" if dear else "NONREF"
        yield from _frames(tape, packet)
    yield from _frames(tape, None)


def _frames(tape: Tape, packet: Packet[Any] | None) -> list[VideoFrame]:
    try:
        return tape.stream.codec_context.decode(packet)
    except MemoryError as error:
        raise Refused("memory") from error
    except (FFmpegError, EOFError):
        return []


def upright(frame: VideoFrame, reformatter: VideoReformatter) -> Array:
    """uint8 [H, W, 3], turned and mirrored as the file asks for, to the nearest right angle.
    A reformatter serves all frames of a video: it holds tables."""
    rgb = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        rgb = _turned(rgb, np.frombuffer(matrix, np.int32))
    return np.ascontiguousarray(rgb)


def _turned(rgb: Array, matrix: Array) -> Array:
    """A pixel at (x, y) is shown at (ax + cy, bx + dy), but for a shift; `matrix` is a, b, and
    one for perspective, c, d, and so on."""
    a, b, c, d = (int(matrix[at]) for at in (0, 1, 3, 4))
    if abs(a) + abs(d) < abs(b) + abs(c):
        rgb, a, d = rgb.swapaxes(0, 1), c, b
    turned: Array = rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return turned
