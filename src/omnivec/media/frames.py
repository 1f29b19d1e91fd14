"""Which frames of a video a `Clip` means. Pure: nothing here opens a video.

The rules are those of Intel's Multimodal Embedding Serving, so that rows stay where its clients
expect them: a frame's index is its place in the order in which a full decode gives it, a rate is
taken as constant, and the chosen indexes are ascending, each once.
"""

from __future__ import annotations

import math

import numpy as np

from omnivec.core.errors import BadRequest
from omnivec.core.nouns import Clip

BEYOND = "The clip starts beyond the end of the video."


def check(clip: Clip, most: int) -> None:
    """Whatever is wrong with a clip before its video is known; `most` is a number of frames.

    Raises BadRequest.
    """
    if not (math.isfinite(clip.start) and clip.start >= 0):
        raise BadRequest("The start of a clip must be a number of seconds, 0 or more.")
    if clip.duration is not None and not clip.duration >= 0:
        raise BadRequest("The duration of a clip must be 0 seconds or more; leave it out for all.")
    if clip.fps is not None and not (math.isfinite(clip.fps) and clip.fps > 0):
        raise BadRequest("The frames per second of a clip must be a number above 0.")
    if clip.interval is not None and clip.interval < 1:
        raise BadRequest("The interval between frames must be 1 or more.")
    if clip.frames < 0:
        raise BadRequest("The number of frames must be 0, for all of them, or more.")
    if len(clip.indexes) > most:
        raise _too_many(most)


def choose(clip: Clip, total: int, rate: float, most: int) -> tuple[int, ...]:
    """The indexes of the frames that a checked clip means, at least one and at most `most`.

    `total` frames (1 or more) are in the video, `rate` of them a second. Indexes outside the
    window are left out; when none is left, frames are taken evenly. Raises BadRequest.
    """
    window = _window(clip, total, rate)
    kept = sorted({index for index in clip.indexes if index in window})
    if kept:
        chosen: range | list[int] = kept
    elif clip.fps is not None and not clip.indexes:
        chosen = _at_rate(window, rate / clip.fps, most)
    elif clip.interval is not None and not clip.indexes:
        chosen = window[:: clip.interval]
    else:
        chosen = _evenly(window, clip.frames, most)
    if len(chosen) > most:
        raise _too_many(most)
    return tuple(chosen)


def _window(clip: Clip, total: int, rate: float) -> range:
    """Not empty: a clip that lasts less than a frame is its first frame."""
    first = int(min(rate * clip.start, total))
    if first >= total:
        raise BadRequest(BEYOND)
    if clip.duration is None:
        return range(first, total)
    last = min(total, first + int(min(rate * clip.duration, total)))
    return range(first, max(last, first + 1))


def _at_rate(window: range, step: float, most: int) -> range | list[int]:
    """Every `step`-th place, added up in floating point as the oracle does."""
    if step <= 1:
        return window
    chosen: list[int] = []
    place = float(window.start)
    while place < window.stop and len(chosen) <= most:
        chosen.append(int(place))
        place += step
    return chosen


def _evenly(window: range, count: int, most: int) -> range | list[int]:
    if count == 0 or count >= len(window):
        return window
    if count > most:
        raise _too_many(most)
    places = np.linspace(window.start, window.stop, num=count, endpoint=False, dtype=int)
    return [int(place) for place in places]


def _too_many(most: int) -> BadRequest:
    return BadRequest(f"The clip means more than {most} frames of the video; ask for fewer.")
