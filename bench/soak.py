"""Whether memory stays where it is under hours of mixed load, and what blocks the event loop:
ours alone, every workload in turn for as long as one is told."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator
from itertools import cycle
from typing import Any

from bench import servers
from bench.generators import Load, drive_loop
from bench.processes import Running, ServerLostError
from bench.suites import _plain, started
from bench.workloads import NAMED, bodies

TURN = ("query-64", "batch-4", "corpus-32", "query-512", "long-8", "passage-32")
SECONDS = 5.0  # of each in its turn
LAG = "omnivec_event_loop_lag_seconds"


def measure(minutes: float) -> Iterator[dict[str, Any]]:
    """A sample after each workload: minutes so far (`x`), requests and failed ones since the
    last, resident memory, and the longest time for which the event loop was held up."""
    about = {"suite": "soak", "server": "omnivec", "repeat": 0}
    files = {name: file for name in TURN if (file := bodies(NAMED[name])) is not None}
    try:
        with started(servers.NAMED["omnivec"], "default") as running:
            began = time.monotonic()
            for name, file in cycle(files.items()):
                load = Load(NAMED[name].path, file, NAMED[name].connections, SECONDS)
                counted = drive_loop(running.port, load)
                x = (time.monotonic() - began) / 60
                yield {
                    **about,
                    "workload": "soak",
                    "x": x,
                    "of": name,
                    "requests": counted.requests,
                    "bad": counted.bad,
                    "resident_mb": running.memory()["resident"],
                    "lag_ms": 1000 * lag(running),
                }
                if x >= minutes:
                    return
    except (ServerLostError, OSError, RuntimeError) as error:
        yield {**about, "workload": "lost", "why": _plain(str(error))}


def lag(running: Running) -> float:
    """Seconds, from the server's own metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/metrics") as answer:
        text = answer.read().decode()
    found = re.search(rf"^{LAG}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0
