"""BERT and its kin on the CPU through CTranslate2 (github.com/OpenNMT/CTranslate2), whose model
is made of the checkpoint's own files, and lies in a temporary folder while it is opened: from
memory CTranslate2 would keep it twice. Needs the extra `ctranslate2`, which is imported when a
model is opened.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING

import numpy as np

from omnivec.core.checkpoint import CheckpointError
from omnivec.core.machine import cores
from omnivec.runtimes._ctranslate2.encoder import build
from omnivec.runtimes._ctranslate2.plans import reason
from omnivec.runtimes._ctranslate2.session import CTranslate2Session

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from omnivec.core.checkpoint import Checkpoint
    from omnivec.core.machine import Accelerator
    from omnivec.core.nouns import Array
    from omnivec.core.seams import Session
    from omnivec.core.steps import Head
    from omnivec.runtimes._ctranslate2.encoder import Limits

INSTALL = "pip install 'omnivec[ctranslate2]'"
# our dtypes by CTranslate2's names for what it computes in
TYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "int8": "int8_float32"}
SCRATCH = 60_000_000  # bytes: the library, and what batches of all streams pass through it

log = logging.getLogger("omnivec.runtimes")


class CTranslate2:
    name = "ctranslate2"
    rank = 30

    def can(self, checkpoint: Checkpoint, graph: str, head: Head, device: str) -> str | None:
        if device not in ("auto", "cpu"):
            return f"the ctranslate2 runtime runs on the CPU, not on {device!r}; use --device cpu"
        if find_spec("ctranslate2") is None:
            return f"needs ctranslate2: {INSTALL}"
        return reason(checkpoint.part(graph), head)

    def open(
        self, checkpoint: Checkpoint, graph: str, head: Head, device: str, dtype: str
    ) -> Session:
        """A stream for each core. What a batch passes through after the encoder is float32."""
        why = self.can(checkpoint, graph, head, device)
        if why is not None:
            raise CheckpointError(f"{checkpoint.name}: {why}")
        import ctranslate2

        checkpoint = checkpoint.part(graph)
        supported = ctranslate2.get_supported_compute_types("cpu")
        chosen, streams = precision(dtype, supported, checkpoint.name), cores()
        made = build(checkpoint, head)
        try:
            with TemporaryDirectory(prefix="omnivec-") as folder:
                made.save(Path(folder))
                encoder = ctranslate2.Encoder(
                    folder,
                    compute_type=TYPES[chosen],
                    inter_threads=streams,
                    intra_threads=1,
                )
            session = CTranslate2Session(encoder, made.limits, made.finish, streams, chosen)
            session.run(_few(made.limits))
        except OSError as error:
            raise CheckpointError(
                f"{checkpoint.name}: {gettempdir()} takes no copy of the model for CTranslate2 "
                f"({error.strerror}); set TMPDIR to a folder that has room for its weights"
            ) from error
        except (RuntimeError, ValueError, IndexError) as error:
            raise CheckpointError(
                f"{checkpoint.name}: CTranslate2 refused the model; config.json and the weights "
                "do not fit each other"
            ) from error
        return session

    def weigh(self, checkpoint: Checkpoint, graph: str, dtype: str) -> int:
        """In float32 or bytes, embeddings included; the file does not stay mapped."""
        checkpoint = checkpoint.part(graph)
        count = checkpoint.size() // (2 if checkpoint.is_half else 4)
        return SCRATCH + count * (1 if dtype == "int8" else 4)

    def describe(self, session: Session) -> tuple[str, str]:
        return "cpu", session.dtype if isinstance(session, CTranslate2Session) else ""

    def memory(self) -> int:
        return 0

    def accelerators(self) -> Sequence[Accelerator]:
        return ()


def _few(limits: Limits) -> dict[str, Array]:
    """A batch of one token, which is no padding."""
    token = int(limits.padding == 0)
    return {"input_ids": np.array([[token]]), "attention_mask": np.ones((1, 1), np.int64)}


def precision(dtype: str, supported: Collection[str], name: str) -> str:
    """What to compute in: that which is asked for where this processor has it, else f32."""
    chosen = dtype if TYPES.get(dtype) in supported else "f32"
    if dtype not in ("auto", chosen):
        log.warning("%s: CTranslate2 computes it in f32 on this processor, not in %s", name, dtype)
    return chosen


PLUGIN = CTranslate2()
