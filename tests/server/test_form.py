"""Forms as clients write them, and as nobody should."""

from __future__ import annotations

import random
import time
from typing import Any

import httpx
import pytest
import requests

from omnivec.core.errors import BadRequest, Fault, TooLarge, WrongType
from omnivec.core.form import Upload
from omnivec.core.nouns import Blob, Encode, Image, Item, Text, Url, Video
from omnivec.server import form
from omnivec.server.form import Posted, read

HEADER = "multipart/form-data; boundary=x"
MP4 = b"\0\0\0\x18ftypmp42" + b"\0" * 16


def part(name: str, content: bytes, *more: str) -> bytes:
    head = [f'Content-Disposition: form-data; name="{name}"{"".join(more[:1])}', *more[1:]]
    return b"--x\r\n" + "\r\n".join(head).encode() + b"\r\n\r\n" + content + b"\r\n"


def file(content: bytes = b"png", name: str = "file", filename: str = "a.png") -> bytes:
    return part(name, content, f'; filename="{filename}"', "Content-Type: image/png")


END = b"--x--\r\n"


def told(found: Posted) -> list[tuple[str, Any]]:
    return [
        (one.name, found.files[one.value.url] if isinstance(one.value, Upload) else one.value)
        for one in found.form
    ]


def refused(body: bytes, header: str = HEADER) -> Fault:
    with pytest.raises(Fault) as caught:
        read(body, header)
    return caught.value


def test_texts_and_files_are_found_in_their_order() -> None:
    body = part("model", b"clip") + file(b"one\r\n--y") + part("text", "ä 🙂".encode()) + file(b"")
    found = read(body + END, HEADER)
    expected = [("model", "clip"), ("file", b"one\r\n--y"), ("text", "ä 🙂"), ("file", b"")]
    assert told(found) == expected
    assert told(read(b"--x--", HEADER)) == []


def test_a_field_of_a_page_in_which_no_file_was_chosen_is_none() -> None:
    """HTML has a browser send it all the same, without a name and without bytes."""
    empty = part("other", b"", '; filename=""', "Content-Type: application/octet-stream")
    assert told(read(empty + file(b"one") + empty + END, HEADER)) == [("file", b"one")]
    assert told(read(empty + END, HEADER)) == []
    assert refused(part("file", b"", '; filename="a"') + END).message == form.NEITHER
    assert isinstance(refused(empty * (form.MOST_PARTS + 1) + END), TooLarge)


@pytest.mark.parametrize("library", [requests, httpx])
def test_what_two_libraries_send(library: Any) -> None:
    files = [("file", ('../../ü ".png', b"\r\n\r\n--", "image/png")), ("clip", ("a", MP4))]
    fields = {"model": 'a "name"', "dimensions": "64"}
    request = library.Request("POST", "http://a/", data=fields, files=files)
    if library is requests:
        request = request.prepare()
        body = request.body
    else:
        body = request.read()
    found = read(body, request.headers["content-type"])
    assert told(found) == [*fields.items(), ("file", b"\r\n\r\n--"), ("clip", MP4)]
    media = [one.value.medium for one in found.form if isinstance(one.value, Upload)]
    assert media == ["image", "video"]


@pytest.mark.parametrize(
    "header",
    [
        'Multipart/Form-Data; boundary="x"',
        "multipart/form-data;charset=utf-8;boundary=x",
        "multipart/form-data; Boundary=x; a=b",
    ],
)
def test_a_boundary_has_several_spellings(header: str) -> None:
    assert told(read(part("a", b"1") + END, header)) == [("a", "1")]


@pytest.mark.parametrize(
    ("head", "name", "is_file"),
    [
        ('form-data; name="a"; filename="b"', "a", True),
        ('form-data; filename="name=c"; name="a"', "a", True),
        ("form-data; name=a", "a", False),
        ("form-data; name=\"a[]\"; filename*=UTF-8''b", "a", True),
        ('FORM-DATA; NAME="a"', "a", False),
        ('form-data; name="a\\"b"', 'a\\"b', False),
    ],
)
def test_a_disposition(head: str, name: str, is_file: bool) -> None:
    body = f"--x\r\ncontent-disposition: {head}\r\n\r\nBM\r\n--x--".encode()
    (one,) = read(body, HEADER).form
    assert (one.name, isinstance(one.value, Upload)) == (name, is_file)


@pytest.mark.parametrize("kind", ["image/png", "video/mp4", "application/octet-stream"])
def test_media_are_files_without_a_name_of_their_own(kind: str) -> None:
    (one,) = read(part("a", MP4, "", f"Content-Type: {kind}") + END, HEADER).form
    assert isinstance(one.value, Upload)
    assert one.value.medium == "video"


@pytest.mark.parametrize("kind", ["text/plain", "Text/Plain; charset=utf-8", "text/markdown"])
@pytest.mark.parametrize("name", ["input", "inputs[]", "text"])
def test_a_file_of_words_is_a_text_in_a_field_of_texts(kind: str, name: str) -> None:
    body = part(name, b"BM25 \xc3\xa4", '; filename="a.txt"', f"Content-Type: {kind}")
    assert told(read(body + END, HEADER)) == [(name.removesuffix("[]"), "BM25 ä")]


@pytest.mark.parametrize(
    ("name", "kind", "content"),
    [
        ("file", "text/plain", b"hello"),
        ("input", "application/octet-stream", b"hello"),
        ("file", "application/pdf", b"%PDF-1.7"),
        ("file", "video/mp4", b"hello"),
        ("file", "", b""),
    ],
)
def test_a_file_that_is_neither_picture_nor_video(name: str, kind: str, content: bytes) -> None:
    body = part(name, content, '; filename="a"', f"Content-Type: {kind}")
    assert "must be a picture or a video" in refused(body + END).message


def test_a_part_is_found_wherever_a_step_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(0)
    for block in (1, 2, 3, 7):
        monkeypatch.setattr(form, "BLOCK", block)
        for _ in range(50):
            contents = [bytes(chance.choices(b"\r\n-x", k=chance.randrange(12))) for _ in "abc"]
            if any(b"\r\n--x" in b"\r\n" + one for one in contents):
                continue
            body = b"".join(file(one) for one in contents) + END
            assert [content for _, content in told(read(body, HEADER))] == contents


# ── hostile ones ─────────────────────────────────────────────────────────────────────────

WHOLE = part("model", b"clip") + file(b"picture") + END
BAD = {
    "nothing": b"",
    "no form": b'{"input": "a"}',
    "another boundary": WHOLE.replace(b"--x", b"--y"),
    "no last boundary": WHOLE.removesuffix(END),
    "a last boundary cut short": WHOLE.removesuffix(b"--\r\n"),
    "bare line feeds": WHOLE.replace(b"\r\n", b"\n"),
    "something behind the end": WHOLE + b"more",
    "something before the beginning": b"hello\r\n" + WHOLE,
    "a part without headers": b"--x\r\n\r\ncontent\r\n" + END,
    "a part without a name": part("", b"1") + END,
    "a part of another disposition": WHOLE.replace(b"form-data; name", b"attachment; name"),
    "a long name": part("a" * 129, b"1") + END,
    "headers of 1 MB": part("a", b"1", "", "X: " + "y" * 10**6) + END,
    "10,000 headers": part("a", b"1", "", *["x: y"] * 10_000) + END,
    "headers without an end": b"--x\r\n" + b"x: y\r\n" * 10**5,
    "a form within": part("a", b"1", "", "Content-Type: multipart/mixed; boundary=y") + END,
    "base64": part("a", b"MQ==", "", "Content-Transfer-Encoding: base64") + END,
    "a text that is none": part("a", b"\xff\xfe") + END,
    "a name that is none": part("a", b"1").replace(b'"a"', b'"\xff"') + END,
    "quotes without an end": b'--x\r\nContent-Disposition: form-data; name="' + b"\\" * 3000
    + b"\r\n\r\n1\r\n" + END,
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_form_is_a_bad_request(name: str) -> None:
    before = time.process_time()
    fault = refused(BAD[name])
    assert type(fault) is BadRequest
    assert "yyy" not in fault.message
    assert time.process_time() - before < 5  # of this process, however busy the machine is


@pytest.mark.parametrize("body", [WHOLE[:at] for at in range(len(WHOLE) - len(b"\r\n"))])
def test_a_form_that_was_cut_short_is_never_taken_for_whole(body: bytes) -> None:
    assert type(refused(body)) is BadRequest


@pytest.mark.parametrize(
    "body",
    [part("a", b"1") * 100_000 + END, file(b"") * 1025 + END, part("a", b"1" * (2**20 + 1)) + END],
    ids=["100,000 parts", "1025 files", "a long text"],
)
def test_too_much_of_it_is_refused(body: bytes) -> None:
    assert type(refused(body)) is TooLarge


@pytest.mark.parametrize(
    "header",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"multipart/form-data; boundary={'a' * 71}",
        'multipart/form-data; boundary="a',
        "multipart/form-data; boundary=\u00e4",
    ],
)
def test_no_boundary_is_another_content_type(header: str) -> None:
    assert type(refused(WHOLE, header)) is WrongType


# ── what becomes of it ───────────────────────────────────────────────────────────────────


def test_files_take_their_places_in_a_task() -> None:
    found = read(file(b"a") + file(MP4) + END, HEADER)
    picture, video = found.files
    task = Encode(
        items=(
            Item((Text("t"), Image(Url(picture)))),
            Item((Video(Url(video)), Image(Url("data:upload;0,0")))),
        )
    )
    assert [item.parts for item in found.redeemed(task).items] == [
        (Text("t"), Image(Blob(b"a"))),
        (Video(Blob(MP4)), Image(Url("data:upload;0,0"))),
    ]


def test_nobody_can_guess_what_stands_for_a_file() -> None:
    first, second = (next(iter(read(file() + END, HEADER).files)) for _ in range(2))
    assert first != second
    assert len(first) > 32
