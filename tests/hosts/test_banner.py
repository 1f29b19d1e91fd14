"""What a person reads at the start, and what a log gets of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import msgspec
import pytest

from omnivec.core.nouns import Card
from omnivec.core.settings import Settings
from omnivec.hosts import banner, logs
from omnivec.hosts.assemble import unspoken

LOADED = Card(
    name="a/model",
    tasks=frozenset({"encode"}),
    dims=8,
    state="loaded",
    runtime="fake",
    device="cpu",
    dtype="f32",
)
FAILED = Card(name="b/model", state="failed", reason="b/model: no such thing")


@pytest.fixture
def quiet() -> Iterator[None]:
    """The logging of the test run is put back afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = []
    yield
    root.handlers[:] = before
    root.setLevel(level)


def test_the_opening_line_has_the_address_and_what_holds() -> None:
    assert " on http://127.0.0.1:8400 (no key needed), docs at" in banner.opening(Settings())
    told = banner.opening(Settings(host="::1", api_keys=("k",), profile="synesis", offline=True))
    assert "on http://[::1]:8400 (API key needed, profile synesis, offline)" in told


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("0.0.0.0", "listening on 0.0.0.0:8400; here http://127.0.0.1:8400 ("),
        ("::", "listening on [::]:8400; here http://[::1]:8400 ("),
        ("192.0.2.7", "on http://192.0.2.7:8400 ("),
    ],
)
def test_the_opening_line_says_what_is_listened_on(host: str, words: str) -> None:
    assert words in banner.opening(Settings(host=host))


@pytest.mark.parametrize(
    ("card", "path", "body"),
    [
        (LOADED, "/v1/embeddings", {"model": "a/model", "input": "Hello, world"}),
        (Card("a/model", tasks=("score",)), "/v1/rerank", {"model": "a/model"}),
        (
            Card("omnivec/bm25", tasks=("encode", "score"), kinds=("sparse",)),
            "/v1/encode/omnivec/bm25",
            {"items": [{"text": "Hello, world"}]},
        ),
        (Card("a/model", tasks=("extract",)), "/v1/extract/a/model", {}),
        (
            Card("a/model", tasks=("extract",), zero_shot=True),
            "/v1/extract/a/model",
            {"params": {"labels": ["sports", "politics"]}},
        ),
    ],
)
def test_the_curl_is_one_that_the_model_answers(card: Card, path: str, body: object) -> None:
    told = banner.curl(card, Settings())
    assert f"http://127.0.0.1:8400{path} " in told
    sent = json.loads(told.partition("-d '")[2].removesuffix("'"))
    assert sent.items() >= dict(body).items()
    assert ("Accept: application/json" in told) == path.startswith(("/v1/encode", "/v1/extract"))
    assert ("labels" in told) == card.zero_shot


def test_what_a_model_does_is_said() -> None:
    assert banner.line(LOADED).endswith("embeds")
    assert banner.line(Card("a/model", tasks=("extract",))).endswith("classifies")


def test_the_curl_gets_its_key() -> None:
    keyed = Settings(api_keys=("geheim",))
    told = banner.ready([LOADED], keyed, 1.0)
    assert "  export OMNIVEC_API_KEY=...  # one of your keys\n  curl " in told
    assert "geheim" not in told
    assert "export" not in banner.ready([LOADED], keyed, 1.0, exported=True)
    assert "export" not in banner.ready([LOADED], Settings(), 1.0)


def test_a_model_that_failed_is_named_once() -> None:
    told = banner.ready([LOADED, FAILED], Settings(), 1.25)
    assert told.startswith("ready in 1.2 s\n  a/model: fake on cpu, f32, 8 dimensions, embeds\n")
    assert told.count("b/model") == 1
    assert "no such thing" not in told  # the log has said it
    none = banner.ready([FAILED], Settings(), 1.0)
    assert none == "no model could be loaded; /ready answers 503"
    away = banner.ready([msgspec.structs.replace(FAILED, cause="NETWORK")], Settings(), 1.0)
    assert away == none + " until one is; the network is tried again"


def test_a_json_log_has_the_banner_as_one_record(
    quiet: None, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(Settings(log_format="json"))
    logs.say("ready\n  a\n\n  b")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "ready\n  a\n\n  b"


def test_a_text_log_has_it_line_by_line(quiet: None, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Settings())
    logs.say("ready\n\n  a")
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_wire_format_that_nobody_speaks_is_told() -> None:
    assert unspoken(Settings(dialect="openai"), {"openai"}) is None
    told = unspoken(Settings(dialect="sie"), {"openai"})
    assert told == "the sie wire format is not built yet: only its port and variables are used"
