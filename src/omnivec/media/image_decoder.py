"""Pictures decoded in processes that may crash or hang, and are replaced then.

Threads would do for good pictures: Pillow gives the interpreter's lock away while it decodes.
But a heap overflow in a codec would end the server, and a loop in one would keep a thread for
ever. The price of processes is about 30 MB each and a copy of the pixels, half a millisecond
for a photo of 1 MB.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from socket import socketpair

import numpy as np

from omnivec.core.errors import Fault
from omnivec.core.nouns import Pixels
from omnivec.media import image_child

log = logging.getLogger("omnivec.media")

DEADLINE = 30.0
"""Seconds that one picture may take, on a machine that has others to do; of the processor's time
it gets less (media/image_child.py)."""
START = 30.0
"""And those that a new process has to come up in."""
PATIENCE = 1.0  # seconds that a process has to end by itself

Admit = Callable[[int], None]
"""Told how many pixels there will be, before there are any; raises a Fault if they are too many."""


class Undecodable(Exception):  # noqa: N818 - the same word for bytes that are none and that kill
    """It is no picture that is read here."""


class Decoder:
    """Any thread may call `decode`; as many processes run as threads do at once."""

    def __init__(self) -> None:
        self._idle: list[Child] = []
        self._lock = threading.Lock()
        self._closed = False

    def decode(self, data: bytes, admit: Admit) -> Pixels:
        """Blocks. Raises Undecodable, and what `admit` raises."""
        child = self._taken() or Child()
        good = False
        try:
            pixels = child.decode(data, admit)
            good = True
        except (OSError, EOFError) as error:
            log.warning("a picture ended the process that decoded it (%s)", type(error).__name__)
            raise Undecodable from error
        except (Fault, Undecodable):
            good = True
            raise
        finally:
            if good:
                self._keep(child)
            else:
                child.kill()
        return pixels

    def _taken(self) -> Child | None:
        """An idle one that nobody has ended meanwhile."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                child = self._idle.pop()
            if child.alive:
                return child
            child.kill()

    def _keep(self, child: Child) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(child)
                return
        child.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            children, self._idle = self._idle, []
        for child in children:
            child.close()


class Child:
    """One process, and the socket to it."""

    def __init__(self) -> None:
        self._socket, theirs = socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
                [sys.executable, "-s", "-m", image_child.__name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={
                    "PYTHONPATH": ":".join(path for path in sys.path if path),
                    "OPENBLAS_NUM_THREADS": "1",  # numpy would start one for each core
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what libraries say of a stranger's picture
                cwd="/",
                start_new_session=True,  # a Ctrl-C in the terminal is the server's to handle
            )
        self._fresh = True

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def decode(self, data: bytes, admit: Admit) -> Pixels:
        """Raises OSError or EOFError when the process is of no more use."""
        deadline = time.monotonic() + DEADLINE + (START if self._fresh else 0)
        self._send(image_child.LENGTH.pack(len(data)), deadline)
        self._send(data, deadline)
        height, width = self._size(deadline)
        self._fresh = False
        deadline = min(deadline, time.monotonic() + DEADLINE)
        try:
            admit(height * width)
        except Fault:
            self._send(image_child.STOP, deadline)
            raise
        self._send(image_child.GO, deadline)
        count = height * width
        height, width = self._size(deadline)
        if height * width != count:
            raise OSError("the process is not itself any more")
        rgb = np.empty((height, width, 3), np.uint8)
        self._fill(rgb.reshape(-1).data, deadline)
        rgb.flags.writeable = False
        return Pixels(rgb)

    def close(self) -> None:
        self._socket.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
            return
        self.kill()

    def kill(self) -> None:
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def _size(self, deadline: float) -> tuple[int, int]:
        head = bytearray(image_child.SIZE.size)
        self._fill(memoryview(head), deadline)
        good, height, width = image_child.SIZE.unpack(head)
        if not good:
            self._fresh = False
            raise Undecodable
        return height, width

    def _send(self, data: bytes, deadline: float) -> None:
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        self._socket.sendall(data)

    def _fill(self, view: memoryview, deadline: float) -> None:
        done = 0
        while done < len(view):
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            more = self._socket.recv_into(view[done:])
            if not more:
                raise EOFError
            done += more
