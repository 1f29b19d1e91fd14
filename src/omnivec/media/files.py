"""Files of this machine that a client may name: those below a media root, and nothing else.

The way down is walked one folder at a time, each opened from the one before it and never
through a symbolic link, so nothing that changes meanwhile can lead out. (openat2 would do that
in one call, on newer Linux alone.)
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path

LONGEST = 4096
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC


class Forbidden(Exception):  # noqa: N818 - the word for all that is not read, missing or not
    """Not read. Nothing tells a client why."""


class Roots:
    """The folders below which files may be read; a link to one of them is followed."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._roots = [Path(os.path.abspath(os.path.expanduser(one))) for one in folders]  # noqa: PTH100, PTH111 - as written: `resolve` would follow links

    def read(self, path: str, most: int) -> bytes:
        """What is in a file. Raises Forbidden."""
        with self.open(path, most) as file:
            content = file.read(most + 1)  # one that grows has an end here, too
        if len(content) > most:
            raise Forbidden
        return content

    def open(self, path: str, most: int) -> BufferedReader:
        """A file of at most so many bytes, by its absolute path or by the one below a root.
        Raises Forbidden."""
        for root, steps in self._places(path):
            try:
                return os.fdopen(_opened(root, steps, most), "rb")
            except (FileNotFoundError, NotADirectoryError):
                continue  # it may be below another root
            except (OSError, ValueError):
                break
        raise Forbidden

    def _places(self, path: str) -> Iterator[tuple[Path, Sequence[str]]]:
        """Each root that the path may be below, and the way from there."""
        if not path or len(path) > LONGEST or "\0" in path:
            return
        for root in self._roots:
            steps = [step for step in path.split("/") if step not in ("", ".")]
            if path.startswith("/"):
                above = root.parts[1:]
                if tuple(steps[: len(above)]) != above:
                    continue
                steps = steps[len(above) :]
            if steps and ".." not in steps:
                yield root, steps


def _opened(root: Path, steps: Sequence[str], most: int) -> int:
    """The descriptor of the regular file at the end of these steps. Raises OSError."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for step in steps[:-1]:
            inner = os.open(step, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        # first without opening: that alone does something to a device
        _check(os.stat(steps[-1], dir_fd=folder, follow_symlinks=False), most)
        file = os.open(steps[-1], _FILE, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        _check(os.fstat(file), most)
    except OSError:
        os.close(file)
        raise
    return file


def _check(status: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_size > most:
        raise PermissionError
