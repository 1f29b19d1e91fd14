"""BLIP-2's texts and pictures against transformers' Blip2ForImageTextRetrieval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from omnivec.core.errors import TooLong, Unsupported
from omnivec.families.blip2 import PLUGIN
from seeing import Opened, build_blip2, film, picture, unit
from vocabularies import SENTENCES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BOTH = ("dense", "multivector")
TEXTS = (SENTENCES[0], "fox", "", SENTENCES[4])
PICTURES = (picture(50, 70), picture(300, 80), picture(56, 56), picture(3, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_blip2(tmp_path_factory.mktemp("blip2"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Opened:
    return Opened(PLUGIN, folder)


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[list[Any]]:
    """transformers' answer for each picture and each text."""
    from transformers import AutoTokenizer, Blip2ForImageTextRetrieval
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    oracle = Blip2ForImageTextRetrieval.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)
    processor = BlipImageProcessorPil.from_pretrained(folder)
    answers = []
    for one in PICTURES:
        seen = processor(Image.fromarray(one.rgb), return_tensors="pt")
        row = []
        for text in TEXTS:
            said = tokens(text, return_tensors="pt")
            with torch.inference_mode():
                row.append(oracle(**seen, **said))
        answers.append(row)
    return answers


def close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_the_card_says_what_is_compared(model: Opened) -> None:
    card = model.card
    assert (card.kinds, card.dims, card.token_dims) == (BOTH, 16, 16)
    assert (card.scoring, card.modalities) == ("maxsim", ("text", "image"))
    assert card.max_tokens == 64


def unit_length(row: np.ndarray) -> np.ndarray:
    return row / np.linalg.norm(row)


def test_texts_are_those_of_transformers(model: Opened, expected: Sequence[Any]) -> None:
    found = model.run(*(unit(text, kinds=BOTH) for text in TEXTS))
    for at, (one, answer) in enumerate(zip(found, expected[0], strict=True)):
        close(one.multivector, answer.text_embeds)
        close(unit_length(one.dense), answer.text_embeds[0])
        (alone,) = model.run(unit(TEXTS[at], kinds=BOTH))
        close(alone.dense, one.dense)


def test_pictures_are_those_of_transformers(model: Opened, expected: Sequence[Any]) -> None:
    found = model.run(*(unit(one, kinds=BOTH) for one in PICTURES))
    for one, (answer, *_) in zip(found, expected, strict=True):
        close(one.multivector, answer.image_embeds[0])
        assert one.dense.shape == (16,)
    close(model.run(unit(PICTURES[1], kinds=BOTH))[0].multivector, found[1].multivector)


def test_maxsim_of_a_text_with_a_picture_is_the_models_own_score(
    model: Opened, expected: Sequence[Any]
) -> None:
    seen = model.run(*(unit(one, kinds=("multivector",)) for one in PICTURES))
    said = model.run(*(unit(text, kinds=("multivector",)) for text in TEXTS))
    for one, answers in zip(seen, expected, strict=True):
        for text, answer in zip(said, answers, strict=True):
            score = (text.multivector @ one.multivector.T).max(axis=1).sum()
            close(score, float(answer.logits_per_image))


def test_a_dense_picture_is_the_mean_before_lengths_are_evened(model: Opened, folder: Path) -> None:
    from transformers import Blip2ForImageTextRetrieval
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    oracle = Blip2ForImageTextRetrieval.from_pretrained(folder).eval()
    processor = BlipImageProcessorPil.from_pretrained(folder)
    seen = processor(Image.fromarray(PICTURES[0].rgb), return_tensors="pt")
    with torch.inference_mode():
        patches = oracle.vision_model(**seen).last_hidden_state
        states = oracle.qformer(oracle.query_tokens, encoder_hidden_states=patches)
        rows = oracle.vision_projection(states.last_hidden_state)[0]
    close(model.run(unit(PICTURES[0]))[0].dense, rows.mean(0))


@pytest.mark.parametrize("kind", BOTH)
def test_only_what_is_asked_for_is_given(model: Opened, kind: str) -> None:
    for part in ("a fox", PICTURES[0]):
        (found,) = model.run(unit(part, kinds=(kind,)))
        assert (found.dense is None) == (kind != "dense")
        assert (found.multivector is None) == (kind != "multivector")


def test_texts_and_pictures_never_share_a_batch(model: Opened) -> None:
    text, seen, other = model.model.prepare(
        [unit("a"), unit(PICTURES[0]), unit("b", kinds=("multivector",))]
    )
    assert len({text.group, seen.group, other.group}) == 3
    assert (seen.cost, seen.tokens) == (16, 16)


@pytest.mark.parametrize("parts", [(PICTURES[0], "a"), (PICTURES[0],) * 2, (film(2),)])
def test_an_input_is_one_text_or_one_picture(model: Opened, parts: Any) -> None:
    with pytest.raises(Unsupported) as caught:
        model.model.prepare([unit("a"), unit(*parts)])
    assert caught.value.param == "[1]"


def test_a_long_text_is_cut_or_refused(model: Opened) -> None:
    (found,) = model.model.prepare([unit("fox " * 100)])
    assert (found.tokens, found.cut) == (64, True)
    with pytest.raises(TooLong) as caught:
        model.model.prepare([unit(PICTURES[0]), unit("fox " * 100, overflow="refuse")])
    assert caught.value.param == "[1]"
