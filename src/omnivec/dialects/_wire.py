"""What every dialect needs: JSON in, JSON out, and the words that several of them share.

Reading is lax where clients are (null is absent, `"true"` is a boolean, unknown fields are
ignored) and strict where a guess would be a wrong answer.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, NotRequired, TypedDict, TypeVar

import numpy as np
import orjson
from msgspec import Meta

from omnivec.core import errors
from omnivec.core.errors import BadRequest, Fault, ModelFailed, Unsupported, WrongType
from omnivec.core.nouns import Call, Floats, Item, Overflow, Relevance, Reply, Result, Text
from omnivec.dialects import _json

T = TypeVar("T")

Truncate = Annotated[
    bool | str | None,
    Meta(
        description="Whether an input over the model's window is cut at its end. false or "
        '"NONE" refuses such an input; absent means the server\'s setting.',
        examples=[True, False, "END", "NONE"],
    ),
]
ModelName = Annotated[
    str | None,
    Meta(
        description="An id from GET /v1/models; absent means the server's default.",
        examples=["sentence-transformers/all-MiniLM-L6-v2"],
    ),
]


# ── reading ──────────────────────────────────────────────────────────────────────────────


def read(call: Call, shape: type[T]) -> T:
    """The body as `shape`. Raises WrongType, or BadRequest with the field's path."""
    _check_type(call.headers.get("content-type", ""))
    if call.outline is not None:
        return _json.read_large(call.outline, shape, call.limits.items + 1)
    if not call.body or call.body.isspace():
        raise BadRequest("The body is empty; it must be a JSON object.")
    try:
        if not call.body.isascii():
            call.body.decode()  # msgspec skips the fields it does not know without a look
    except UnicodeDecodeError:
        raise BadRequest("The body must be JSON in UTF-8.") from None
    return _json.decoded(call.body, shape, "", strict=False)


def _check_type(header: str) -> None:
    """No type at all is let through, as plain HTTP clients send none; the types that a
    foreign web page may post without asking first (text/plain, forms) are not."""
    if header == "application/json":
        return  # nearly every request
    essence, *parameters = [part.strip() for part in header.lower().split(";")]
    json = essence == "application/json" or re.fullmatch(r"application/\S+\+json", essence)
    if essence and not json:
        raise WrongType("Send the body as JSON, with the header `Content-Type: application/json`.")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in {"utf-8", "utf8"}:
            raise WrongType(
                "Send the body in UTF-8, with the header `Content-Type: application/json`."
            )


def check_count(count: int, most: int, field: str, kind: type[Fault] = BadRequest) -> None:
    """Raises `kind` unless 1 <= count <= most."""
    if count < 1:
        raise BadRequest(f"`{field}` is empty; it must have at least one item.", param=field)
    if count > most:
        raise kind(f"`{field}` must have at most {most} items.", param=field)


def check_query(text: str, field: str) -> str:
    if not text.strip():
        raise BadRequest(f"`{field}` must not be empty.", param=field)
    return text


def check_top(top: int | None, field: str) -> int | None:
    if top is not None and top < 1:
        raise BadRequest(f"`{field}` must be an integer of at least 1.", param=field)
    return top


def given(text: str | None) -> str | None:
    """A blank wish is none."""
    return text if text and text.strip() else None


# What clients say when their user named none; the last is Infinity's.
_NO_MODEL = {"", "default", "default/not-specified"}


def model_name(wanted: str | None) -> str | None:
    return None if wanted is None or wanted.strip() in _NO_MODEL else wanted


_CUT = {"true", "end", "right"}
_REFUSE = {"false", "none"}


def overflow(wish: bool | str | None, field: str) -> Overflow | None:
    """`truncate` of TEI, Cohere and NVIDIA, `truncation` of Voyage. None: the server's
    setting. Raises Unsupported for a cut at the start, BadRequest for anything else."""
    if wish is None:
        return None
    word = str(wish).lower()
    if word in _CUT:
        return "truncate"
    if word in _REFUSE:
        return "refuse"
    if word in {"start", "left"}:
        raise Unsupported(f"`{field}`: inputs can only be cut at their end.", param=field)
    raise BadRequest(f'`{field}` must be true, false, "END" or "NONE".', param=field)


def window(tokens: int | None, field: str) -> int | None:
    """vLLM's `truncate_prompt_tokens`, where -1 means the model's own window."""
    if tokens is None or tokens == -1:
        return None
    if tokens < 1:
        raise BadRequest(f"`{field}` must be -1 or an integer of at least 1.", param=field)
    return tokens


def is_packed(encoding_format: str | None) -> bool:
    """Whether vectors are asked for as base64. Raises BadRequest for a word of nobody's."""
    word = (encoding_format or "float").lower()
    if word not in {"float", "base64"}:
        raise BadRequest('`encoding_format` must be "float" or "base64".', param="encoding_format")
    return word == "base64"


def text_of(item: Item) -> str:
    """Its texts, a line each."""
    return "\n".join(part.text for part in item.parts if isinstance(part, Text))


# ── writing ──────────────────────────────────────────────────────────────────────────────


_JSON = MappingProxyType({"content-type": "application/json"})


def write(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """numpy rows are written directly; float32 with the shortest digits that read back."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Reply(body, status, {**_JSON, **headers} if headers else _JSON)


def write_lists(value: Mapping[str, Any], *names: str) -> Reply:
    """`write` for an object whose fields `names` may be long lists; those of many items are
    written some at a time."""
    long = [name for name in names if len(value[name]) > STRIDE]
    if not long:
        return write(value)
    tail = orjson.dumps({**value, **dict.fromkeys(long, ())}, option=orjson.OPT_SERIALIZE_NUMPY)
    pieces: list[bytes] = []
    for name in sorted(long, key=list(value).index):
        mark = b'"%b":[' % name.encode()  # the first that is no part of a text
        head, mark, tail = tail.partition(mark)
        pieces += [head, mark, *_pieces(value[name])]
    return Reply(b"".join([*pieces, tail]))


def _pieces(entries: list[Any]) -> Iterable[bytes]:
    for at in range(0, len(entries), STRIDE):
        yield b"," if at else b""
        some = entries[at : at + STRIDE]
        yield orjson.dumps(some, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


STRIDE = 16
"""Entries that are written in one step: of vectors, some thousand numbers."""


def row(vector: Floats) -> Any:
    """A float32 [d] as `write` takes it. Raises ModelFailed where it is not finite, which
    JSON would turn into null."""
    # one pass without a temporary; what overflows in the sum of squares is looked at closely
    if not math.isfinite(np.vdot(vector, vector)) and not np.isfinite(vector).all():
        raise ModelFailed("The model gave a vector that is not finite.")
    return np.ascontiguousarray(vector, dtype=np.float32)


def pack(vector: Floats) -> str:
    """base64 of the little-endian float32 bytes, which openai-node decodes unchecked."""
    return base64.b64encode(row(vector).astype("<f4", copy=False).tobytes()).decode()


def score(output: Relevance, *, raw: bool = False) -> float:
    """Raises ModelFailed where it is not finite."""
    value = float(output.raw if raw else output.value)
    if not math.isfinite(value):
        raise ModelFailed("The model gave a score that is not finite.")
    return value


def ranked(result: Result, *, raw: bool, top: int | None) -> list[tuple[int, float]]:
    """(index, score), best first. Of equal scores the raw ones tell: cosines below 0 are all
    0, and large logits all 1. Those that are equal too stay in the order of the request."""
    outputs = [output for output in result.outputs if isinstance(output, Relevance)]
    scores = [score(output, raw=raw) for output in outputs]
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], -outputs[index].raw))
    return [(index, scores[index]) for index in order[:top]]


class Usage(TypedDict):
    """What the request cost, in tokens of the model that answered."""

    prompt_tokens: int
    total_tokens: int
    truncated: NotRequired[
        Annotated[int, Meta(description="How many inputs were cut; absent when none was.")]
    ]


def usage(result: Result) -> Usage:
    tokens = result.usage.tokens
    answer = Usage(prompt_tokens=tokens, total_tokens=tokens)
    if result.usage.truncated:
        answer["truncated"] = result.usage.truncated
    return answer


# ── faults ───────────────────────────────────────────────────────────────────────────────


def fault_headers(fault: Fault) -> dict[str, str]:
    """Retry-After in whole seconds; and, as OpenAI's clients repeat every 5xx twice, a word
    that a failure which will not pass by waiting is not worth repeating."""
    headers = {}
    if fault.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(fault.retry_after)))
    elif fault.status >= 500:  # noqa: PLR2004 - HTTP's own boundary
        headers["x-should-retry"] = "false"
    return headers


# OpenAI's code and type for each fault, the most particular class first.
_WORDS: tuple[tuple[type[Fault], str, str], ...] = (
    (errors.UnknownModel, "MODEL_NOT_FOUND", "invalid_request_error"),
    (errors.NotFound, "NOT_FOUND", "invalid_request_error"),
    (errors.BadRequest, "INVALID_REQUEST", "invalid_request_error"),
    (errors.Unsupported, "INVALID_REQUEST", "invalid_request_error"),
    (errors.Unauthorized, "UNAUTHORIZED", "authentication_error"),
    (errors.Forbidden, "FORBIDDEN", "permission_error"),
    (errors.WrongMethod, "METHOD_NOT_ALLOWED", "invalid_request_error"),
    (errors.TooSlow, "REQUEST_TIMEOUT", "timeout_error"),
    (errors.TooLarge, "REQUEST_TOO_LARGE", "invalid_request_error"),
    (errors.WrongType, "UNSUPPORTED_MEDIA_TYPE", "invalid_request_error"),
    (errors.Overloaded, "OVERLOADED", "rate_limit_error"),
    (errors.Loading, "MODEL_LOADING", "server_error"),
    (errors.ModelFailed, "MODEL_FAILED", "server_error"),
)


def error(fault: Fault, fields: Mapping[str, str] = MappingProxyType({})) -> dict[str, str | None]:
    """The inside of OpenAI's envelope. `fields` as for `locate`."""
    theirs = fault.status < 500  # noqa: PLR2004 - HTTP's own boundary
    other = (fault.code.upper(), "invalid_request_error")
    words = ((code, kind) for known, code, kind in _WORDS if isinstance(fault, known))
    code, kind = next(words, other if theirs else ("INTERNAL_ERROR", "server_error"))
    param = locate(fault.param, fields)
    return {"message": fault.message, "type": kind, "param": param, "code": code}


def locate(param: str | None, fields: Mapping[str, str]) -> str | None:
    """The engine's name of a field ("dims") in the dialect's words ("dimensions"): `fields`
    maps the part before the first bracket. Items have the request's own name already."""
    if param is None:
        return None
    head, bracket, rest = param.partition("[")
    return fields.get(head, head) + bracket + rest
