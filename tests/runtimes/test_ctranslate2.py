"""CTranslate2's encoders against transformers, in float32, on tiny random checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading

import numpy as np
import pytest

from checkpoints import KINDS, SENTENCES, TANH, drop_tensor
from omnivec.core.adapter import Adapter
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.heads import apply
from omnivec.core.machine import cores
from omnivec.core.seams import SessionLost
from omnivec.core.steps import Contrast, Dense, Head, Normalize, Pool, Vocabulary
from omnivec.runtimes.ctranslate2 import PLUGIN

OURS = ("bert", "camembert", "distilbert", "roberta", "xlm_roberta")
SHAPES = ((1, 1), (3, 7), (4, 33), (2, 60))  # rows, width
DENSE = "2_Dense/model.safetensors"
MEAN = Head("pooled", (Pool(("mean",)), Normalize()))
EACH = Head("pooled", (Pool(("cls",)),), also={"each": Head("tokens")})

kinds = pytest.mark.parametrize("kind", OURS)


def opened(folder, head=MEAN, dtype="f32"):
    return PLUGIN.open(Checkpoint("tiny", folder), "encoder", head, "cpu", dtype)


def batch(kind, rows, width, padding=None):
    """Random ids, each row some tokens shorter than the one before, and segments if any."""
    random = np.random.default_rng(rows * width)
    lengths = np.maximum(1, width - 3 * np.arange(rows))[:, None]
    places = np.arange(width)[None]
    mask = (places < lengths).astype(np.int64)
    padding = int(KINDS[kind].offset > 0) if padding is None else padding
    ids = np.where(mask, random.integers(5, 200, (rows, width)), padding)
    arrays = {"input_ids": ids, "attention_mask": mask}
    if KINDS[kind].segments:
        arrays["token_type_ids"] = (places > width // 2).astype(np.int64) * mask
    return arrays


def reference(folder, arrays, kind="AutoModel"):
    import torch
    import transformers

    model = getattr(transformers, kind).from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(**{name: torch.from_numpy(array) for name, array in arrays.items()})


def close(got, expected):
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


def check_hidden(folder, arrays):
    mask = arrays["attention_mask"]
    expected = reference(folder, arrays).last_hidden_state.float().numpy()
    got = opened(folder, EACH).run({**arrays, "each_mask": mask})
    assert got["each"].dtype == got["output"].dtype == np.float32
    close(got["each"], expected[mask == 1])
    close(got["output"], expected[:, 0])


# ── the numbers ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@kinds
def test_hidden_states_are_those_of_transformers(tiny, kind, shape):
    check_hidden(tiny(kind), batch(kind, *shape))


@pytest.mark.parametrize("act", ["gelu_new", "gelu_pytorch_tanh", "relu", "silu", "quick_gelu"])
def test_other_activations(tiny, act):
    check_hidden(tiny("bert", config={"hidden_act": act}), batch("bert", 2, 9))


def test_another_epsilon_and_another_padding(tiny):
    check_hidden(tiny("bert", config={"layer_norm_eps": 0.1}), batch("bert", 2, 9))
    folder = tiny("roberta", config={"pad_token_id": 3}, positions=66)
    check_hidden(folder, batch("roberta", 2, 9, padding=3))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_half_precision_and_in_several_files(tiny, dtype):
    import torch
    import transformers

    folder, arrays = tiny("bert", dtype=dtype, shards=True), batch("bert", 2, 9)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        told = {name: torch.from_numpy(array) for name, array in arrays.items()}
        expected = model(**told).last_hidden_state.numpy()
    close(opened(folder, EACH).run(arrays)["output"], expected[:, 0])


@pytest.mark.parametrize("labels", [1, 3])
@kinds
def test_logits_are_those_of_transformers(tiny, kind, labels):
    folder = tiny(kind, num_labels=labels)
    session = opened(folder, Head("logits"))
    for shape in SHAPES:
        arrays = batch(kind, *shape)
        expected = reference(folder, arrays, "AutoModelForSequenceClassification").logits.numpy()
        close(session.run(arrays)["output"], expected)


@kinds
def test_a_row_is_the_same_alone_and_in_any_batch(tiny, kind):
    for folder, head in ((tiny(kind), MEAN), (tiny(kind, num_labels=2), Head("logits"))):
        session, arrays = opened(folder, head), batch(kind, 5, 40)
        together = session.run(arrays)["output"]
        for row, length in enumerate(arrays["attention_mask"].sum(1)):
            one = {name: array[row : row + 1, :length] for name, array in arrays.items()}
            close(session.run(one, alone=True)["output"][0], together[row])


@kinds
def test_a_whole_model_is_that_of_sentence_transformers(tiny, kind):
    from sentence_transformers import SentenceTransformer

    pooling = ("cls", "weightedmean")
    folder = tiny(kind, pooling=pooling, dense=((24, TANH),))
    model = SentenceTransformer(str(folder), device="cpu")
    told = model.tokenizer(list(SENTENCES), padding=True, truncation=True, return_tensors="np")
    head = Head("pooled", (Pool(pooling), Dense(DENSE, TANH), Normalize()))
    got = opened(folder, head).run(dict(told))["output"]
    close(got, model.encode(list(SENTENCES), batch_size=len(SENTENCES)))


def test_a_cross_encoder_is_that_of_sentence_transformers(tiny):
    from sentence_transformers import CrossEncoder

    folder = tiny("bert", num_labels=1, activation="torch.nn.modules.linear.Identity")
    pairs = [(SENTENCES[0], text) for text in SENTENCES]
    model = CrossEncoder(str(folder), device="cpu")
    told = model.tokenizer(pairs, padding=True, truncation=True, return_tensors="np")
    assert told["token_type_ids"].any()
    got = opened(folder, Head("logits")).run(dict(told))["output"]
    close(got[:, 0], model.predict(pairs))


def test_several_outputs_come_from_one_pass(tiny):
    from safetensors.numpy import load_file

    folder, arrays = tiny("xlm_roberta", dense=((24, TANH),)), batch("xlm_roberta", 4, 12)
    mask = arrays["attention_mask"]
    hidden = reference(folder, arrays).last_hidden_state.numpy()
    relu = "torch.nn.modules.activation.ReLU"
    also = {"weight": Head("tokens", (Dense(DENSE, relu),)), "each": Head("tokens")}
    session = opened(folder, Head("pooled", (Pool(("cls",)),), also=also))
    wanted = mask * (np.arange(12) % 2)
    got = session.run({**arrays, "weight_mask": wanted})
    weights = {DENSE: load_file(folder / DENSE)}
    close(got["weight"], apply(also["weight"], hidden, mask, weights, output_mask=wanted))
    assert got["each"].shape == (0, 32)


def test_what_is_not_pooled(tiny):
    folder, arrays = tiny("bert"), batch("bert", 3, 12)
    arrays["pool_mask"] = arrays["attention_mask"] * (np.arange(12) > 2)
    hidden = {name: array for name, array in arrays.items() if name != "pool_mask"}
    states = reference(folder, hidden).last_hidden_state.numpy()
    expected = apply(MEAN, states, arrays["attention_mask"], {}, arrays["pool_mask"])
    close(opened(folder).run(arrays)["output"], expected)


def test_a_row_without_tokens_gives_zeros(tiny):
    session, arrays = opened(tiny("bert")), batch("bert", 3, 40)
    expected = session.run(arrays)["output"]
    arrays["attention_mask"][1] = 0
    got = session.run(arrays)["output"]
    assert not got[1].any()
    close(got[[0, 2]], expected[[0, 2]])
    arrays["attention_mask"][:] = 0
    assert not session.run(arrays)["output"].any()


def test_a_model_with_segments_takes_none(tiny):
    session, arrays = opened(tiny("bert")), batch("bert", 2, 9)
    zeros = {**arrays, "token_type_ids": np.zeros((2, 9), np.int64)}
    arrays.pop("token_type_ids")
    np.testing.assert_array_equal(session.run(arrays)["output"], session.run(zeros)["output"])


def test_int8_is_near(tiny):
    folder, arrays = tiny("bert", hidden_size=128), batch("bert", 4, 33)
    session = opened(folder, dtype="int8")
    assert PLUGIN.describe(session) == ("cpu", "int8")
    got, expected = session.run(arrays)["output"], opened(folder).run(arrays)["output"]
    assert 0.98 < (got * expected).sum(1).min() < 0.999999


def test_a_dtype_that_the_processor_has_not_is_computed_in_f32(tiny, caplog):
    session = opened(tiny("bert"), dtype="f16")
    assert PLUGIN.describe(session) == ("cpu", "f32")
    assert "in f32 on this processor, not in f16" in caplog.text
    assert PLUGIN.describe(opened(tiny("bert"), dtype="auto")) == ("cpu", "f32")


# ── what it has not ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "config", "head", "why"),
    [
        ("modernbert", {}, MEAN, "nothing for 'modernbert' .it has bert, camembert"),
        ("mpnet", {}, MEAN, "nothing for 'mpnet'"),
        ("bert", {"is_decoder": True}, MEAN, "no causal attention"),
        ("bert", {"hidden_act": "tanh"}, MEAN, "no activation 'tanh'"),
        ("bert", {}, Head("tokens"), "late interaction"),
        ("bert", {}, Head("words", (Vocabulary("max", "relu"),)), "no language model's head"),
        ("bert", {}, Head("contrast", (Pool(("last",)), Contrast(1))), "encoders only"),
        ("bert", {}, Head("pooled", MEAN.steps, also={"x": MEAN}), "one vector for each row"),
    ],
    ids=str,
)
def test_what_it_does_not_compute_is_refused_with_the_remedy(tiny, kind, config, head, why):
    checkpoint = Checkpoint("tiny", tiny(kind, config=config))
    said = PLUGIN.can(checkpoint, "encoder", head, "cpu")
    assert said.startswith("the ctranslate2 runtime ")
    assert said.endswith("; use --runtime openvino, or torch")
    with pytest.raises(CheckpointError, match=why):
        PLUGIN.open(checkpoint, "encoder", head, "cpu", "f32")


def test_relative_positions_and_adapters_are_refused(tiny, adapter, tmp_path):
    shutil.copytree(tiny("bert"), tmp_path, dirs_exist_ok=True)
    config = tmp_path / "config.json"
    told = config.read_text()
    config.write_text(told.replace("{", '{"position_embedding_type": "relative_key",', 1))
    said = PLUGIN.can(Checkpoint("tiny", tmp_path), "encoder", MEAN, "cpu")
    assert "'position_embedding_type'" in said
    one = Adapter("one", adapter("bert", r=2, target_modules=["query"]))
    adapted = Checkpoint("tiny", tiny("bert"), adapters=[one])
    assert "no LoRA adapters" in PLUGIN.can(adapted, "encoder", MEAN, "cpu")


def test_it_runs_on_the_cpu_and_with_its_extra(tiny, monkeypatch):
    checkpoint = Checkpoint("tiny", tiny("bert"))
    assert "use --device cpu" in PLUGIN.can(checkpoint, "encoder", MEAN, "cuda")
    assert PLUGIN.can(checkpoint, "encoder", MEAN, "auto") is None
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(CheckpointError, match=r"pip install 'omnivec\[ctranslate2\]'"):
        opened(tiny("bert"))


def test_files_that_are_no_model_are_refused(tiny, tmp_path):
    shutil.copytree(tiny("bert"), tmp_path / "one")
    drop_tensor(tmp_path / "one" / "model.safetensors", "encoder.layer.1.output.dense.bias")
    with pytest.raises(CheckpointError, match=r"encoder.layer.1.output.dense.bias' is not among"):
        opened(tmp_path / "one")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("num_attention_heads", None, r"config\.json lacks or garbles"),
        ("num_attention_heads", 0, "number of attention heads"),
        ("num_attention_heads", 3, "number of attention heads"),
        ("num_attention_heads", 99999, "number of attention heads"),
        ("num_hidden_layers", "many", r"config\.json lacks or garbles"),
        ("num_hidden_layers", 0, "CTranslate2 refused the model"),
        ("num_hidden_layers", 3, "encoder.layer.2.attention.self.query.weight' is not among"),
        ("hidden_act", ["gelu"], "no activation"),
        ("intermediate_size", 63, "config.json says 63 x 32"),
        ("layer_norm_eps", "small", "CTranslate2 refused the model"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tiny, tmp_path, name, value, why):
    shutil.copytree(tiny("bert"), tmp_path, dirs_exist_ok=True)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), name: value}))
    with pytest.raises(CheckpointError, match=why):
        opened(tmp_path)


# ── sessions ─────────────────────────────────────────────────────────────────────────────


def test_a_session_says_how_it_wants_to_be_used(tiny):
    session = opened(tiny("bert"))
    assert (session.padding, session.streams) == (0.2, cores())
    assert session.batch_cost >= 512
    assert PLUGIN.memory() == 0
    assert PLUGIN.accelerators() == ()


def test_about_what_it_takes(tiny):
    files = {dtype: tiny("bert", dtype=dtype) for dtype in ("float32", "bfloat16")}
    plain, half = (Checkpoint("tiny", folder) for folder in files.values())
    least = PLUGIN.weigh(plain, "encoder", "int8")
    taken = PLUGIN.weigh(plain, "encoder", "f32") - least
    assert least > 0
    assert taken == pytest.approx(plain.size() * 3 / 4, abs=2)
    assert PLUGIN.weigh(half, "encoder", "auto") - least == pytest.approx(taken, rel=0.2)


def test_many_threads_get_each_their_own_answer(tiny):
    session = opened(tiny("bert"))
    batches = [batch("bert", 1 + index % 3, 5 + index) for index in range(12)]
    expected = [session.run(arrays)["output"] for arrays in batches]
    right = []

    def work(index):
        for _ in range(20):
            got = session.run(batches[index])["output"]
            right.append(np.allclose(got, expected[index], atol=1e-6))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 20 * len(batches)


def test_what_would_read_past_a_table_is_refused_and_the_next_batch_is_answered(tiny):
    session, arrays = opened(tiny("bert")), batch("bert", 2, 9)
    before = session.run(arrays)["output"]
    for bad in (10_000, -1, 2**40):
        with pytest.raises(ValueError, match="token id"):
            session.run({**arrays, "input_ids": np.full((2, 9), bad)})
    with pytest.raises(ValueError, match="segment"):
        session.run({**arrays, "token_type_ids": np.full((2, 9), 2)})
    with pytest.raises(ValueError, match="64 tokens"):
        session.run(batch("bert", 1, 65))
    np.testing.assert_array_equal(session.run(arrays)["output"], before)


@kinds
def test_padding_may_reach_past_the_last_position(tiny, kind):
    session, arrays = opened(tiny(kind, positions=30)), batch(kind, 2, 30)
    wide = {name: np.pad(array, ((0, 0), (0, 2))) for name, array in arrays.items()}
    close(session.run(wide)["output"], session.run(arrays)["output"])


def test_what_is_no_batch_for_it_is_refused(tiny):
    session, arrays = opened(tiny("bert"), EACH), batch("bert", 2, 9)
    for shape in ((0, 4), (2, 0)):
        with pytest.raises(ValueError, match="B, T"):
            session.run(dict.fromkeys(arrays, np.zeros(shape, np.int64)))
    with pytest.raises(ValueError, match="share one shape"):
        session.run({**arrays, "each_mask": np.ones((2, 3), np.int64)})
    with pytest.raises(ValueError, match="at the end of a row"):
        session.run({**arrays, "attention_mask": arrays["attention_mask"][:, ::-1]})
    with pytest.raises(ValueError, match="not attended to"):
        session.run({**arrays, "each_mask": np.ones((2, 9), np.int64)})


def test_a_closed_session_says_so(tiny):
    session = opened(tiny("bert"))
    session.close()
    session.close()
    for _ in range(3):
        with pytest.raises(SessionLost):
            session.run(batch("bert", 1, 4))


def test_closing_waits_for_the_batches_that_run(tiny):
    session, arrays = opened(tiny("bert", hidden_size=128)), batch("bert", 40, 60)
    answers = []

    def ask():
        try:
            answers.append(session.run(arrays)["output"].shape)
        except SessionLost:
            answers.append("lost")
        return answers[-1]

    def work():
        while ask() != "lost":
            pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(answers) < 8:
        threading.Event().wait(0.001)
    session.close()
    for thread in threads:
        thread.join()
    assert answers.count("lost") == 4
    assert set(answers) == {(40, 128), "lost"}


def test_what_is_closed_leaves_nothing(tiny, tmp_path):
    script = """
import ctypes, gc, sys
from pathlib import Path
import numpy as np
from omnivec.core.checkpoint import Checkpoint
from omnivec.core.steps import Head
from omnivec.runtimes.ctranslate2 import PLUGIN

def state():
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)  # as the engine does it
    size = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    return len(list(Path("/proc/self/task").iterdir())), size

for _ in range(4):
    checkpoint = Checkpoint("tiny", Path(sys.argv[1]))
    session = PLUGIN.open(checkpoint, "encoder", Head("logits"), "cpu", "f32")
    assert list(Path(sys.argv[2]).iterdir()) == []
    ones = np.ones((2, 9), np.int64)
    session.run({"input_ids": ones, "attention_mask": ones})
    print(*state())
    session.close()
    print(*state())
"""
    folder = tiny("bert", num_labels=1, config={"vocab_size": 300_000})
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), str(tmp_path)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    states = np.array([line.split() for line in done.stdout.splitlines()], int)
    opened_, closed = states[::2], states[1::2]
    weights = folder.joinpath("model.safetensors").stat().st_size
    assert (opened_ - closed >= (cores(), 0.9 * weights)).all()
    assert np.ptp(closed[:, 0]) == 0
    assert np.ptp(closed[:, 1]) < weights / 4


def test_without_room_for_a_copy_it_says_so(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(CheckpointError, match="set TMPDIR to a folder"):
        opened(tiny("bert"))


def test_it_brings_no_other_library_along(tiny):
    script = """
import sys
from pathlib import Path
from omnivec.core.checkpoint import Checkpoint
from omnivec.core.steps import Head
from omnivec.runtimes.ctranslate2 import PLUGIN
assert "ctranslate2" not in sys.modules, "imported too early"
PLUGIN.open(Checkpoint("tiny", Path(sys.argv[1])), "encoder", Head("logits"), "cpu", "f32")
print({"ctranslate2", "openvino", "torch", "transformers"} & sys.modules.keys())
"""
    told = [sys.executable, "-c", script, str(tiny("bert", num_labels=1))]
    done = subprocess.run(told, capture_output=True, text=True, check=True)
    assert done.stdout == "{'ctranslate2'}\n"
