"""Adapters on both runtimes against PEFT, in float32, on tiny random checkpoints."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from adapters import BASE, build_adapter, peft_answer, peft_model
from checkpoints import KINDS
from omnivec.core.adapter import Adapter
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.steps import Head, Pool
from omnivec.runtimes import openvino
from omnivec.runtimes import torch as torch_runtime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

torch.set_num_threads(1)

RUNTIMES = {"openvino": openvino.PLUGIN, "torch": torch_runtime.PLUGIN}
TOKENS = Head("tokens")
ATTENTION: Mapping[str, Sequence[str]] = {
    "bert": ["query", "value"],
    "xlm_roberta": ["query", "key", "value"],
    "mpnet": ["q", "o"],
    "modernbert": ["Wqkv"],
    "distilbert": ["q_lin", "v_lin"],
}
KIND = pytest.mark.parametrize("kind", ATTENTION)
RUNTIME = pytest.mark.parametrize("runtime", RUNTIMES)


def opened(
    runtime: str,
    folder: Path,
    adapters: Mapping[str, Path],
    head: Head = TOKENS,
    dtype: str = "f32",
) -> Any:
    made = [Adapter(name, place) for name, place in adapters.items()]
    checkpoint = Checkpoint("tiny", folder, adapters=made)
    return RUNTIMES[runtime].open(checkpoint, "main", head, "cpu", dtype)


def batch(kind: str, rows: int, width: int) -> dict[str, np.ndarray]:
    """Random ids, each row some tokens shorter than the one before."""
    random = np.random.default_rng(rows * width)
    mask = (np.arange(width)[None] < np.maximum(1, width - 3 * np.arange(rows))[:, None]) * 1
    padding = 1 if KINDS[kind].offset else 0
    ids = np.where(mask, random.integers(5, 200, (rows, width)), padding)
    return {"input_ids": ids, "attention_mask": mask}


def check(
    runtime: str, base: Path, adapters: Mapping[str, Path], kind: str, names: Sequence[str]
) -> None:
    """Each row with its own of `names` is what PEFT makes of it."""
    arrays = batch(kind, len(names), 23)
    expected = peft_answer(peft_model(base, adapters), arrays, names)
    numbers = np.array([[BASE, *adapters].index(name) for name in names])
    got = opened(runtime, base, adapters).run({**arrays, "adapter": numbers})["output"]
    real = arrays["attention_mask"] == 1
    np.testing.assert_allclose(got, expected[real], atol=1e-5, rtol=0)
    plain = opened(runtime, base, {}).run(arrays)["output"]
    ends = np.cumsum(real.sum(1))[:-1]
    changed = [np.abs(row).max() > 1e-3 for row in np.split(got - plain, ends)]
    assert changed == [name != BASE for name in names]


@RUNTIME
@KIND
def test_rows_of_one_batch_each_have_their_own(tiny, adapter, kind, runtime):
    adapters = {
        "one": adapter(kind, seed=1, r=4, target_modules=ATTENTION[kind]),
        "two": adapter(kind, seed=2, r=2, lora_alpha=3, target_modules="all-linear"),
    }
    names = ["one", BASE, "two", "two", "one", BASE]
    check(runtime, tiny(kind), adapters, kind, names)


@RUNTIME
@pytest.mark.parametrize(
    "config",
    [
        {"r": 4, "lora_alpha": 3, "use_rslora": True, "target_modules": ["query"]},
        {"r": 3, "target_modules": r".*layer\.1\..*(key|output\.dense)"},
        {
            "r": 4,
            "target_modules": ["query", "dense"],
            "rank_pattern": {"query": 2, r"layer\.1\.attention\.output\.dense": 7},
            "alpha_pattern": {r"^encoder\.layer\.0\..*query": 20, "intermediate.dense": 1},
        },
        {"r": 4, "target_modules": ["value"], "task_type": "FEATURE_EXTRACTION"},
        {"r": 2, "target_modules": ["query"], "layers_to_transform": [1]},
    ],
    ids=["rslora", "regex", "patterns", "task", "layers"],
)
def test_what_the_config_says_is_done(tiny, adapter, config, runtime):
    check(runtime, tiny("bert"), {"a": adapter("bert", seed=3, **config)}, "bert", ["a", "a", BASE])


@RUNTIME
@pytest.mark.parametrize("kind", ["bert", "xlm_roberta", "distilbert", "modernbert"])
def test_classifiers_have_them_too(tiny, adapter, kind, runtime):
    base = {"num_labels": 3}
    folder = adapter(kind, base, seed=4, labels=True, r=4, target_modules="all-linear")
    arrays, names = batch(kind, 3, 11), ["a", BASE, "a"]
    model = peft_model(tiny(kind, **base), {"a": folder}, labels=True)
    session = opened(runtime, tiny(kind, **base), {"a": folder}, Head("logits"))
    got = session.run({**arrays, "adapter": np.array([1, 0, 1])})["output"]
    np.testing.assert_allclose(got, peft_answer(model, arrays, names), atol=1e-5, rtol=0)
    plain = opened(runtime, tiny(kind, **base), {}, Head("logits")).run(arrays)["output"]
    assert np.abs(got - plain).max(axis=1)[[0, 2]].min() > 1e-4


@RUNTIME
@pytest.mark.parametrize("mode", ["cls", "mean"])
@pytest.mark.parametrize(("dtype", "near"), [("f32", 1e-6), ("bf16", 1e-3)])
def test_a_row_without_one_is_the_base_s(tiny, adapter, mode, runtime, dtype, near):
    """In bf16 only as near as two of its roundings are: other operations are fused."""
    adapters = {"a": adapter("bert", seed=1, r=4, target_modules=["query", "value", "dense"])}
    head, arrays = Head("pooled", (Pool((mode,)),)), batch("bert", 4, 16)
    plain = opened(runtime, tiny("bert"), {}, head, dtype).run(arrays)["output"]
    session = opened(runtime, tiny("bert"), adapters, head, dtype)
    got = session.run({**arrays, "adapter": np.array([0, 1, 0, 0])})["output"]
    away = 1 - cosines(got, plain)
    assert away[[0, 2, 3]].max() < near < away[1]
    np.testing.assert_allclose(session.run(arrays)["output"][0], got[0], atol=1e-6, rtol=0)


@RUNTIME
@pytest.mark.parametrize("mode", ["cls", "mean"])
def test_pooled_rows_have_theirs(tiny, adapter, mode, runtime):
    """With "cls" the last layer of some graphs is computed for one token of each row."""
    adapters = {
        "one": adapter("bert", seed=1, r=4, target_modules="all-linear"),
        "two": adapter("bert", seed=2, r=3, target_modules=["query", "dense"]),
    }
    arrays, names = batch("bert", 5, 17), ["two", "one", BASE, "one", "two"]
    states = peft_answer(peft_model(tiny("bert"), adapters), arrays, names)
    mask = arrays["attention_mask"][..., None]
    expected = states[:, 0] if mode == "cls" else (states * mask).sum(1) / mask.sum(1)
    session = opened(runtime, tiny("bert"), adapters, Head("pooled", (Pool((mode,)),)))
    got = session.run({**arrays, "adapter": np.array([2, 1, 0, 1, 2])})["output"]
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def test_int8_leaves_them_whole(tiny, adapter):
    adapters = {"a": adapter("bert", seed=1, r=4, target_modules=["query", "value", "dense"])}
    head, arrays = Head("pooled", (Pool(("mean",)),)), batch("bert", 2, 16)
    both = {**arrays, "adapter": np.array([1, 0])}
    exact = opened("openvino", tiny("bert"), adapters, head).run(both)["output"]
    rounded = opened("openvino", tiny("bert"), adapters, head, "int8").run(both)["output"]
    assert cosines(exact, rounded).min() > 0.98


def test_a_base_whose_tensors_have_a_prefix(tiny, adapter):
    """A classifier's file has "bert." before each name, and an encoder's adapter has not."""
    folder = adapter("bert", {"num_labels": 3}, seed=5, r=4, target_modules=["query"])
    check("openvino", tiny("bert", num_labels=3), {"a": folder}, "bert", ["a", BASE])


@RUNTIME
@pytest.mark.parametrize("numbers", [[0, 2], [-1, 0], [1], [[1], [0]]])
def test_a_number_that_is_none_of_theirs_is_refused(tiny, adapter, runtime, numbers):
    session = opened(runtime, tiny("bert"), {"a": adapter("bert", target_modules=["query"])})
    with pytest.raises(ValueError, match="adapters are 0 to 1 here, one for each row"):
        session.run({**batch("bert", 2, 5), "adapter": np.array(numbers)})


@RUNTIME
def test_an_adapter_for_another_model_is_refused(tiny, adapter, tmp_path, runtime):
    wide = build_adapter(tiny("bert", hidden_size=48), tmp_path / "wide", target_modules=["query"])
    with pytest.raises(CheckpointError, match=r"^adapter a: '.*query' is 48 x 48, and 32 x 32 in"):
        opened(runtime, tiny("bert"), {"a": wide})
    other = adapter("distilbert", target_modules=["q_lin"])
    with pytest.raises(CheckpointError, match=r"^adapter a: its base has no linear layer .*q_lin"):
        opened(runtime, tiny("bert"), {"a": other})


def test_workers_have_them_too(tiny, adapter, tmp_path):
    from omnivec.runtimes._torch.workers import Workers

    base, folder = tiny("bert"), adapter("bert", seed=1, r=4, target_modules=["query"])
    checkpoint = Checkpoint("tiny", base, adapters=[Adapter("a", folder)])
    arrays = {**batch("bert", 2, 7), "adapter": np.array([1, 0])}
    expected = opened("torch", base, {"a": folder}).run(arrays)["output"]
    workers = Workers(checkpoint, TOKENS, ["cpu"], "f32")
    try:
        np.testing.assert_allclose(workers.run(arrays)["output"], expected, atol=1e-5, rtol=0)
    finally:
        workers.close()
    broken = shutil.copytree(folder, tmp_path / "broken")
    adapters = [Adapter("a", broken)]
    (broken / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"adapter a: .* has no adapter_config.json"):
        Workers(Checkpoint("tiny", base, adapters=adapters), TOKENS, ["cpu"], "f32")
