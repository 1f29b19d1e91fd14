"""What this process may use of its machine."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import re
import sys
from functools import cache
from pathlib import Path

import msgspec


def memory() -> tuple[int, int]:
    """(bytes in all, bytes available), within the container's limit."""
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", read("/proc/meminfo"), re.MULTILINE))
    if "MemTotal" not in found:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return whole, whole
    whole, free = int(found["MemTotal"]) * 1024, int(found.get("MemAvailable", 0)) * 1024
    limit, used = (read(f"/sys/fs/cgroup/memory.{one}").strip() for one in ("max", "current"))
    if limit.isdigit() and used.isdigit():
        whole, free = min(whole, int(limit)), min(free, max(int(limit) - int(used), 0))
    return whole, free


@cache
def installed() -> int:
    """Bytes of memory that this process may use: the machine's, or a container's limit."""
    return memory()[0]


def give_back() -> None:
    """Free what only refers to itself, and ask the C library to return what is free to the
    system; only glibc's can."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@cache
def cores() -> int:
    """The cores that this process may use, a part of one counted as a whole one."""
    return max(1, math.ceil(share()))


def share() -> float:
    """How much of the machine's cores this process may use: its affinity, and a container's CPU
    quota; 1.5 is one and a half."""
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(float(allowed), quota(read("/sys/fs/cgroup/cpu.max")))


def quota(limit: str) -> float:
    """cgroup v2's cpu.max in cores: microseconds (or "max") of each period."""
    spent, _, period = limit.strip().partition(" ")
    if not (spent.isdigit() and period.isdigit()):  # no cgroup v2, or no limit
        return math.inf
    return int(spent) / int(period)


def has_cuda(folder: str = "/dev") -> bool:
    """Whether the system shows an NVIDIA GPU: by the files of its drivers, of WSL's and of
    Jetson's; no library has to be there. True on Windows, which has no such files."""
    names = ("nvidiactl", "nvidia0", "dxg", "nvhost-gpu", "nvgpu")
    return sys.platform == "win32" or any(Path(folder, name).exists() for name in names)


def read(path: str) -> str:
    """A small file of the system; "" where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


class Accelerator(msgspec.Struct, frozen=True):
    """A GPU as it is now. `used` and `total` are bytes; `utilization` in percent and
    `temperature` in degrees Celsius are None where nothing here can measure them."""

    device: str
    name: str
    used: int
    total: int
    utilization: float | None = None
    temperature: int | None = None
