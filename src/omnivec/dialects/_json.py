"""JSON as wire types: of a small body in one step, of a large one in many.

Whatever is refused is told in our own words and by the field's path: msgspec's messages can
quote the client's value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from types import UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec

from omnivec.core.errors import BadRequest
from omnivec.core.outline import BLOCK, MalformedError, Outline, read_text

T = TypeVar("T")

# ── a large body ─────────────────────────────────────────────────────────────────────────


class _Hollow(NamedTuple):
    """An object without what is long in it: its text with an empty value for each of those, and
    which they are."""

    outline: Outline
    text: bytes
    lists: list[str]
    texts: list[str]
    objects: dict[str, _Hollow]


def read_large(outline: Outline, shape: type[T], most: int) -> T:
    """An object as `shape`, in steps. A long array has its first `most` items; a field of type
    Raw that is a long array is empty, as `read_items` reads it from the outline. Raises
    BadRequest with the field's path, TooLarge."""
    hollow = _hollow(outline, _structs(_members(shape)))
    request = decoded(hollow.text, shape, "", strict=False)
    _fill(request, hollow, most, "")
    return request


def _hollow(outline: Outline, structs: Iterable[type[msgspec.Struct]]) -> _Hollow:
    kinds: dict[str, list[Any]] = {}
    for field in (field for one in structs for field in msgspec.structs.fields(one)):
        kinds.setdefault(field.encode_name, []).extend(_members(field.type))
    objects: dict[str, _Hollow] = {}
    for name, among in kinds.items():
        if outline.is_long(name, b"{") and (inner := _structs(among)):
            try:
                objects[name] = _hollow(outline.inner(name), inner)
            except MalformedError:
                raise invalid() from None
    lists = [name for name in kinds if outline.is_long(name)]
    texts = [name for name in kinds if str in kinds[name] and outline.is_long(name, b'"')]
    empty = {**dict.fromkeys(lists, b"[]"), **dict.fromkeys(texts, b'""')}
    whole = outline.rest(empty | {name: inner.text for name, inner in objects.items()})
    return _Hollow(outline, whole, lists, texts, objects)


def _members(kind: Any) -> list[Any]:
    """The types that a value of this one may be."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [one for arg in get_args(kind) for one in _members(arg)]
    return [kind]


def _structs(kinds: Iterable[Any]) -> list[type[msgspec.Struct]]:
    return [one for one in kinds if isinstance(one, type) and issubclass(one, msgspec.Struct)]


def _fill(request: Any, hollow: _Hollow, most: int, place: str) -> None:
    """Put in what was left out, where the request has it."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(request)}
    for name in hollow.lists:
        if name in fields and (kind := fields[name].type) is not msgspec.Raw:
            try:
                groups = list(read_items(hollow.outline, name, kind, most, strict=False))
            except BadRequest as fault:
                raise _at(fault, f"{place}{fault.param}") from None
            setattr(request, fields[name].name, [item for _, items in groups for item in items])
    for name in hollow.texts:
        if name in fields:
            text = decoded(hollow.outline.view(name), str, f"{place}{name}", strict=True)
            setattr(request, fields[name].name, text)
    for name, inner in hollow.objects.items():
        if name in fields:
            _fill(getattr(request, fields[name].name), inner, most, f"{place}{name}.")


def read_items(
    outline: Outline,
    name: str,
    shape: Any,
    most: int,
    *,
    strict: bool = True,
    told: Callable[[BadRequest], BadRequest] = lambda fault: fault,
) -> Iterator[tuple[int, list[Any]]]:
    """The first `most` items of a long array of that type, some at a time, each time with the
    number of the first. Raises BadRequest with the item's path, as `told` words it."""
    if outline.view(name)[-1] != ord("]"):  # it would be cut off unread
        raise invalid()
    alone = outline.count(name) == 1
    for group in outline.groups(name, most):
        try:
            items = _group(group.text, shape, name, strict=strict)
        except BadRequest as fault:
            raise told(_moved(fault, name, group.first)) from None
        if len(items) != group.size and not alone:
            raise invalid()
        yield group.first, items


def _group(text: bytes, shape: Any, name: str, *, strict: bool) -> list[Any]:
    if len(text) > BLOCK and text[1:-1].strip()[:1] == b'"' and _holds_texts(shape):
        return [read_field(text[1:-1].strip(), str, name)]
    return decoded(text, shape, name, strict=strict)


def _holds_texts(shape: Any) -> bool:
    """Whether an item of such an array may be a text; where not, a decoder refuses it at once."""
    lists = [kind for kind in _members(shape) if get_origin(kind) is list]
    return any({str, Any} & set(_members(get_args(kind)[0])) for kind in lists)


def _moved(fault: BadRequest, name: str, first: int) -> BadRequest:
    """The fault of a group's item, as that of the whole array's."""
    number, bracket, after = (fault.param or "").removeprefix(f"{name}[").partition("]")
    if not bracket or not number.isdecimal():
        return fault
    return _at(fault, f"{name}[{first + int(number)}]{after}")


def _at(fault: BadRequest, param: str) -> BadRequest:
    """The same fault of another field."""
    if fault.param is None:
        return fault
    return BadRequest(fault.message.replace(f"`{fault.param}`", f"`{param}`"), param=param)


def read_field(raw: bytes | memoryview | msgspec.Raw, shape: Any, field: str) -> Any:
    """A field that was left unread at first. Unlike `read`, refuses a number that is written
    as a string. Raises BadRequest with the field's path."""
    return decoded(raw, shape, field, strict=True)


def decoded(
    raw: bytes | memoryview | msgspec.Raw, shape: type[T], field: str, *, strict: bool
) -> T:
    try:
        if (
            shape is str
            and not isinstance(raw, msgspec.Raw)
            and len(raw) > BLOCK
            and raw[:1] == b'"'
        ):
            return read_text(raw)  # type: ignore[return-value] # T is str
        return msgspec.json.decode(raw, type=shape, strict=strict)
    except msgspec.ValidationError as error:
        raise refusal(str(error), field) from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    except msgspec.DecodeError:
        raise invalid() from None


def invalid() -> BadRequest:
    return BadRequest(
        "The body must be one valid JSON object in UTF-8, without NaN, Infinity or lone surrogates."
    )


# ── refusals ─────────────────────────────────────────────────────────────────────────────

_KINDS = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "an array",
    "object": "an object",
}
_BOUNDS = {">=": "of at least", "<=": "of at most"}
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_EXPECTED = re.compile(r"Expected `([a-z |]+)`(?: (>=|<=) (\d+))?")


def refusal(error: str, field: str = "") -> BadRequest:
    """msgspec's "Expected `int`, got `str` - at `$.input[3]`" in words of ours."""
    text, _, path = error.rpartition(" - at `$") if error.endswith("`") else (error, "", "")
    if not text:  # no path: the whole body, or one of its own fields is missing
        text, path = error, ""
    param = (field + path.rstrip("`").replace("[...]", "")).lstrip(".")
    if missing := _MISSING.match(text):
        param = f"{param}.{missing[1]}" if param else missing[1]
        return BadRequest(f"`{param}` is required.", param=param)
    if not param:
        return BadRequest("The body must be a JSON object.")
    return BadRequest(f"`{param}` {_demand(text)}.", param=param)


def _demand(text: str) -> str:
    if expected := _EXPECTED.match(text):
        kinds = [_KINDS.get(kind, "another type") for kind in expected[1].split(" | ")]
        words = _either([kind for kind in kinds if kind != "another type"])
        bound = f" {_BOUNDS[expected[2]]} {expected[3]}" if expected[2] else ""
        return f"must be {words}{bound}"
    if "out of range" in text:
        return "is a number out of range"
    return "has a value that is not accepted here"


def _either(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
