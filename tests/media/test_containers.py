from __future__ import annotations

import pytest

from omnivec.media.containers import container, is_picture
from omnivec.media.images import FORMATS
from pictures import photo, saved


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x20ftypisom", "mov"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "mov"),
        (b"\x1a\x45\xdf\xa3\x01", "matroska"),
        (b"RIFF\0\0\0\0AVI LIST", "avi"),
        (b"\x00\x00\x01\xba\x44", "mpeg"),
        ((b"G" + b"\0" * 187) * 3, "mpegts"),
        (b"\0\0\0\0" + (b"G" + b"\0" * 191) * 3, "mpegts"),
        (b"", None),
        (b"GIF89a", None),
        (b"\xff\xd8\xff\xe0", None),
        (b"RIFF\0\0\0\0WEBPVP8 ", None),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"\0\0\0\x20ftypavif", None),
        (b"\0\0\0\x20ftypheic", None),
        (b"#EXTM3U\n#EXT-X-VERSION:3\n", None),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", None),
        (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n", None),
        (b'<?xml version="1.0"?><MPD></MPD>', None),
        (b"<!doctype html>", None),
        (b"subfile,,start,0,end,9,,:/etc/passwd", None),
        (b"GGG", None),
    ],
)
def test_only_what_is_on_the_list_is_opened(head: bytes, name: str | None) -> None:
    assert container(head) == name


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_of_a_picture_is_known(format_: str) -> None:
    head = saved(photo(), format_)[:16]
    assert is_picture(head)
    assert container(head) is None


@pytest.mark.parametrize("head", [b"", b"hello", b"<svg/>", b"%PDF-1.7", b"RIFF\0\0\0\0AVI LIST"])
def test_what_is_no_picture(head: bytes) -> None:
    assert not is_picture(head)
