"""Another program's checkpoint from the hub, for `omnivec convert`. As in hub.py the network is
asked last, and never when offline is set."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from omnivec.core.checkpoint import CheckpointError
from omnivec.engine import hub

if TYPE_CHECKING:
    from omnivec.engine.catalog import Spec

SMALL = ("*.json", "*.txt")
WHOLE = ("open_clip_model.safetensors",)
APPLE = "mobileclip*.pt"  # has no settings beside it
PICKLED = ("open_clip_pytorch_model.bin", APPLE)  # where there is nothing better
BESIDE = ("tokenizer.json", "open_clip_config.json")

log = logging.getLogger("omnivec.hub")


def fetch(spec: Spec, *, offline: bool, progress: hub.Progress | None) -> Path:
    """The folder with its files. Raises CheckpointError with the remedy."""
    if spec.kind == "folder":
        return Path(spec.source)
    folder = hub.snapshot(spec)
    cached = folder if folder is not None and _has(folder, *WHOLE, *PICKLED) else None
    if cached is not None and (offline or _is_whole(cached)):
        return cached
    if offline:
        raise CheckpointError(
            f"{spec.source} is not in the cache ({hub.cache_folder()}) with open_clip's weights, "
            "and offline is set; run this where there is a network, or name a folder",
            "NOT_FOUND",
        )
    try:
        return _download(spec, progress)
    except CheckpointError as error:
        if cached is None:
            raise
        log.warning("%s; using the copy in the cache", error)
        return cached


def _download(spec: Spec, progress: hub.Progress | None) -> Path:
    folder = hub.collect(spec, (*SMALL, *WHOLE), progress)
    if not _has(folder, *WHOLE):
        folder = hub.collect(spec, PICKLED, progress)
    if not _has(folder, *WHOLE, *PICKLED):
        names = ", ".join((*WHOLE, *PICKLED))
        raise CheckpointError(
            f"{spec.source} on the hub has none of {names}; accepted: a repository of "
            "open_clip's, or of Apple's MobileCLIP"
        )
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether what belongs beside the weights is there: open_clip itself fetches no tokenizer."""
    tokenizer, settings = (_has(folder, name) for name in BESIDE)
    return tokenizer and (settings or _has(folder, APPLE))


def _has(folder: Path, *patterns: str) -> bool:
    return any(path.is_file() for pattern in patterns for path in folder.glob(pattern))
