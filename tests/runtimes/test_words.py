"""Heads of kind "words" on every runtime, against core/heads.py over transformers' logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from checkpoints import KINDS
from omnivec.core import heads
from omnivec.core.checkpoint import Checkpoint
from omnivec.core.steps import Head, Vocabulary
from omnivec.runtimes._openvino import words
from omnivec.runtimes._torch import heads as torch_heads
from omnivec.runtimes._torch.packing import Packing
from omnivec.runtimes.openvino import PLUGIN as OPENVINO
from omnivec.runtimes.torch import PLUGIN as TORCH

if TYPE_CHECKING:
    from pathlib import Path

torch.set_num_threads(1)

RUNTIMES = {"openvino": OPENVINO, "torch": TORCH}
MAX = Vocabulary("max", "log1p_relu")
SUM = Vocabulary("sum", "log1p_log1p_relu")


def batch(kind: str, *, left: bool = False) -> dict[str, np.ndarray]:
    """Rows of 12, 7 and 1 tokens, the second without two of them in its words."""
    lengths, places = np.array([[12], [7], [1]]), np.arange(12)[None]
    mask = (places >= 12 - lengths if left else places < lengths).astype(np.int64)
    ids = np.random.default_rng(0).integers(5, 200, mask.shape)
    padding = 1 if KINDS[kind].offset else 0
    kept = mask.copy()
    kept[1, 5:7] = 0
    return {
        "input_ids": np.where(mask, ids, padding),
        "attention_mask": mask,
        "pool_mask": kept,
    }


def run(runtime: str, folder: Path, step: Vocabulary, arrays: dict[str, np.ndarray]) -> Any:
    session = RUNTIMES[runtime].open(
        Checkpoint("tiny", folder), "main", Head("words", (step,)), "cpu", "f32"
    )
    found = session.run(arrays)
    session.close()
    assert found["output"].dtype == np.float32
    assert found["rows"].dtype == found["columns"].dtype == np.int64
    return found


def reference(folder: Path, step: Vocabulary, arrays: dict[str, np.ndarray]) -> np.ndarray:
    from transformers import AutoModelForMaskedLM

    model = AutoModelForMaskedLM.from_pretrained(folder)
    fed = {name: torch.from_numpy(arrays[name]) for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        logits = model(**fed).logits.numpy()
    return heads.words(step, logits, arrays["pool_mask"])


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("step", [MAX, SUM], ids=["max", "sum"])
@pytest.mark.parametrize("kind", ["bert", "mpnet", "modernbert"])
def test_what_is_not_zero_leaves(sparse, kind: str, step: Vocabulary, left: bool, runtime) -> None:
    folder, arrays = sparse(kind, layout="bare"), batch(kind, left=left)
    expected = reference(folder, step, arrays)
    found = run(runtime, folder, step, arrays)
    places = np.flatnonzero(expected > 1e-6)
    ours = found["rows"] * expected.shape[1] + found["columns"]
    assert (np.diff(ours) > 0).all()
    assert set(places) <= set(ours.tolist())
    np.testing.assert_allclose(
        found["output"], expected.ravel()[ours], rtol=0, atol=1e-5 * max(1, expected.max())
    )


def test_a_vocabulary_in_parts_is_the_same(sparse, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, arrays = sparse("bert", layout="bare"), batch("bert")
    whole = run("openvino", folder, MAX, arrays)
    monkeypatch.setattr(words, "TOGETHER", 100)
    parts = run("openvino", folder, MAX, arrays)
    np.testing.assert_array_equal(whole["columns"], parts["columns"])
    np.testing.assert_allclose(whole["output"], parts["output"], rtol=0, atol=1e-6)


def test_a_batch_in_parts_is_the_same(sparse, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, arrays = sparse("bert", layout="bare"), batch("bert")
    whole = run("torch", folder, MAX, arrays)
    monkeypatch.setattr(torch_heads, "LOGITS", 8)
    parts = run("torch", folder, MAX, arrays)
    np.testing.assert_array_equal(whole["rows"], parts["rows"])
    np.testing.assert_allclose(whole["output"], parts["output"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("most", "spans"),
    [(1, [(0, 1), (1, 2), (2, 3)]), (19, [(0, 2), (2, 3)]), (20, [(0, 3)]), (8, [(0, 1), (1, 3)])],
)
def test_rows_are_taken_together_up_to_a_number_of_tokens(most: int, spans: list) -> None:
    assert Packing(batch("bert")).spans(most) == spans


def test_batches_are_short_where_a_vocabulary_follows(sparse) -> None:
    checkpoint = Checkpoint("tiny", sparse("bert", layout="bare"))
    session = OPENVINO.open(checkpoint, "main", Head("words", (MAX,)), "cpu", "f32")
    assert session.batch_cost == 512
    session.close()


def test_eight_bits_round_the_body_and_not_the_vocabulary(sparse) -> None:
    folder, arrays = sparse("bert", layout="bare"), batch("bert")
    checkpoint = Checkpoint("tiny", folder)
    session = OPENVINO.open(checkpoint, "main", Head("words", (MAX,)), "cpu", "int8")
    found = session.run(arrays)
    session.close()
    exact = reference(folder, MAX, arrays)
    ours = np.zeros_like(exact)
    ours[found["rows"], found["columns"]] = found["output"]
    cosine = (ours * exact).sum() / np.linalg.norm(ours) / np.linalg.norm(exact)
    assert cosine > 0.99
