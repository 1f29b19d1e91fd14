"""The front page on a server with several models, one of which sees."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from browser import browsing

import live
from pictures import photo
from towers import build_towers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from browser import Browser

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    clip = build_towers("clip", tmp_path_factory.mktemp("clip"))
    with live.serve(DEFAULT, f"clip={clip}") as server:
        yield server.url


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with browsing(tmp_path / "profile") as made:
        yield made


def shown(browser: Browser, selector: str) -> bool:
    return browser.evaluate(f"document.querySelector('{selector}').checkVisibility()")


def test_a_picture_is_compared_with_a_text_by_the_model_that_sees(
    url: str, browser: Browser, tmp_path: Path
) -> None:
    photo().save(tmp_path / "photo.png")
    browser.open(f"{url}/")
    browser.wait("document.querySelectorAll('#model option').length === 2")
    assert shown(browser, "#model")
    assert not shown(browser, "#side-b input")
    browser.evaluate("model.value = 'clip'; model.onchange()")
    assert shown(browser, "#side-b input")
    browser.choose("#side-b input", tmp_path / "photo.png")
    browser.wait("document.querySelector('#side-b img').naturalWidth === 40")
    assert not shown(browser, "#b")
    browser.evaluate("form.requestSubmit()")
    answer = browser.wait("/^Sim/.test(answer.innerText) && answer.innerText")
    assert re.fullmatch(r"Similarity -?\d\.\d{3} · 16 dimensions · \d+ ms", answer)
    browser.evaluate("document.querySelector('#side-b button').click()")
    assert shown(browser, "#b")
    assert not shown(browser, "#side-b img")
    assert browser.complaints == []


def test_a_file_that_is_no_picture_is_told_of_in_words(
    url: str, browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    browser.open(f"{url}/")
    browser.wait("document.querySelectorAll('#model option').length === 2")
    browser.evaluate("model.value = 'clip'; model.onchange()")
    browser.choose("#side-a input", tmp_path / "notes.png")
    browser.wait("document.querySelector('#side-a img').src.startsWith('data:')")
    browser.evaluate("form.requestSubmit()")
    browser.wait("document.querySelector('output.bad')")
    assert "JPEG" in browser.evaluate("answer.innerText")
    browser.evaluate("model.value = model.options[0].value; model.onchange(); form.requestSubmit()")
    browser.wait("/384 dimensions/.test(answer.innerText)")
