"""A checkpoint's files as a transformers model, or a reason for a person why not."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omnivec.core import torchfile
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.steps import Head
from omnivec.runtimes._torch import architectures

# the transformers class that has the head of each kind; the others are of hidden states
_CLASSES = {"logits": "AutoModelForSequenceClassification", "words": "AutoModelForMaskedLM"}


_DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}  # torch's names of ours


def load(checkpoint: Checkpoint, dtype: str, head: Head, *, attention: str | None) -> Any:
    """The model on the CPU, to infer with, of the class that has the head, in `dtype` ("f32",
    "bf16", "f16"); `attention` None leaves the choice to transformers. Raises CheckpointError."""
    # says what is wrong in our words before transformers says it in its
    files = checkpoint.weights()
    pickled = [file for file in files if file.suffix != ".safetensors"]
    with _quiet():
        import torch
        import transformers

        made = getattr(transformers, _class(checkpoint.architecture, head))
        told: dict[str, Any] = {
            "output_loading_info": True,
            "dtype": getattr(torch, _DTYPES[dtype]),
            "attn_implementation": attention,
        }
        try:
            if pickled:
                model, info = _from_state(checkpoint, made, pickled, told)
            else:
                model, info = made.from_pretrained(
                    checkpoint.folder,
                    local_files_only=True,
                    trust_remote_code=False,
                    use_safetensors=True,
                    **told,
                )
        except CheckpointError:
            raise
        except Exception as error:  # whatever transformers raises for a file it cannot use
            raise CheckpointError(
                f"{checkpoint.name}: transformers cannot open it ({_first_line(error)})"
            ) from error
    # a pooler is left out of most checkpoints and of every head
    missing = [
        key for key in sorted(info["missing_keys"]) if head.kind == "logits" or "pooler" not in key
    ]
    if missing:
        raise CheckpointError(
            f"{checkpoint.name}: the weights lack {missing[0]} ({len(missing)} missing); "
            "download the model again"
        )
    return model.eval().requires_grad_(False)


def _class(architecture: str, head: Head) -> str:
    manner = architectures.manner(architecture, head)
    return manner.speaks if head.kind == "contrast" else _CLASSES.get(head.kind, manner.reads)


def _from_state(
    checkpoint: Checkpoint, kind: Any, files: Sequence[Path], told: Mapping[str, Any]
) -> Any:
    """The model, its tensors read by ourselves: transformers would unpickle."""
    import torch
    from transformers import AutoConfig

    tensors: dict[str, Any] = {}
    for file in files:
        tensors |= state(checkpoint.name, file)
    config = AutoConfig.from_pretrained(
        checkpoint.folder, local_files_only=True, trust_remote_code=False
    )
    with torch.device("meta"):  # without memory: only its class is asked for
        made = type(kind.from_config(config, trust_remote_code=False))
    return made.from_pretrained(None, config=config, state_dict=tensors, **told)


def state(name: str, file: Path) -> dict[str, Any]:
    """The tensors of a file that torch.save wrote, on the CPU. Raises CheckpointError."""
    import torch

    return {
        key: torch.from_numpy(one.array).view(torch.bfloat16)
        if one.dtype == "BF16"
        else torch.from_numpy(one.array)
        for key, one in torchfile.read(name, file).items()
    }


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
