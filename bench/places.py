"""Where the benchmark keeps things, all relative to the root of the repository."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".peers"  # an environment for each peer; ignored by git
MODELS = ROOT / ".bench-models"  # generated checkpoints, graphs, bodies; ignored by git
RESULTS = ROOT / "bench" / "results"
PLOTS = ROOT / "bench" / "plots"
REPORT = ROOT / "BENCHMARKS.md"
XQUAD = ROOT.parent / "shared" / "data" / "xquad"
PHOTOS = ROOT.parent / "shared" / "data" / "images" / "clothing" / "test"
VIDEOS = ROOT.parent / "shared" / "data" / "video"

# Nothing goes out to a hub or to anybody's analytics, and no setting of the person who runs
# this reaches a server that is measured.
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "DO_NOT_TRACK": "1",
    "NO_COLOR": "1",
    "PYTHONUNBUFFERED": "1",
}
OTHERS = ("OMNIVEC_", "EMBEDDING_", "SIE_", "INFINITY_", "OMP_", "MKL_", "PYTEST_")


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of servers, plus `extra`."""
    every = os.environ.items()  # noqa: TID251 - what a measured process inherits
    kept = {name: value for name, value in every if not name.startswith(OTHERS)}
    return {**kept, **QUIET, **(extra or {})}
