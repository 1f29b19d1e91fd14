"""The program that decodes videos in a process of its own: `python -m omnivec.media.decoder`.

Its standard input is one end of a Unix socket; messages.py has what is said over it. It may be
killed at any time, and ends by itself when the other end is closed. No video opens a file, writes
one, or where the system allows it reaches a network.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import av.logging
import msgspec
from av.video.reformatter import VideoReformatter

from omnivec.core.machine import give_back
from omnivec.core.nouns import Array
from omnivec.media import projection
from omnivec.media.messages import (
    LENGTH,
    Close,
    Done,
    Facts,
    Frame,
    Open,
    Told,
    Trouble,
    Want,
    pack,
)
from omnivec.media.tape import Refused, Tape

_NEW_USER_AND_NETWORK = 0x10000000 | 0x40000000  # of unshare(2)
_PARENT_DEATH_SIGNAL = 1  # of prctl(2)
_NO_NEW_PRIVILEGES = 38
_FILES = 64

_read_opening = msgspec.msgpack.Decoder(Open).decode
_read_wish: Callable[[bytes], Want | Close] = msgspec.msgpack.Decoder(Want | Close).decode


def main() -> None:
    _confine(int(sys.argv[1]))
    line = socket.socket(fileno=0)
    gc.freeze()  # what is there for good need not be looked through after every video
    try:
        while True:
            wishes, descriptor = _opening(line)
            try:
                _serve(line, wishes, descriptor)
            finally:
                os.close(descriptor)
                give_back()  # a video's parts refer to one another
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the server has gone, or wants no more of this


def _serve(line: socket.socket, wishes: Open, descriptor: int) -> None:
    _limit(wishes)
    try:
        tape = Tape(descriptor, wishes)
        try:
            _show(line, tape, wishes)
        finally:
            tape.close()
    except Refused as refusal:
        _tell(line, Trouble(refusal.cause))
    except MemoryError:
        _tell(line, Trouble("memory"))
        raise EOFError from None  # who knows what is left of this process


def _show(line: socket.socket, tape: Tape, wishes: Open) -> None:
    total = tape.count or projection.count(tape)
    if not total:
        raise Refused("empty")
    reformatter = VideoReformatter()
    context = tape.stream.codec_context
    _tell(line, Facts(total, tape.rate, context.width, context.height))
    while isinstance(want := _ask(line), Want):
        came = 0
        for index, frame in projection.project(tape, want.indexes):
            if max(frame.width, frame.height) > wishes.side:
                raise Refused("size")
            rgb = projection.upright(frame, reformatter)
            _tell(line, Frame(index, rgb.shape[0], rgb.shape[1]), rgb)
            came += 1
        _tell(line, Done(total if came else len(tape.order) or projection.count(tape)))


# ── the line ─────────────────────────────────────────────────────────────────────────────


def _opening(line: socket.socket) -> tuple[Open, int]:
    head, descriptors, _, _ = socket.recv_fds(line, LENGTH, 1)
    if len(head) < LENGTH or not descriptors:
        raise EOFError
    return _read_opening(_exactly(line, int.from_bytes(head, "big"))), descriptors[0]


def _ask(line: socket.socket) -> Want | Close:
    return _read_wish(_exactly(line, int.from_bytes(_exactly(line, LENGTH), "big")))


def _exactly(line: socket.socket, size: int) -> bytes:
    got = line.recv(size, socket.MSG_WAITALL)
    if len(got) < size:
        raise EOFError
    return got


def _tell(line: socket.socket, message: Told, rgb: Array | None = None) -> None:
    line.sendall(pack(message))
    if rgb is not None:
        line.sendall(rgb.data.cast("B"))


# ── limits ───────────────────────────────────────────────────────────────────────────────


def _confine(parent: int) -> None:
    """For good. What the system does not offer is left out: the server's deadline holds always."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the server says when to end
    av.logging.set_level(None)
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _FILES),
    ):
        resource.setrlimit(limit, (most, most))
    if sys.platform != "linux":
        return
    with suppress(OSError):  # where memory ends, this ends before the server does
        Path("/proc/self/oom_score_adj").write_text("1000")
    system = ctypes.CDLL(None)
    system.unshare(_NEW_USER_AND_NETWORK)
    system.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    system.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit()  # it went before it could be watched


def _limit(wishes: Open) -> None:
    """For one video: address space, and processor time on top of what was used so far."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (wishes.memory, hard))
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    most = int(used.ru_utime + used.ru_stime) + wishes.seconds
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))


if __name__ == "__main__":
    main()
