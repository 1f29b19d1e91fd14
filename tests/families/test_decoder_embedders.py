"""Decoders that embed: the last token, prompts and what ends a text."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from decoders import END, build_decoder
from gemmas import GEMMA_PROMPTS, build_embedding_gemma, build_gemma2_embedder
from omnivec.core.checkpoint import Checkpoint
from omnivec.core.nouns import Text, Unit
from omnivec.families._text import Tokeniser
from omnivec.families.encoder import PLUGIN
from omnivec.runtimes.openvino import PLUGIN as OPENVINO
from omnivec.runtimes.torch import PLUGIN as TORCH
from vocabularies import SENTENCES

TASK = "Given a web search query, retrieve relevant passages that answer the query"
PROMPTS = {"query": f"Instruct: {TASK}\nQuery:", "document": ""}
TEXTS = (*SENTENCES[:6], "", "The quick brown fox. " * 60)


def vectors(folder, texts, runtime=OPENVINO, checkpoint=None, **wishes):
    checkpoint = checkpoint or Checkpoint("tiny", folder)
    session = runtime.open(checkpoint, "main", PLUGIN.graphs(checkpoint)["main"], "cpu", "f32")
    model = PLUGIN.ready(checkpoint, {"main": session})
    units = [Unit(parts=(Text(text),), **wishes) for text in texts]
    found = np.stack([one.dense for one in model.forward(model.prepare(units))])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def oracle(folder, texts, **told):
    """Gemma 2's cap is left out by transformers' default attention."""
    from sentence_transformers import SentenceTransformer

    eager = {"attn_implementation": "eager"}
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs=eager)
    return model.encode(list(texts), normalize_embeddings=True, **told)


@pytest.mark.parametrize("runtime", [OPENVINO, TORCH], ids=["openvino", "torch"])
@pytest.mark.parametrize("kind", ["qwen3", "qwen2", "mistral", "llama"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_vectors_are_those_of_sentence_transformers(tmp_path, kind, side, runtime):
    folder = build_decoder(kind, tmp_path, prompts=PROMPTS, side=side, longest=100)
    with torch.no_grad():
        expected = oracle(folder, TEXTS)
        asked = oracle(folder, TEXTS, prompt_name="query")
    np.testing.assert_allclose(vectors(folder, TEXTS, runtime), expected, atol=1e-5)
    got = vectors(folder, TEXTS, runtime, role="query")
    np.testing.assert_allclose(got, asked, atol=1e-5)
    assert np.abs(expected - asked).max() > 1e-2


def test_an_instruction_takes_the_place_of_the_task(tmp_path):
    folder = build_decoder("qwen3", tmp_path, prompts=PROMPTS)
    expected = oracle(folder, TEXTS, prompt="Instruct: Find a twin\nQuery:")
    got = vectors(folder, TEXTS, role="query", instruction="Find a twin")
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_what_ends_a_text_survives_truncation(tmp_path):
    folder = build_decoder("qwen3", tmp_path, longest=40)
    checkpoint = Checkpoint("tiny", folder)
    end = Tokeniser(checkpoint).library.token_to_id(END)
    session = OPENVINO.open(checkpoint, "main", PLUGIN.graphs(checkpoint)["main"], "cpu", "f32")
    features = PLUGIN.ready(checkpoint, {"main": session}).prepare(
        [Unit(parts=(Text(text),)) for text in TEXTS]
    )
    ids = [one.arrays["input_ids"] for one in features]
    assert {row[-1] for row in ids} == {end}
    assert (len(ids[-1]), features[-1].cut) == (40, True)
    assert len(ids[-2]) == 1  # nothing but the end


def test_without_modules_the_catalogue_says_how_it_pools(tmp_path):
    bare = build_decoder("qwen3", tmp_path / "bare", ending="ForCausalLM", modules=False)
    whole = build_decoder("qwen3", tmp_path / "whole", prompts=PROMPTS)
    (bare / "model.safetensors").replace(tmp_path / "kept")
    assert not PLUGIN.claims(Checkpoint("tiny", bare))
    told = Checkpoint("tiny", bare, overrides={"pooling": "last", "prompts": PROMPTS})
    assert PLUGIN.claims(told)
    (tmp_path / "kept").replace(bare / "model.safetensors")
    assert vectors(bare, TEXTS, checkpoint=told, role="query").shape == vectors(whole, TEXTS).shape
    assert PLUGIN.card(told).instructions


def test_a_tokenizer_may_end_texts_by_its_settings_alone(tmp_path):
    """gte-Qwen2's and e5-mistral's own classes add what tokenizer.json does not have."""
    folder = build_decoder("qwen2", tmp_path, ends=False)
    before = Tokeniser(Checkpoint("tiny", folder))
    assert (before.single.after, before.pair.after) == ([], [])
    path = folder / "tokenizer_config.json"
    told = {**json.loads(path.read_text()), "add_eos_token": True, "eos_token": END}
    path.write_text(json.dumps(told))
    after = Tokeniser(Checkpoint("tiny", folder))
    end = after.library.token_to_id(END)
    assert (after.single.after, after.pair.after) == ([end], [end])
    assert after.single.segments(2, 0).tolist() == [0, 0, 0]
    ended = build_decoder("qwen2", tmp_path / "ended")
    path = ended / "tokenizer_config.json"
    path.write_text(
        json.dumps(
            {**json.loads(path.read_text()), "add_eos_token": True, "eos_token": {"content": END}}
        )
    )
    assert Tokeniser(Checkpoint("tiny", ended)).single.after == [end]  # once


# ── Gemma ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("runtime", [OPENVINO, TORCH], ids=["openvino", "torch"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("longest", [64, 12])
def test_embedding_gemma_is_that_of_sentence_transformers(tmp_path, side, longest, runtime):
    """Mean of all tokens, two Dense; its windows are narrower than the texts."""
    folder = build_embedding_gemma(tmp_path, side=side, longest=longest)
    for role, prompt in (
        (None, None),
        ("query", "query"),
        ("document", "document"),
        ("STS", "STS"),
    ):
        expected = oracle(folder, TEXTS, prompt_name=prompt)
        got = vectors(folder, TEXTS, runtime, role=role)
        np.testing.assert_allclose(got, expected, atol=1e-5, err_msg=str(role))


def test_embedding_gemma_looks_both_ways(tmp_path):
    folder = build_embedding_gemma(tmp_path / "both")
    back = build_embedding_gemma(tmp_path / "back", use_bidirectional_attention=False)
    assert np.abs(vectors(folder, TEXTS) - vectors(back, TEXTS)).max() > 1e-2


def test_a_text_of_embedding_gemma_is_the_same_alone(tmp_path):
    folder = build_embedding_gemma(tmp_path)
    alone = np.concatenate([vectors(folder, [text]) for text in TEXTS])
    np.testing.assert_allclose(vectors(folder, TEXTS), alone, atol=2e-6)


def test_the_card_of_embedding_gemma(tmp_path):
    checkpoint = Checkpoint("tiny", build_embedding_gemma(tmp_path, longest=64))
    card = PLUGIN.card(checkpoint)
    assert (card.dims, card.max_tokens, card.pooling) == (32, 64, "mean")
    assert card.prompts == GEMMA_PROMPTS
    assert not card.instructions


@pytest.mark.parametrize("runtime", [OPENVINO, TORCH], ids=["openvino", "torch"])
def test_gemma_2_embeds_by_its_last_token(tmp_path, runtime):
    """And has a template of its own for instructions."""
    prompts = {"query": f"<instruct>{TASK}\n<query>", "document": ""}
    folder = build_gemma2_embedder(tmp_path, prompts)
    np.testing.assert_allclose(vectors(folder, TEXTS, runtime), oracle(folder, TEXTS), atol=1e-5)
    asked = oracle(folder, TEXTS, prompt="<instruct>Find a twin\n<query>")
    got = vectors(folder, TEXTS, runtime, role="query", instruction="Find a twin")
    np.testing.assert_allclose(got, asked, atol=1e-5)
    assert PLUGIN.card(Checkpoint("tiny", folder)).instructions
