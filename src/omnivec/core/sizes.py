"""Amounts of memory as people write them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


def parse(text: str) -> int | None:
    """Bytes: 500MB and 2GB count in thousands, 512MiB in 1024s; None for what is no size."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        return None
    step = 1024 if found[3] else 1000
    return int(float(found[1]) * step ** " KMGT".index(found[2].upper() or " "))


def say(count: float) -> str:
    """As a person reads it: 1.5 GB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004 - the step of the units
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
