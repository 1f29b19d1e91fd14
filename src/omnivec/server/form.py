"""Files that are sent as a form: `curl -F file=@cat.jpg` (multipart/form-data, RFC 7578).

A form becomes the JSON body that says the same, as the dialect writes it, with a URL in place of
each file that nobody outside can know; in the task that is decoded from it the files take those
places. Nothing is written to a disk, and a file's own name is never looked at.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from omnivec.core.errors import BadRequest, TooLarge, WrongType
from omnivec.core.form import TEXTS, Field, Form, Upload
from omnivec.core.nouns import Blob, Call, Encode, Image, Item, Part, Task, Url, Video
from omnivec.core.outline import BLOCK
from omnivec.media.containers import HEAD, container, is_picture
from omnivec.server.aside import LARGE_BODY, Aside

if TYPE_CHECKING:
    from omnivec.server.operations import Operation

MOST_PARTS = 1024
MOST_HEAD = 4096
"""Bytes of one part's headers."""
MOST_TEXT = 2**20
"""Bytes of all fields that are no files."""
LONGEST_NAME = 128

_BOUNDARY = re.compile(
    r';\s*boundary=(?:"([^"\\]{1,70})"|([^\s;"]{1,70}))\s*(?:;|$)', re.IGNORECASE
)
_PARAMETER = re.compile(r';\s*([\w*.-]{1,40})=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))')
_PLAIN = ("", "7bit", "8bit", "binary")

_MEDIA = ("image/", "video/", "audio/", "application/octet-stream")
_NEVER_JSON = (*_MEDIA, "text/", "multipart/", "application/x-www-form-urlencoded")
_JSON = "Send the body as JSON, with the header `Content-Type: application/json`."
_AS_FORM = "Send JSON, or a picture as a form: `curl -F file=@cat.jpg`."

NEITHER = (
    "A file of a form must be a picture or a video; one of words (`Content-Type: text/plain`) is "
    f"read in the fields {', '.join(f'`{name}`' for name in TEXTS)}."
)


class Head(NamedTuple):
    """What is said of a part; `kind` is its Content-Type, in small letters. `unnamed`: a file
    without a name, as browsers send where none was chosen."""

    name: str
    kind: str
    is_file: bool
    unnamed: bool


class Posted(NamedTuple):
    """A form and its files, by the URLs that stand for them."""

    form: Form
    files: Mapping[str, bytes]

    def choose(self, operations: Sequence[Operation], blamed: Operation) -> Operation:
        """Whose it is: as of a body with fields of these names, among those that take forms."""
        names = {field.name: msgspec.Raw(b'""') for field in self.form}
        for operation in operations:
            endpoint = operation.endpoint
            if endpoint.form and endpoint.recognises and endpoint.recognises(names):
                return operation
        return next(one for one in (blamed, *operations) if one.endpoint.form)

    def rewritten(self, call: Call, operation: Operation) -> Call:
        """The call as if its client had sent JSON. Raises what the dialect's `form` raises."""
        form = operation.endpoint.form
        assert form is not None  # noqa: S101 - who has none was not chosen
        headers = {**call.headers, "content-type": "application/json"}
        body = msgspec.json.encode(form(self.form))
        return msgspec.structs.replace(call, body=body, headers=headers)

    def redeemed(self, task: Task) -> Task:
        """The task with the files in their places."""
        if not self.files or not isinstance(task, Encode):
            return task
        items = tuple(self._item(item) for item in task.items)
        return msgspec.structs.replace(task, items=items)

    def _item(self, item: Item) -> Item:
        return msgspec.structs.replace(item, parts=tuple(map(self._part, item.parts)))

    def _part(self, part: Part) -> Part:
        if isinstance(part, Image | Video) and isinstance(part.source, Url):
            file = self.files.get(part.source.url)
            if file is not None:
                return msgspec.structs.replace(part, source=Blob(file))
        return part


async def posted(
    call: Call, body: bytes, operations: Sequence[Operation], aside: Aside
) -> Posted | None:
    """The form that a call sends, None for another body. Raises as `read`, and WrongType for a
    form that none of the operations takes and for a body of which its type says that it is a
    file or a text."""
    header = call.headers.get("content-type", "")
    if header == "application/json" or call.method != "POST":
        return None
    taken = any(operation.endpoint.form for operation in operations)
    essence = header[:64].strip().lower()
    if not essence.startswith("multipart/form-data"):
        if essence.startswith(_NEVER_JSON):
            raise WrongType(_AS_FORM if taken and essence.startswith(_MEDIA) else _JSON)
        return None
    if not taken:
        raise WrongType(
            "Forms are read where embeddings are asked for, at /v1/embeddings; send JSON here."
        )
    if len(body) > LARGE_BODY:
        return await aside.run(read, body, header)
    return read(body, header)


def read(body: bytes, header: str) -> Posted:
    """A form by its bytes and its Content-Type. Raises WrongType where that tells no boundary,
    BadRequest for what is no whole form, and TooLarge for more of it than is read."""
    token = secrets.token_hex(16)
    fields: list[Field] = []
    files: dict[str, bytes] = {}
    letters = 0
    strange = False
    for number, (part, content) in enumerate(_parts(body, b"\r\n--" + _boundary(header))):
        name = part.name
        if number == MOST_PARTS:
            raise TooLarge(f"A form may have {MOST_PARTS} fields.")
        if part.unnamed and not content:
            continue
        if part.is_file:
            medium = _medium(part.kind, content[:HEAD])
            strange |= medium is None
            url = f"data:upload;{token},{len(files)}"
            files[url] = content
            fields.append(Field(name, Upload(medium or "image", url)))
            continue
        letters += len(content)
        if letters > MOST_TEXT:
            raise TooLarge(f"The fields of a form that are no files may have {MOST_TEXT} bytes.")
        fields.append(Field(name, _text(content)))
    if strange:
        raise BadRequest(NEITHER)
    return Posted(tuple(fields), files)


def _medium(kind: str, head: bytes) -> Literal["image", "video"] | None:
    """By a file's bytes; one that is sent as a picture and is none is the loader's to refuse."""
    if container(head) is not None:
        return "video"
    return "image" if is_picture(head) or kind.startswith("image/") else None


def _parts(body: bytes, delimiter: bytes) -> Iterator[tuple[Head, bytes]]:
    """Each part and its content."""
    at = len(delimiter) - 2
    if not body.startswith(delimiter[2:]):
        raise _malformed()
    while body[at : at + 2] != b"--":
        part, start = _head(body, at)
        end = _find(body, delimiter, start)
        yield part, body[start:end]
        at = end + len(delimiter)
    if body[at + 2 : at + 5] not in (b"", b"\r\n"):
        raise _malformed()


def _boundary(header: str) -> bytes:
    found = _BOUNDARY.search(header)
    if found is None or not header.isascii():
        raise WrongType(
            "Send the body as JSON, with the header `Content-Type: application/json`, or as a form "
            "whose Content-Type names the boundary."
        )
    return (found[1] or found[2]).encode()


def _find(body: bytes, delimiter: bytes, at: int) -> int:
    """Where a part ends. In steps, between which other threads come to their turn."""
    for start in range(at, len(body), BLOCK):
        found = body.find(delimiter, start, start + BLOCK + len(delimiter) - 1)
        if found >= 0:
            return found
    raise _malformed()


def _head(body: bytes, at: int) -> tuple[Head, int]:
    """What a part's headers say, and where its content begins."""
    end = body.find(b"\r\n\r\n", at, at + MOST_HEAD + 4)
    if body[at : at + 2] != b"\r\n" or end < 0:
        raise _malformed()
    lines = [line.partition(":") for line in _text(body[at + 2 : end]).split("\r\n")]
    told = {name.strip().lower(): value.strip() for name, _, value in lines}
    disposition = told.get("content-disposition", "")
    given = {name.lower(): q or plain for name, q, plain in _PARAMETER.findall(disposition)}
    name = given.get("name", "").removesuffix("[]")
    kind = told.get("content-type", "").lower()
    if disposition[:9].lower() != "form-data" or not 0 < len(name) <= LONGEST_NAME:
        raise _malformed()
    if kind.startswith("multipart/"):
        raise BadRequest("A form within a form is not read; send each file as a field of its own.")
    if told.get("content-transfer-encoding", "").lower() not in _PLAIN:
        raise BadRequest("The fields of a form are read as they are, without an encoding.")
    media = kind.startswith(("image/", "video/", "application/octet-stream"))
    is_file = media or "filename" in given or "filename*" in given
    is_text = kind.startswith("text/") and name in TEXTS  # a file of words, as an input
    return Head(name, kind, is_file and not is_text, given.get("filename") == ""), end + 4


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise BadRequest("The fields of a form that are no files must be in UTF-8.") from None


def _malformed() -> BadRequest:
    return BadRequest(
        "The body must be one whole form (multipart/form-data): each part begins with the boundary "
        f"and has a `Content-Disposition: form-data` with a name, in at most {MOST_HEAD} bytes of "
        "headers, and the last one ends with the boundary and `--`."
    )
