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
