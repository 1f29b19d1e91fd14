"""What an open graph takes: copies, tables of embeddings, batches at once."""

from __future__ import annotations

import json

import pytest

from omnivec.core.checkpoint import Checkpoint
from omnivec.runtimes._openvino import footprint
from omnivec.runtimes._openvino.footprint import SCRATCH, SPARE, parallel, weigh

COUNT = 600_000_000  # weights, of which so many are word embeddings:
WORDS = 150_000_000


@pytest.fixture
def large(tmp_path):
    """`large(bytes_each, **config)`: a checkpoint of COUNT weights, of which the disk has none."""

    def make(each, **config):
        told = {"model_type": "qwen3", "vocab_size": 150_000, "hidden_size": 1000, **config}
        (tmp_path / "config.json").write_text(json.dumps(told))
        with (tmp_path / "model.safetensors").open("wb") as file:
            file.truncate(COUNT * each)
        return Checkpoint("large", tmp_path)

    return make


def held(checkpoint, precision):
    """Bytes of packed weights, for one that is held once."""
    return (weigh(checkpoint, 2, precision) - SCRATCH) / SPARE


def test_a_large_decoder_is_held_once_in_bf16(large):
    checkpoint = large(2, torch_dtype="bfloat16")
    assert held(checkpoint, "bf16") == pytest.approx(2 * (COUNT - WORDS))
    assert held(checkpoint, "int8") == pytest.approx(COUNT - WORDS)


@pytest.mark.parametrize(("each", "dtype", "copies"), [(4, "float32", 1), (2, "bfloat16", 2)])
def test_half_precision_that_is_widened_is_packed_twice(large, each, dtype, copies):
    assert held(large(each, dtype=dtype), "f32") == pytest.approx(4 * copies * (COUNT - WORDS))


def test_output_embeddings_stay_in_the_file(large):
    told = {"torch_dtype": "bfloat16", "architectures": ["Qwen3ForCausalLM"]}
    untied = held(large(2, **told, tie_word_embeddings=False), "bf16")
    assert untied == pytest.approx(2 * (COUNT - 2 * WORDS))
    assert held(large(2, **told, tie_word_embeddings=True), "bf16") > untied


def test_of_a_model_that_sees_the_language_model_is_weighed(large):
    told = {"vocab_size": 150_000, "hidden_size": 1000, "num_hidden_layers": 30}
    text = {**told, "intermediate_size": 4500}
    image = {"depth": 5, "hidden_size": 1000, "intermediate_size": 4500}
    sees = {"model_type": "qwen3_vl", "text_config": text, "vision_config": image}
    checkpoint = large(2, **sees, dtype="bfloat16").part("text")
    assert checkpoint.share == pytest.approx((150 + 30 * 13) / (150 + 35 * 13))
    language = COUNT * checkpoint.share - WORDS
    assert held(checkpoint, "bf16") == pytest.approx(2 * language, rel=1e-6)


def test_a_large_decoder_has_all_cores_for_one_batch(large, monkeypatch):
    checkpoint = large(2, torch_dtype="bfloat16")
    assert parallel(checkpoint, 8) == 1
    monkeypatch.setattr(footprint, "SMALL", (COUNT - WORDS) * 2)
    assert parallel(checkpoint, 8) == 8


def test_a_decoder_that_is_mostly_embeddings_is_not_large(large):
    """As EmbeddingGemma: 303 million weights in float32, of which 201 are looked up."""
    checkpoint = large(2, torch_dtype="bfloat16", vocab_size=400_000)
    assert checkpoint.size() > footprint.SMALL
    assert parallel(checkpoint, 8) == 8


def test_other_models_have_a_batch_for_each_core(large):
    assert parallel(large(2, model_type="xlm-roberta"), 8) == 8
