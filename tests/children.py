"""Who decodes for a process."""

from __future__ import annotations

import os
from pathlib import Path


def children(of: int | None = None) -> list[int]:
    """The processes that decode for this one, or for another."""
    tasks = Path("/proc", str(of or os.getpid()), "task")
    listed = [int(pid) for one in tasks.glob("*/children") for pid in one.read_text().split()]
    return [pid for pid in listed if b"omnivec.media" in said(pid)]


def said(pid: int) -> bytes:
    try:
        return Path("/proc", str(pid), "cmdline").read_bytes()
    except OSError:
        return b""


def is_over(pid: int) -> bool:
    """Whether it has ended, waited for or not."""
    try:
        stat = Path("/proc", str(pid), "stat").read_text()
        threads = len(list(Path("/proc", str(pid), "task").iterdir()))
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX" and threads == 1
