"""What torch sessions do for models that see or answer yes or no: pictures among a batch's texts,
and the difference of two words' logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from omnivec.core import heads
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.steps import Contrast, Head, Pool, Scale
from omnivec.families.blip2 import PLUGIN as BLIP2
from omnivec.families.colpali import PLUGIN as COLPALI
from omnivec.families.qwen3_vl import PLUGIN as QWEN3_VL
from omnivec.runtimes._torch.sight import Sight, padded_patches, patches, whole
from omnivec.runtimes._torch.workers import Workers
from omnivec.runtimes.openvino import PLUGIN as OPENVINO
from omnivec.runtimes.torch import PLUGIN
from seeing import (
    build_blip2,
    build_colpali,
    build_colqwen2,
    build_qwen3_vl,
    film,
    picture,
    qwen_tokenizer,
    unit,
)

if TYPE_CHECKING:
    from pathlib import Path

ANSWER = Head("contrast", (Pool(("last",)), Contrast(71, 90)))
SCALE = Scale(1 / 255, (0.4, 0.5, 0.6), (0.3, 0.2, 0.1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_qwen3_vl(tmp_path_factory.mktemp("seeing"))


def prepared(folder: Path, session: Any, *units: Any) -> dict[str, np.ndarray]:
    model = QWEN3_VL.ready(Checkpoint("tiny", folder), {"main": session})
    return model._reader.pack(model.prepare(units))


def test_workers_show_pictures_as_one_session_does(folder: Path) -> None:
    checkpoint = Checkpoint("tiny", folder)
    head = QWEN3_VL.graphs(checkpoint)["main"]
    single = PLUGIN.open(checkpoint, "main", head, "cpu", "f32")
    workers = Workers(checkpoint, head, ["cpu"], "f32")
    try:
        arrays = prepared(folder, single, unit("a", picture(40, 60)), unit(film(2)), unit("b"))
        assert arrays["pixel_values"].dtype == np.uint8
        found = workers.run(arrays)["output"]
    finally:
        workers.close()
    np.testing.assert_allclose(found, single.run(arrays)["output"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
@pytest.mark.parametrize(
    ("build", "family"),
    [
        (build_qwen3_vl, QWEN3_VL),
        (build_colpali, COLPALI),
        (build_colqwen2, COLPALI),
        (build_blip2, BLIP2),
    ],
)
def test_half_numbers_see_nearly_the_same(
    tmp_path: Path, build: Any, family: Any, dtype: str
) -> None:
    checkpoint = Checkpoint("tiny", build(tmp_path))
    units = [unit(part, kinds=("multivector", "dense")) for part in (picture(60, 80), "a fox")]
    found = {}
    for kind in ("f32", dtype):
        sessions = {
            name: PLUGIN.open(checkpoint, name, one, "cpu", kind)
            for name, one in family.graphs(checkpoint).items()
            if not one.spare
        }
        model = family.ready(checkpoint, sessions)
        outputs = [model.forward(model.prepare([one]))[0] for one in units]
        found[kind] = [one.multivector if one.dense is None else one.dense for one in outputs]
    for half, whole_ in zip(found[dtype], found["f32"], strict=True):
        assert half.dtype == np.float32
        np.testing.assert_allclose(half, whole_, rtol=0, atol=0.05 * np.abs(whole_).max())


def test_a_session_survives_pictures_that_are_not_where_the_text_says(folder: Path) -> None:
    checkpoint = Checkpoint("tiny", folder)
    head = QWEN3_VL.graphs(checkpoint)["main"]
    session = PLUGIN.open(checkpoint, "main", head, "cpu", "f32")
    arrays = prepared(folder, session, unit("a", picture(40, 60)))
    expected = session.run(arrays)["output"]
    with pytest.raises(Exception, match=r"[Tt]oken"):
        session.run({**arrays, "input_ids": np.full_like(arrays["input_ids"], 9)})
    np.testing.assert_array_equal(session.run(arrays)["output"], expected)


def test_a_head_without_a_scale_is_shown_nothing(folder: Path) -> None:
    checkpoint = Checkpoint("tiny", folder)
    session = PLUGIN.open(checkpoint, "main", Head("pooled", (Pool(("last",)),)), "cpu", "f32")
    arrays = prepared(folder, session, unit("a", picture(40, 60)))
    with pytest.raises(ValueError, match="scale"):
        session.run(arrays)
    assert session.run(prepared(folder, session, unit("a")))["output"].shape == (1, 32)


def test_bytes_are_scaled_as_the_reference_says() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)
    expected = heads.scaled(SCALE, pixels)
    layer = torch.nn.Linear(2, 2)
    model = type("Model", (), {"device": layer.weight.device, "dtype": torch.float32})
    found = Sight(SCALE, patches, model).show(torch.from_numpy(pixels), None)
    np.testing.assert_allclose(found, expected.transpose(0, 2, 1).reshape(6, 12), atol=1e-6)


def test_pictures_lie_as_each_architecture_wants_them() -> None:
    pixels = torch.arange(5 * 4 * 3).reshape(5, 4, 3)
    flat = patches(pixels, None)
    assert flat[1].tolist() == [*range(12, 24, 3), *range(13, 24, 3), *range(14, 24, 3)]
    rows = padded_patches(pixels, np.array([[1, 1, 2], [1, 3, 1]]))
    assert rows.shape == (2, 3, 12)
    assert torch.equal(rows[0, :2], flat[:2])
    assert not rows[0, 2].any()
    assert torch.equal(rows[1], flat[2:])
    assert whole(torch.zeros(2, 5, 4, 3), None).shape == (2, 3, 5, 4)
    with pytest.raises(ValueError, match="grids"):
        padded_patches(pixels, None)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder, tokens = tmp_path_factory.mktemp("qwen3"), qwen_tokenizer()
    config = Qwen3Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=64,
        vocab_size=len(tokens),
        initializer_range=0.3,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def test_two_words_are_compared_as_a_language_model_would(decoder: Path) -> None:
    from transformers import AutoModelForCausalLM

    mask = (np.arange(9)[None] < np.array([[9], [4], [1]])).astype(np.int64)
    ids = np.random.default_rng(0).integers(7, 400, mask.shape) * mask
    session = PLUGIN.open(Checkpoint("tiny", decoder), "main", ANSWER, "cpu", "f32")
    found = session.run({"input_ids": ids, "attention_mask": mask})["output"]
    oracle = AutoModelForCausalLM.from_pretrained(decoder).eval()
    for row, one in enumerate(mask):
        with torch.inference_mode():
            logits = oracle(torch.from_numpy(ids[row : row + 1, : one.sum()])).logits[0, -1]
        np.testing.assert_allclose(found[row], [logits[71] - logits[90]], rtol=0, atol=1e-5)


def test_a_model_that_does_not_speak_is_no_judge(tiny: Any) -> None:
    checkpoint = Checkpoint("tiny", tiny("mpnet"))
    with pytest.raises(CheckpointError):
        PLUGIN.open(checkpoint, "main", ANSWER, "cpu", "f32")
    assert "torch" in str(OPENVINO.can(Checkpoint("tiny", tiny("bert")), "main", ANSWER, "cpu"))


def test_the_reference_has_no_language_model() -> None:
    with pytest.raises(ValueError, match="contrast"):
        heads.apply(ANSWER, np.zeros((1, 1, 4), np.float32), np.ones((1, 1)), {})
