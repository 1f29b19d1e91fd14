"""The fake runtime through the families that claim its models: numbers and faults."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import omnivec
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.nouns import Text, Unit
from omnivec.core.seams import Model, SessionLost
from omnivec.core.steps import Head, Pool, Vocabulary
from omnivec.families.cross_encoder import PLUGIN as CROSS_ENCODER
from omnivec.families.encoder import PLUGIN as ENCODER
from omnivec.runtimes.fake import PLUGIN

MODELS = Path(omnivec.__file__).parent / "models"
TEXTS = ["a", "", "two words", "日本語", "a\0b 😀", "word " * 1000]


def checkpoint(name: str = "fake", **options: str) -> Checkpoint:
    return Checkpoint(name, MODELS / name, options=options)


def model(**options: str) -> Model:
    made = checkpoint(**options)
    (head,) = ENCODER.graphs(made).values()
    return ENCODER.ready(made, {"main": PLUGIN.open(made, "main", head, "auto", "auto")})


def embed(made: Model, *texts: str) -> np.ndarray:
    features = made.prepare([Unit(parts=(Text(text),)) for text in texts])
    return np.stack([output.dense for output in made.forward(features)])


def test_the_families_claim_the_fakes() -> None:
    assert ENCODER.claims(checkpoint())
    assert not CROSS_ENCODER.claims(checkpoint())
    assert CROSS_ENCODER.claims(checkpoint("fake-reranker"))
    card = ENCODER.card(checkpoint(dims="8"))
    assert (card.dims, card.max_tokens, card.vocabulary) == (8, 512, 1024)
    assert PLUGIN.can(checkpoint(), "main", Head("logits"), "cpu") is None
    assert PLUGIN.can(Checkpoint("x", MODELS), "main", Head("logits"), "cpu")


def test_numbers_repeat_alone_and_in_any_batch() -> None:
    together = embed(model(dims="8"), *TEXTS)
    assert together.shape == (6, 8)
    assert together.dtype == np.float32
    np.testing.assert_array_equal(
        np.concatenate([embed(model(dims="8"), text) for text in TEXTS]), together
    )
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=0, atol=1e-6)
    assert len({row.tobytes() for row in together}) == len(TEXTS)


def test_numbers_are_the_same_on_every_machine() -> None:
    expected = [-0.44853222, 0.73372877, 0.51035374]
    np.testing.assert_allclose(embed(model(dims="3"), "hello")[0], expected, rtol=0, atol=1e-6)


def test_the_reranker_scores() -> None:
    made = checkpoint("fake-reranker")
    (head,) = CROSS_ENCODER.graphs(made).values()
    session = PLUGIN.open(made, "main", head, "auto", "auto")
    reranker = CROSS_ENCODER.ready(made, {"main": session})
    units = [Unit(parts=(Text("q"),), other=(Text(text),)) for text in TEXTS]
    scores = reranker.forward(reranker.prepare(units))
    assert len({score.raw for score in scores}) == len(TEXTS)
    assert all(0 < score.value < 1 and -4 <= score.raw <= 4 for score in scores)


def test_hidden_states_can_be_had() -> None:
    session = PLUGIN.open(checkpoint(dims="5"), "main", Head("tokens"), "cpu", "f32")
    arrays = {"input_ids": np.array([[7, 8, 0]]), "attention_mask": np.array([[1, 1, 0]])}
    output = session.run(arrays)["output"]
    assert output.shape == (2, 5)
    arrays["output_mask"] = np.array([[0, 1, 0]])
    np.testing.assert_array_equal(session.run(arrays)["output"], output[1:])


def test_words_can_be_had() -> None:
    head = Head("words", (Vocabulary("max", "log1p_relu"),))
    session = PLUGIN.open(checkpoint(), "main", head, "cpu", "f32")
    arrays = {"input_ids": np.array([[8, 7, 8], [9, 0, 0]])}
    arrays["attention_mask"] = np.array([[1, 1, 1], [1, 0, 0]])
    found = session.run(arrays)
    assert found["rows"].tolist() == [0, 0, 1]
    assert found["columns"].tolist() == [7, 8, 9]
    assert found["output"].shape == (3,)
    assert (found["output"] > 0).all()


def test_options_reach_the_session() -> None:
    made = model(streams="3", batch_cost="99", padded="off")
    assert (made.streams, made.batch_cost, made.padding) == (3, 99, 0.0)
    plain = model()
    assert (plain.streams, plain.batch_cost, plain.padding) == (1, 1024, 1.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"colour": "red"}, "no option 'colour'; there are dims, slow"),
        ({"dims": "0"}, "whole numbers from 1"),
        ({"dims": "many"}, "whole numbers from 1"),
        ({"slow": "-1"}, "seconds"),
        ({"slow": "nan"}, "seconds"),
        ({"faults": "perhaps"}, "on and off"),
    ],
)
def test_an_option_of_no_use_is_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        PLUGIN.open(checkpoint(**options), "main", Head("logits"), "cpu", "f32")


# ── faults ───────────────────────────────────────────────────────────────────────────────


def test_markers_do_nothing_unless_asked() -> None:
    vectors = embed(model(), "[[raise]]", "[[nan]]", "[[crash]]", "[[hang]]")
    assert np.isfinite(vectors).all()


def test_raise_fails_the_batch_that_holds_it() -> None:
    made = model(faults="on")
    with pytest.raises(RuntimeError, match="marked item"):
        embed(made, "good", "so [[raise]] it is")
    assert np.isfinite(embed(made, "good")).all()


def test_nan_is_one_rows() -> None:
    made = model(faults="on")
    vectors = embed(made, "good", "[[nan]]", "fine")
    assert np.isnan(vectors[1]).all()
    np.testing.assert_array_equal(vectors[[0, 2]], embed(made, "good", "fine"))


def test_crash_lasts_until_it_is_reopened() -> None:
    made = model(faults="on")
    for text in ("[[crash]]", "good", "good"):
        with pytest.raises(SessionLost):
            embed(made, text)
    assert np.isfinite(embed(model(faults="on"), "good")).all()


def test_hang_lasts_until_the_session_is_closed() -> None:
    made = model(faults="on")
    raised: list[BaseException] = []

    def hang() -> None:
        try:
            embed(made, "[[hang]]")
        except SessionLost as error:
            raised.append(error)

    thread = threading.Thread(target=hang)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    made.close()
    thread.join(60)
    assert not thread.is_alive()
    assert len(raised) == 1


def test_hang_can_end_by_itself() -> None:
    assert np.isfinite(embed(model(faults="on", hang="0.01"), "[[hang]]")).all()


@pytest.mark.parametrize(
    ("options", "text"), [({"slow": "0.05"}, "any"), ({"faults": "on"}, "[[slow]]")]
)
def test_slow_takes_its_time(options: dict[str, Any], text: str) -> None:
    made = model(**options)
    began = time.monotonic()
    embed(made, text)
    assert time.monotonic() - began >= 0.05


def test_opening_takes_its_time() -> None:
    began = time.monotonic()
    assert np.isfinite(embed(model(load="0.05"), "any")).all()
    assert time.monotonic() - began >= 0.05


def test_a_pooling_of_several_modes_needs_no_more() -> None:
    session = PLUGIN.open(
        checkpoint(dims="4"), "main", Head("pooled", (Pool(("mean",)),)), "cuda", "bf16"
    )
    assert PLUGIN.describe(session) == ("cpu", "f32")
    assert PLUGIN.memory() == 0
