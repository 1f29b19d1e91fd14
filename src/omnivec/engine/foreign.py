"""Another program's checkpoint from the hub, for `omnivec convert`. As in hub.py the network is
asked last, and never when offline is set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omnivec.core.checkpoint import CheckpointError
from omnivec.engine import hub

if TYPE_CHECKING:
    from omnivec.engine.catalog import Spec

SMALL = ("*.json", "*.txt")
WHOLE = ("open_clip_model.safetensors",)
PICKLED = ("open_clip_pytorch_model.bin", "mobileclip*.pt")  # where there is nothing better


def fetch(spec: Spec, *, offline: bool, progress: hub.Progress | None) -> Path:
    """The folder with its files. Raises CheckpointError with the remedy."""
    if spec.kind == "folder":
        return Path(spec.source)
    folder = hub.snapshot(spec)
    if folder is not None and _has(folder, *WHOLE, *PICKLED):
        return folder
    if offline:
        raise CheckpointError(
            f"{spec.source} is not in the cache ({hub.cache_folder()}) with open_clip's weights, "
            "and offline is set; run this where there is a network, or name a folder",
            "NOT_FOUND",
        )
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


def _has(folder: Path, *patterns: str) -> bool:
    return any(path.is_file() for pattern in patterns for path in folder.glob(pattern))
