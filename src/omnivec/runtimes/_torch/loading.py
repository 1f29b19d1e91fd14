"""A checkpoint's files as a transformers model, or a reason for a person why not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omnivec.core.checkpoint import Checkpoint, CheckpointError

# the transformers class that has the head of each kind; the others are of hidden states
_CLASSES = {"logits": "AutoModelForSequenceClassification", "words": "AutoModelForMaskedLM"}


def load(checkpoint: Checkpoint, dtype: Any, *, kind: str, attention: str | None) -> Any:
    """The model on the CPU, to infer with. `kind` is the head's; `attention` None leaves the
    choice to transformers. Raises CheckpointError."""
    checkpoint.weights()  # says what is wrong in our words before transformers says it in its
    with _quiet():
        import transformers

        try:
            model, info = getattr(transformers, _CLASSES.get(kind, "AutoModel")).from_pretrained(
                checkpoint.folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                dtype=dtype,
                attn_implementation=attention,
            )
        except Exception as error:  # whatever transformers raises for a file it cannot use
            raise CheckpointError(
                f"{checkpoint.name}: transformers cannot open it ({_first_line(error)})"
            ) from error
    # a pooler is left out of most checkpoints and of every head
    missing = [
        key for key in sorted(info["missing_keys"]) if kind == "logits" or "pooler" not in key
    ]
    if missing:
        raise CheckpointError(
            f"{checkpoint.name}: the weights lack {missing[0]} ({len(missing)} missing); "
            "download the model again"
        )
    return model.eval().requires_grad_(False)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers draws progress bars and logs reports; what matters of them is checked."""
    from transformers.utils import logging as reports

    bars, level = reports.is_progress_bar_enabled(), reports.get_verbosity()
    reports.disable_progress_bar()
    reports.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        reports.set_verbosity(level)
        if bars:
            reports.enable_progress_bar()
