"""The cleaning of captions against ftfy and Python's html, which open_clip cleans them with."""

from __future__ import annotations

import html

import numpy as np

from omnivec.families._captions import clean

PIECES = (
    *("&amp;", "&", "amp;", "&rsquo;", "&EACUTE;", "&#8217;", "&#x1f;", ";", "#", "&nbsp;"),
    *("’", "“", "ﬁ", "ŉ", "Ａ", "＆", "\u3000", "\x1b[0m", "\x1b[", "\x92", "\x00", "\u0301"),
    *("e", "E", "m", " ", "\n", "\r\n", "\ufeff", "日本", "x", "<", ">"),
)


def expected(text: str) -> str:
    import ftfy

    fixed = ftfy.fix_text(text, fix_encoding=False)
    return " ".join(html.unescape(html.unescape(fixed)).split()).lower()


def test_every_character() -> None:
    for code in (*range(0xD800), *range(0xE000, 0x30000)):
        text = f"a{chr(code)}b"
        assert clean(text) == expected(text), hex(code)


def test_every_entity() -> None:
    for name in html.entities.html5:
        for told in (name, name.upper(), name.lower(), name.title()):
            text = f"a&{told}b"
            assert clean(text) == expected(text), text


def test_pieces_of_all_kinds_in_any_order() -> None:
    random = np.random.default_rng(0)
    for _ in range(5000):
        text = "".join(random.choice(PIECES, random.integers(1, 12)))
        assert clean(text) == expected(text), repr(text)
