"""The pages, as bytes and in a real browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from browser import browsing
from serving import running

from omnivec.core.plugins import discover

HTML = {"accept": "text/html,application/xhtml+xml"}


@pytest.fixture(scope="module")
def server():
    with running(discover("dialects")) as made:
        yield made


def test_a_browser_gets_a_page_and_everybody_else_a_line(server):
    with server.client() as client:
        page = client.get("/", headers=HTML)
        line = client.get("/")
        head = client.head("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["vary"] == line.headers["vary"] == "accept"
    assert line.text.strip() == "omnivec is running"
    assert (head.status_code, head.content) == (200, b"")


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline: list[str] = []
        self._script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self._script = tag == "script"
        if tag in ("script", "link") or (tag == "img" and "src" in known):
            self.loaded.append(known.get("src") or known.get("href") or "")
        self.inline += [name for name in known if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        if self._script and data.strip():
            self.inline.append(data)


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/"])
def test_a_page_loads_only_from_here_and_runs_nothing_inline(server, path):
    with server.client() as client:
        reply = client.get(path, headers=HTML)
        page = Page()
        page.feed(reply.text)
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert page.inline == []
        assert len(page.loaded) >= 3
        for source in page.loaded:
            assert re.fullmatch(r"/[\w./-]+", source), source
            asset = client.get(source)
            assert asset.status_code == 200
            assert asset.headers["x-content-type-options"] == "nosniff"


def test_swaggers_files_may_be_kept_for_ever(server):
    with server.client() as client:
        reply = client.get("/docs/swagger-ui-5.35.0/swagger-ui-bundle.js")
    assert "immutable" in reply.headers["cache-control"]
    assert len(reply.content) > 1_000_000


@pytest.fixture
def browser(tmp_path):
    with browsing(tmp_path) as made:
        yield made


def test_the_front_page_tells_of_the_models(server, browser):
    browser.open(f"{server.url}/")
    browser.wait("document.querySelector('.state.good')")
    table = browser.evaluate("document.getElementById('models').innerText")
    assert "tiny/model" in table
    assert "embeds, reranks" in table
    assert f"{server.url}/v1/embeddings" in browser.evaluate("document.body.innerText")
    assert 'model="tiny/model"' in browser.evaluate("document.body.innerText")
    assert 'api_key="none"' in browser.evaluate("document.body.innerText")
    assert all(url.startswith(server.url) for url in browser.asked)
    browser.evaluate("showCalls('tiny/model', true)")  # as /health says where keys are set
    assert 'api_key="YOUR_KEY"' in browser.evaluate("document.body.innerText")
    assert "Bearer YOUR_KEY" in browser.evaluate("document.body.innerText")
    assert browser.complaints == []


def test_two_texts_are_compared_with_the_keyboard_alone(server, browser):
    browser.open(f"{server.url}/")
    browser.wait("document.querySelector('.state.good')")
    browser.evaluate("document.getElementById('b').focus()")
    browser.press("Tab", 9)
    assert browser.evaluate("document.activeElement.innerText") == "Compare"
    browser.press("Enter", 13)
    answer = browser.wait(
        "/Similarity/.test(document.getElementById('answer').innerText)"
        " && document.getElementById('answer').innerText"
    )
    assert re.fullmatch(r"Similarity 1\.000 · 4 dimensions · \d+ ms", answer)
    assert browser.evaluate("document.getElementById('meter').value") > 0.99
    assert browser.complaints == []


def test_what_goes_wrong_is_shown_in_words(server, browser):
    browser.open(f"{server.url}/")
    browser.wait("document.querySelector('.state.good')")
    browser.evaluate("document.getElementById('a').value = 'bug'; form.requestSubmit()")
    browser.wait("document.querySelector('output.bad')")
    assert "request id" in browser.evaluate("document.getElementById('answer').innerText")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast(server, browser, scheme):
    browser._command(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    browser.open(f"{server.url}/")
    browser.wait("document.querySelector('.state.good')")
    ratios = browser.evaluate(CONTRAST)
    assert len(ratios) > 20
    assert {text: ratio for text, ratio in ratios if ratio < 4.5} == {}


CONTRAST = """
(() => {
  const part = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => {
    const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(part);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (c !== "rgba(0, 0, 0, 0)") return c;
    }
    return "rgb(255, 255, 255)";
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const parent = walker.currentNode.parentElement;
    if (!text || parent.tagName === "NOSCRIPT") continue;
    const a = light(getComputedStyle(parent).color);
    const b = light(ground(parent));
    found.push([text, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]);
  }
  return found;
})()
"""


def test_the_documentation_shows_every_operation_and_asks_nobody_else(server, browser):
    browser.open(f"{server.url}/docs")
    browser.wait("document.querySelectorAll('.opblock').length > 8")
    paths = browser.evaluate(
        "[...document.querySelectorAll('.opblock-summary-path')].map((e) => e.dataset.path)"
    )
    with server.client() as client:
        described = client.get("/openapi.json").json()["paths"]
    assert set(paths) == set(described)
    assert browser.evaluate("document.querySelector('.errors-wrapper') === null")
    assert len(browser.asked) >= 5
    assert all(url.startswith((server.url, "data:")) for url in browser.asked)
    assert browser.complaints == []


@pytest.mark.parametrize(("scheme", "darkest"), [("light", False), ("dark", True)])
def test_the_documentation_is_dark_for_those_who_want_it(server, browser, scheme, darkest):
    browser._command(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    browser.open(f"{server.url}/docs")
    browser.wait("document.querySelector('.opblock')")
    ground = browser.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    shades = [int(part) for part in re.findall(r"\d+", ground)[:3]]
    assert (0 < max(shades) < 80) is darkest
    assert browser.complaints == []


def test_an_example_runs_from_the_documentation(server, browser):
    browser.open(f"{server.url}/docs")
    block = "document.getElementById('operations-openai-post_v1_embeddings')"
    browser.wait(f"{block} && {block}.querySelector('.opblock-summary-control')")
    browser.evaluate(f"{block}.querySelector('.opblock-summary-control').click()")
    # the editor is filled a moment after the button is there, and an empty body is not sent
    browser.wait(f"/quick brown fox/.test({block}.querySelector('textarea')?.value)")
    browser.evaluate(f"{block}.querySelector('button.execute').click()")
    told = browser.wait(f"/Server response/.test({block}.innerText) && {block}.innerText")
    assert re.search(r"Server response\s+Code\s+Details\s+200\s", told)
    assert '"object": "embedding"' in told
