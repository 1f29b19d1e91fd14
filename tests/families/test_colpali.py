"""ColPali and ColQwen2 against transformers' own models and processors, with Pillow's pictures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from omnivec.core.errors import BadRequest, TooLong, Unsupported
from omnivec.core.nouns import Pixels
from omnivec.families.colpali import PLUGIN
from seeing import Opened, build_colpali, build_colqwen2, film, picture, unit, write_json
from vocabularies import SENTENCES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

QUESTIONS = (SENTENCES[0], "fox", "", "a  fox\n and the dog", SENTENCES[5])
PAGES = (picture(50, 70), picture(300, 80), picture(64, 64), picture(56, 56), picture(1, 1))


class Reference:
    def __init__(self, folder: Path, kind: str) -> None:
        import transformers
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
            Qwen2VLImageProcessorPil,
        )
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

        pictures = {"ColPali": SiglipImageProcessorPil, "ColQwen2": Qwen2VLImageProcessorPil}[kind]
        processor = getattr(transformers, f"{kind}Processor")
        tokens = transformers.AutoTokenizer.from_pretrained(folder)
        self.processor = processor(pictures.from_pretrained(folder), tokens)
        self.model = getattr(transformers, f"{kind}ForRetrieval").from_pretrained(folder).eval()

    def questions(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [self._run(self.processor.process_queries([text])) for text in texts]

    def pages(self, pages: Sequence[Pixels]) -> list[np.ndarray]:
        seen = [Image.fromarray(page.rgb) for page in pages]
        return [self._run(self.processor.process_images([page])) for page in seen]

    def _run(self, fed: Any) -> np.ndarray:
        fed.pop("labels", None)
        with torch.inference_mode():
            return self.model(**fed).embeddings[0].numpy()


@pytest.fixture(scope="module", params=["ColPali", "ColQwen2"])
def both(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Opened, Reference]:
    build = {"ColPali": build_colpali, "ColQwen2": build_colqwen2}[request.param]
    folder = build(tmp_path_factory.mktemp(request.param))
    return Opened(PLUGIN, folder), Reference(folder, request.param)


def close(ours: Sequence[Any], theirs: Sequence[np.ndarray]) -> None:
    rows = [one.multivector for one in ours]
    assert [one.shape for one in rows] == [one.shape for one in theirs]
    for one, other in zip(rows, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)


def test_the_card_says_what_is_compared(both: tuple[Opened, Reference]) -> None:
    card = both[0].card
    assert (card.kinds, card.scoring, card.token_dims) == (("multivector",), "maxsim", 16)
    assert card.modalities == ("text", "image")
    assert card.tasks == ("encode", "score")
    assert not card.instructions


def test_questions_are_read_as_the_processor_does(both: tuple[Opened, Reference]) -> None:
    model, reference = both
    expected = reference.questions(QUESTIONS)
    close(model.run(*map(unit, QUESTIONS)), expected)
    close([model.run(unit(text, role="query"))[0] for text in QUESTIONS], expected)


def test_pages_are_seen_as_the_processor_does(both: tuple[Opened, Reference]) -> None:
    model, reference = both
    expected = reference.pages(PAGES)
    close(model.run(*map(unit, PAGES)), expected)
    close([model.run(unit(page))[0] for page in PAGES], expected)


def test_questions_and_pages_may_share_a_batch(both: tuple[Opened, Reference]) -> None:
    model, reference = both
    units = [unit(PAGES[0]), unit(QUESTIONS[0]), unit(PAGES[1]), unit("")]
    (first, third), (second, fourth) = (
        reference.pages(PAGES[:2]),
        reference.questions([QUESTIONS[0], ""]),
    )
    close(model.run(*units), [first, second, third, fourth])


def test_narrow_pages_are_taken_up_to_a_limit(tmp_path: Path) -> None:
    folder = build_colqwen2(tmp_path)
    model, reference = Opened(PLUGIN, folder), Reference(folder, "ColQwen2")
    pages = [picture(10, 600), picture(700, 12), picture(900, 900)]
    close(model.run(*map(unit, pages)), reference.pages(pages))
    with pytest.raises(BadRequest) as caught:
        model.model.prepare([unit("a"), unit(picture(2, 500))])
    assert caught.value.param == "[1]"


def test_a_long_question_keeps_its_filling(both: tuple[Opened, Reference]) -> None:
    model = both[0].model
    whole, cut = model.prepare([unit("fox " * 40), unit("fox " * 40, max_tokens=40)])
    ids, full = cut.arrays["input_ids"], whole.arrays["input_ids"]
    assert cut.cut
    assert not whole.cut
    assert len(ids) == cut.tokens == 40
    np.testing.assert_array_equal(ids[-11:], full[-11:])
    np.testing.assert_array_equal(ids[:29], full[:29])
    with pytest.raises(TooLong):
        model.prepare([unit("fox " * 40, max_tokens=40, overflow="refuse")])


def test_a_page_is_never_cut(both: tuple[Opened, Reference]) -> None:
    with pytest.raises(TooLong) as caught:
        both[0].model.prepare([unit(PAGES[0], max_tokens=12)])
    assert caught.value.param == "[0]"


@pytest.mark.parametrize(
    "parts", [(), (PAGES[0], PAGES[1]), (PAGES[0], "a"), (film(2),), (film(2), "a")]
)
def test_an_item_is_a_text_or_a_page(both: tuple[Opened, Reference], parts: Any) -> None:
    with pytest.raises(Unsupported) as caught:
        both[0].model.prepare([unit("a"), unit(*parts)])
    assert caught.value.param == "[1]"


def test_a_text_cannot_pretend_to_be_a_page(both: tuple[Opened, Reference]) -> None:
    (found,) = both[0].run(unit("<image><|image_pad|><bos>"))
    assert np.isfinite(found.multivector).all()


def test_prompts_of_the_files_win(tmp_path: Path) -> None:
    folder = build_colqwen2(tmp_path)
    plain = Opened(PLUGIN, folder)
    told = {"query_prefix": "Frage: ", "visual_prompt_prefix": "<|image_pad|>Was ist das?"}
    config = json.loads((folder / "processor_config.json").read_text())
    write_json(folder, processor_config={**config, **told})
    model = Opened(PLUGIN, folder)
    tokens = Reference(folder, "ColQwen2").processor.tokenizer
    (page,) = model.model.prepare([unit(PAGES[0])])
    ids = page.arrays["input_ids"]
    sights = len(page.arrays["pixel_values"]) // 4
    assert ids.tolist() == tokens("<|image_pad|>" * sights + "Was ist das?")["input_ids"]
    (asked,) = model.model.prepare([unit("a fox")])
    filling = "<|endoftext|>" * 10
    assert asked.arrays["input_ids"].tolist() == tokens(f"Frage: a fox{filling}\n")["input_ids"]
    assert len(plain.model.prepare([unit(PAGES[0])])[0].arrays["input_ids"]) > len(ids)
