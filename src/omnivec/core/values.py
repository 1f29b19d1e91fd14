"""One setting's value: from the text that a person wrote to the type that its field has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

SPELLINGS: Mapping[str, Mapping[str, str]] = {
    "dtype": {
        **dict.fromkeys(("float32", "fp32"), "f32"),
        **dict.fromkeys(("float16", "fp16", "half"), "f16"),
        **dict.fromkeys(("bfloat16",), "bf16"),
    },
    "device": {"gpu": "cuda"},
    "runtime": {"optimum": "onnx"},  # as Infinity calls what it runs ONNX with
}
SWITCH = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
UNITS = {"max_body": ", in bytes", "memory": ': "4GB"', "cache": ': "2GB"'}
"""What is said behind the type of a setting that is not accepted."""
# A model argument may hold commas (`fake:dims=8,seed=1`), never spaces or semicolons.
BETWEEN = {"models": r"[;\s]+"}


def convert(name: str, field: msgspec.structs.FieldInfo, value: object) -> Any:
    """`value` as the field's type; text is read as a person writes it, other values must have
    the type already. Raises msgspec.ValidationError."""
    read = _read(name, field, value) if isinstance(value, str) else value
    if isinstance(field.default, tuple) and isinstance(read, list):
        read = tuple(read)
    return msgspec.convert(read, field.type, strict=not isinstance(read, str))


def _read(name: str, field: msgspec.structs.FieldInfo, value: str) -> object:
    text = value.strip()
    if isinstance(field.default, tuple):
        return tuple(part for part in re.split(BETWEEN.get(name, r"\s*,\s*"), text) if part)
    if field.type is bool:
        return SWITCH.get(text.lower(), text)
    if name in SPELLINGS:
        return SPELLINGS[name].get(text.lower(), text.lower())
    return text


def accepted(kind: Any) -> Iterator[str]:
    """What a value of this type may be, in words: its choices, or its range."""
    from msgspec import inspect

    found = inspect.type_info(kind)
    for one in found.types if isinstance(found, inspect.UnionType) else (found,):
        match one:
            case inspect.LiteralType(values=values):
                yield from map(str, values)
            case inspect.IntType(ge=low, le=high):
                yield f"a whole number from {low}" + (f" to {high}" if high is not None else "")
            case inspect.FloatType(gt=above, ge=least):
                bound = f" from {least:g}" if least is not None else ""
                yield "a number of seconds" + (f" above {above:g}" if above is not None else bound)
            case inspect.BoolType():
                yield from ("true", "false")
            case inspect.VarTupleType():
                yield 'a list of texts: ["one", "two"]'
            case inspect.StrType():
                yield "a text, in quotes"
            case _:
                pass


def table(content: Mapping[str, object]) -> str | None:
    """The first name under which a TOML file has a table, or several."""
    firsts = (
        (key, one[0] if isinstance(one, list) and one else one) for key, one in content.items()
    )
    return next((key for key, one in firsts if isinstance(one, dict)), None)


def mask(name: str, value: object) -> object:
    """The value as it may be shown: `***` for each key and password."""
    if name == "api_keys" and isinstance(value, tuple):
        return ("***",) * len(value)
    if name == "jobs" and isinstance(value, str):  # a URL may have a password
        return re.sub(r"(?<=//).*(?=@)|(?<=password=)[^&]*", "***", value)
    return "***" if name == "admin_key" and value else value
