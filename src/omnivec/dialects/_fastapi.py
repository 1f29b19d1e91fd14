"""How services that are built with FastAPI tell what is wrong with a body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypedDict

from omnivec.core.errors import Fault
from omnivec.dialects import _wire

_SEGMENT = re.compile(r"[^.\[\]]+")


class Complaint(TypedDict):
    """One fault of a body. FastAPI adds the client's value; that is never repeated here."""

    type: str
    loc: list[str | int]
    msg: str


def complaint(fault: Fault, fields: Mapping[str, str] = MappingProxyType({})) -> Complaint:
    """`fields` as for `_wire.locate`."""
    missing = fault.message.endswith("is required.")
    return Complaint(
        type="missing" if missing else "value_error",
        loc=_location(_wire.locate(fault.param, fields)),
        msg=fault.message,
    )


def _location(param: str | None) -> list[str | int]:
    """`inputs[3].text` is ["body", "inputs", 3, "text"]."""
    segments = _SEGMENT.findall(param or "")
    return ["body", *(int(part) if part.isdigit() else part for part in segments)]
