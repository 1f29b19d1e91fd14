"""What an open graph takes of the machine: memory, and how many batches it computes at once.
Told from the small files alone, without OpenVINO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnivec.core.machine import installed
from omnivec.runtimes._openvino.limits import ARCHITECTURES, DECODER

if TYPE_CHECKING:
    from omnivec.core.checkpoint import Checkpoint

SMALL = 512 * 2**20
"""Bytes of weights up to which a model is held twice, for throughput and for latency; larger
ones up to one PART of the memory that there is. Also those of matrices up to which a decoder
has a stream for each core."""
PART = 8
PACKED = {"f32": 4, "bf16": 2, "int8": 1}  # bytes of a weight in a graph
SPARE = 1.2
SCRATCH = 48_000_000  # bytes: a graph's kernels and what a batch passes through it


def parallel(checkpoint: Checkpoint, cores: int) -> int:
    """How many batches run at once. A large decoder has one at a time, on all cores: with
    matrices of that size this is as fast, a text that comes alone waits for no single core,
    and the weights are there once. EmbeddingGemma is none: two thirds of it are embeddings."""
    if ARCHITECTURES[checkpoint.architecture] != DECODER:
        return cores
    return 1 if _multiplied(checkpoint) * _stored(checkpoint) > SMALL else cores


def is_wide(checkpoint: Checkpoint, streams: int) -> bool:
    """Whether it is held a second time, for one batch on all cores."""
    return streams > 1 and checkpoint.size() <= max(SMALL, installed() // PART)


def weigh(checkpoint: Checkpoint, cores: int, chosen: str) -> int:
    """Bytes in the precision `chosen`. Measured on several shapes (docs/experiments.md): each
    graph packs the matrices anew, the embeddings stay in the file. Half precision that must be
    widened is packed twice, once for few tokens and once for many."""
    copies = 1 + is_wide(checkpoint, parallel(checkpoint, cores))
    if chosen == "f32" and _stored(checkpoint) != PACKED[chosen]:
        copies *= 2
    return int(SCRATCH + SPARE * _multiplied(checkpoint) * PACKED[chosen] * copies)


def _multiplied(checkpoint: Checkpoint) -> int:
    """How many weights are no embeddings, which are only looked up."""
    config, count = checkpoint.config, checkpoint.size() // _stored(checkpoint)
    words = config.get("vocab_size", 0) * config.get("hidden_size", 0) * _tables(checkpoint)
    return int(max(count - words, count // 4))


def _stored(checkpoint: Checkpoint) -> int:
    """Bytes of a weight in a file."""
    return 2 if checkpoint.is_half else 4


def _tables(checkpoint: Checkpoint) -> int:
    """How many tables of embeddings a file has: a language model's output may be its own."""
    named = str((checkpoint.config.get("architectures") or [""])[0])
    tied = checkpoint.config.get("tie_word_embeddings", True)
    return 1 if tied or not named.endswith("ForCausalLM") else 2
