"""The process that decodes pictures: `python -m omnivec.media.image_child FD`.

What a picture may do to it: nothing worse than end it. It has no environment, no files but its
socket, and limits on memory and on the seconds of processor time that one picture takes; the
server's side has a clock of its own. It ends when the server closes the socket.

A picture comes as its length and its bytes. The answer is whether it can be opened and its
height and width; told to go on, whether it could be decoded, its height and width again (it
may have been turned), and its pixels.
"""

from __future__ import annotations

import os
import resource
import struct
import sys
from contextlib import suppress
from socket import socket

LENGTH = struct.Struct("<I")
SIZE = struct.Struct("<?II")
REFUSED = SIZE.pack(False, 0, 0)
GO, STOP = b"\1", b"\0"

SECONDS = 10
MEMORY = 2 << 30  # of address space, of which the libraries take 150 MB


def read(connection: socket, count: int) -> bytearray:
    """Raises EOFError, OSError."""
    into = bytearray(count)
    fill(connection, memoryview(into))
    return into


def fill(connection: socket, view: memoryview) -> None:
    """Raises EOFError, OSError."""
    done = 0
    while done < len(view):
        more = connection.recv_into(view[done:])
        if not more:
            raise EOFError
        done += more


def confine() -> None:
    """No core dumps, no files that grow, no more open than there are, and so much memory."""
    os.chdir("/")
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_AS, MEMORY),
    ):
        with suppress(OSError, ValueError):  # macOS has no limit on addresses
            resource.setrlimit(what, (most, most))


def wind() -> None:
    """So many more seconds of processor time, at the end of which the kernel ends this."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + SECONDS + 1, hard))


def serve(connection: socket) -> None:
    from omnivec.media import images  # all that is needed, before files run out

    confine()
    while True:
        (length,) = LENGTH.unpack(read(connection, LENGTH.size))
        try:
            _answer(connection, length)
        except images.PictureError:
            connection.sendall(REFUSED)


def _answer(connection: socket, length: int) -> None:
    """One picture, of which nothing is left when the next one is waited for. Raises
    PictureError."""
    from omnivec.media import images

    data = bytes(read(connection, length))
    wind()
    picture = images.open_picture(data)
    width, height = picture.size
    connection.sendall(SIZE.pack(True, height, width))
    if read(connection, 1) == GO:
        rgb = images.to_rgb(picture)
        connection.sendall(SIZE.pack(True, *rgb.shape[:2]))
        connection.sendall(rgb.reshape(-1).data)


if __name__ == "__main__":
    from PIL import Image

    Image.init()  # the formats are imported when first wanted: no picture shall wait for that
    with suppress(EOFError, OSError):
        serve(socket(fileno=int(sys.argv[1])))
