from __future__ import annotations

import base64

import pytest

from omnivec.core.errors import BadRequest
from omnivec.core.nouns import Blob, File, Source, Url
from omnivec.dialects import _media

DATA = bytes(range(256)) * 5


@pytest.mark.parametrize("block", [1, 2, 3, 4, 7, 64, 2**18])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 255, 1280])
def test_base64_in_its_spellings(block: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_media, "_BLOCK", block)
    data = DATA[:size]
    plain = base64.b64encode(data).decode()
    urls = base64.urlsafe_b64encode(data).decode()
    lines = base64.encodebytes(data).decode()
    spellings = [plain, plain.rstrip("="), urls, urls.rstrip("="), lines, f" {plain}\r\n"]
    for text in (*spellings, f"data:image/png;base64,{plain}", f"DATA:;base64,{lines}"):
        assert _media.unpack(text, "f") == Blob(data)


@pytest.mark.parametrize("block", [1, 3, 4, 8, 2**18])
@pytest.mark.parametrize(
    "text",
    ["", "=", "====", "A", "AAAAA", "AA=A", "AA==AAAA", "AAAA=AAAAAAA", "é", "AA*A", "data:",
     "a,AAAA", "data:image/png;base64,", "data:image/png;base64", "AA\x00A"],
)  # fmt: skip
def test_what_is_no_base64(block: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_media, "_BLOCK", block)
    with pytest.raises(BadRequest, match="`f` must be base64") as caught:
        _media.unpack(text, "f")
    assert caught.value.param == "f"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("https://x.org/a", Url("https://x.org/a")),
        ("HTTP://x.org/a", Url("HTTP://x.org/a")),
        ("data:image/png;base64,AA", Url("data:image/png;base64,AA")),
        ("iVBORw0KGgo=", Blob(b"\x89PNG\r\n\x1a\n")),
        ("/9j/4AAQ", Blob(b"\xff\xd8\xff\xe0\x00\x10")),
        ("/data/a", Blob(base64.b64decode("/data/a="))),  # whatever it is, it is no path
    ],
)
def test_what_is_sent_is_never_a_path(text: str, source: Source) -> None:
    assert _media.sent(text, "f") == source


@pytest.mark.parametrize("text", ["file:///etc/passwd", "ftp://x.org/a", "gopher://x", "./a.png"])
def test_other_schemes_are_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        _media.sent(text, "f")


def test_what_is_named_may_be_a_path() -> None:
    assert _media.named("/data/a.png") == File("/data/a.png")
    assert _media.named("https://x.org/a") == Url("https://x.org/a")
