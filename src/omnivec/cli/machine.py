"""What this machine is: processor, memory, accelerator, Python, extras. For `omnivec doctor`."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

from omnivec.core.machine import read

# what decides how fast a graph runs, as /proc/cpuinfo and sysctl call it
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd")
BYTES = 1 << 30
PIP = f"{sys.executable} -m pip install"  # into this very environment


class Extra(NamedTuple):
    """An optional part of omnivec; `missing` are its packages that are not installed."""

    name: str
    missing: tuple[str, ...]

    @property
    def command(self) -> str:
        return f"{PIP} 'omnivec[{self.name}]'"


def processor() -> tuple[str, tuple[str, ...]]:
    """(name, those of INSTRUCTIONS that it has)."""
    cpuinfo = read("/proc/cpuinfo")
    if not cpuinfo:
        return platform.processor() or platform.machine(), ()
    name = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    have = set(flags[1].split()) if flags else set()
    return (
        name[1] if name else platform.machine(),
        tuple(one for one in INSTRUCTIONS if one in have),
    )


def accelerators() -> list[str]:
    """NVIDIA's, as its own tool names them; empty without one."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 - fixed words
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def extras() -> Iterator[Extra]:
    """From omnivec's own metadata, so that a new extra needs no second list."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        lines = requires("omnivec") or []
    except PackageNotFoundError:
        return
    wanted: dict[str, list[str]] = {}
    for line in lines:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", line)
        package = re.match(r"[\w.-]+", line)
        if extra and package and extra[1] != "dev":
            wanted.setdefault(extra[1], []).append(package[0])
    for name, packages in sorted(wanted.items()):
        yield Extra(name, tuple(one for one in packages if version(one) is None))


def version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed(package)
    except PackageNotFoundError:
        return None
