"""The server's end of one process that decodes videos, one at a time."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from omnivec.core.errors import BadRequest, Fault, ModelFailed, TooLarge
from omnivec.core.nouns import Array
from omnivec.media.messages import (
    LENGTH,
    LONGEST,
    Asked,
    Cause,
    Close,
    Frame,
    Open,
    Told,
    Trouble,
    pack,
)

_AHEAD = 4 << 20  # bytes of frames that wait to be taken, where the system grants that many
_MOMENT = 1.0  # seconds, from the end of the line to that of the process
_ROOT = str(Path(__file__).resolve().parents[2])
SLOW = "Decoding this video takes longer than it may."
UNREADABLE = "This is not a video that can be read."
_FAULTS: dict[Cause, tuple[type[Fault], str]] = {
    "unreadable": (BadRequest, UNREADABLE),
    "no video": (BadRequest, "There is no video stream in this file."),
    "codec": (BadRequest, "The codec of this video is not supported; H.264 in MP4 is."),
    "empty": (BadRequest, "There is no frame in this video that can be decoded."),
    "size": (TooLarge, "The frames of this video are too large."),
    "packets": (TooLarge, "This video has too many frames."),
    "memory": (TooLarge, "Decoding this video takes more memory than it may."),
}

_read = msgspec.msgpack.Decoder(Told).decode


class Child:
    """Raises faults only: those of the video, and ModelFailed when the process has ended. After
    any but the former, and whenever a video is given up half-way, it must be killed.

    On Linux the process ends with the thread that made it, so make one on the event loop's."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._line = ours
        self.idle = True  # has told all about its last video
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _AHEAD)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-P", "-m", "omnivec.media.decoder", str(os.getpid())],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=_environment(),
                cwd="/",
            )
        self.pid = self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    async def open(self, wishes: Open, descriptor: int) -> None:
        """The descriptor's file is read from its start; both ends may close theirs."""
        self.idle = False
        try:
            socket.send_fds(self._line, [pack(wishes)], [descriptor])
        except OSError:
            raise await self._ended() from None

    async def ask(self, message: Asked) -> None:
        self.idle = isinstance(message, Close)
        try:
            await asyncio.get_running_loop().sock_sendall(self._line, pack(message))
        except OSError:
            raise await self._ended() from None

    async def hear(self) -> Told:
        """The next message; Trouble is raised as its fault."""
        size = int.from_bytes(await self._exactly(LENGTH), "big")
        if size > LONGEST:
            raise await self._ended()
        try:
            message: Told = _read(await self._exactly(size))
        except msgspec.MsgspecError:
            raise await self._ended() from None
        if isinstance(message, Trouble):
            self.idle = message.cause != "memory"
            kind, text = _FAULTS[message.cause]
            raise kind(text)
        return message

    async def pixels(self, frame: Frame) -> Array:
        """uint8 [height, width, 3] of the frame that was heard last."""
        rgb = np.empty((frame.height, frame.width, 3), np.uint8)
        await self._fill(rgb.data.cast("B"))
        return rgb

    def kill(self) -> None:
        """Whoever waits to hear from it is told that it ended."""
        self._process.kill()

    def wait(self) -> None:
        """Freeing a large process takes a while."""
        self._process.wait()

    def close(self) -> None:
        """The line, when nobody listens any more; the process ends by itself if it can."""
        self._line.close()

    async def _exactly(self, size: int) -> bytes:
        buffer = bytearray(size)
        await self._fill(memoryview(buffer))
        return bytes(buffer)

    async def _fill(self, view: memoryview) -> None:
        loop = asyncio.get_running_loop()
        at = 0
        while at < len(view):
            try:
                got = await loop.sock_recv_into(self._line, view[at:])
            except OSError:
                got = 0
            if not got:
                raise await self._ended()
            at += got

    async def _ended(self) -> Fault:
        """Why it is gone, or has to go. The signal for too much processor time is the video's."""
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, _MOMENT)
        if self._process.returncode == -signal.SIGXCPU:
            return BadRequest(SLOW)
        return ModelFailed("The process that decodes videos ended while it had this one.")


def _environment() -> dict[str, str]:
    """None of the server's own, where secrets are. One thread for numpy, which has little to do,
    and few arenas, for address space is limited."""
    return {"PYTHONPATH": _ROOT, "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
