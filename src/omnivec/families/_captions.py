"""Captions as the programs that trained CLIP's English models read them.

open_clip and Apple's code clean a text with the package ftfy (6.3, `fix_text`) and Python's
`html.unescape` before its bytes are paired, and CLIP's tokenizer.json does none of that.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from html.entities import html5
from itertools import chain

ROUNDS = 8  # in which a text that was escaped again and again is cleaned; ftfy has no such end

_ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,24};")
_COLOURS = re.compile(r"\x1b\[[\d;]*[A-Za-z]")  # of a terminal
_LIGATURES = "ĲĳŉǄǅǆǇǈǉǊǋǌǱǲǳﬀﬁﬂﬃﬄﬅﬆ"
_WIDTHS = range(0xFF01, 0xFFF0)  # Unicode's block of full-width and half-width forms
_UNWRITTEN = dict.fromkeys(
    chain(
        range(9),
        (0x0B, 0x7F, 0xFEFF),
        range(0x0E, 0x20),
        range(0x206A, 0x2070),  # what formatted Arabic once
        range(0xFFF9, 0xFFFD),  # what stands for notes between the lines, and for objects
    )
)


def clean(text: str) -> str:
    """`text` without HTML's entities, ligatures, curled quotes, full-width letters and control
    characters, in lower case, with single spaces.

    Of what ftfy does, text that was decoded in a wrong character set ("schÃ¶n") is not mended:
    that takes tables of what is likely in which language, a hundred times as long as this.
    """
    plain, marked = _parts(text)
    text = _fixed(plain, entities=True) + _fixed(marked, entities=False)
    return " ".join(html.unescape(html.unescape(text)).split()).lower()


def _parts(text: str) -> tuple[str, str]:
    """The lines before the first that has a "<", and the others: in what may be HTML, ftfy
    leaves entities alone."""
    first = text.find("<")
    end = len(text) if first < 0 else text.rfind("\n", 0, first) + 1
    return text[:end], text[end:]


def _fixed(text: str, *, entities: bool) -> str:
    """Until there is nothing more to mend: an entity may stand for a ligature, or the other way
    round. Line breaks stay as they are, as all spaces become one kind."""
    for _ in range(ROUNDS):
        before = text
        if entities:
            text = _ENTITY.sub(_character, text)
        text = _COLOURS.sub("", text.translate(_PLAIN)).translate(_UNWRITTEN)
        text = unicodedata.normalize("NFC", text)
        if text == before:
            break
    return text


def _character(match: re.Match[str]) -> str:
    """What an entity stands for; the names of lower-case letters also in capitals."""
    whole, name = match[0], match[0][1:]
    if name.startswith("#"):
        made = html.unescape(whole)
        return whole if ";" in made else made
    if name in html5:
        return html5[name]
    small = html5.get(name.lower(), "") if name.isupper() else ""
    return small.upper() if small and html.unescape(whole) == whole else whole


def _forms() -> Iterator[tuple[int, str]]:
    """Characters, and what is commonly written in their place."""
    for code in range(0x80, 0xA0):  # as browsers read them
        yield code, bytes([code]).decode("cp1252", "ignore") or chr(code)
    for letter in _LIGATURES:
        parts = unicodedata.decomposition(letter).split()[1:]
        yield ord(letter), "".join(chr(int(part, 16)) for part in parts)
    for code in _WIDTHS:
        yield code, unicodedata.normalize("NFKC", chr(code))
    yield 0x3000, " "
    yield from ((ord(quote), "'") for quote in "\u02bc\u2018\u2019\u201a\u201b")
    yield from ((ord(quote), '"') for quote in "\u201c\u201d\u201e\u201f")


_PLAIN = dict(_forms())
