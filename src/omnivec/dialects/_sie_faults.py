"""SIE's errors: its codes and statuses, always in JSON."""

from __future__ import annotations

from typing import Any

from omnivec.core import errors
from omnivec.core.errors import Fault
from omnivec.core.nouns import Reply
from omnivec.dialects import _wire

# SIE's code and status for each fault, the most particular class first.
_WORDS: tuple[tuple[type[Fault], int, str], ...] = (
    (errors.UnknownModel, 404, "MODEL_NOT_FOUND"),
    (errors.NotFound, 404, "NOT_FOUND"),
    (errors.WrongMethod, 405, "METHOD_NOT_ALLOWED"),
    (errors.TooLong, 400, "INPUT_TOO_LONG"),
    (errors.TooLarge, 413, "INPUT_TOO_LONG"),
    (errors.BadRequest, 400, "INVALID_INPUT"),
    (errors.Unsupported, 400, "INVALID_INPUT"),
    (errors.WrongType, 400, "INVALID_INPUT"),
    (errors.Unauthorized, 401, "UNAUTHORIZED"),
    (errors.Forbidden, 403, "FORBIDDEN"),
    (errors.TooSlow, 408, "REQUEST_TIMEOUT"),
    (errors.Overloaded, 503, "QUEUE_FULL"),
    (errors.LoadFailed, 502, "MODEL_LOAD_FAILED"),
    (errors.LoadingAdapter, 503, "LORA_LOADING"),
    (errors.Loading, 503, "MODEL_LOADING"),
    (errors.ModelFailed, 500, "INFERENCE_ERROR"),
)

_FIELDS = {
    "adapter": "params.options.lora_id",
    "dims": "params.options.dimensions",
    "kinds": "params.output_types",
    "labels": "params.labels",
    "profile": "params.options.profile",
    "template": "params.options.hypothesis_template",
    "weights": "options.score_mode",
}


def refuse(fault: Fault) -> Reply:
    """The fault in SIE's envelope."""
    status, code = _word(fault)
    detail: dict[str, Any] = {"code": code, "message": fault.message}
    if param := _wire.locate(fault.param, _FIELDS):
        detail["param"] = param
    headers = {**_wire.fault_headers(fault), "x-sie-error-code": code}
    if code == "QUEUE_FULL":
        headers.setdefault("retry-after", "1")
    if isinstance(fault, errors.LoadFailed):
        headers.pop("retry-after", None)  # `permanent` says whether waiting helps
        detail |= {
            "error_class": fault.cause,
            "permanent": fault.retry_after is None,
            "attempts": fault.attempts,
        }
    # its TypeScript client looks for the code at the top, the others inside of `detail`
    return _wire.write({"detail": detail, "code": code}, status, headers)


def _word(fault: Fault) -> tuple[int, str]:
    if isinstance(fault, errors.LoadFailed) and fault.cause == "DEPENDENCY":
        return 409, "DEPENDENCY_CONFLICT"  # as documented; its servers say MODEL_LOAD_FAILED
    theirs = fault.status < 500  # noqa: PLR2004 - HTTP's own boundary
    other = (fault.status, fault.code.upper()) if theirs else (500, "INTERNAL_ERROR")
    known = ((status, word) for kind, status, word in _WORDS if isinstance(fault, kind))
    return next(known, other)
