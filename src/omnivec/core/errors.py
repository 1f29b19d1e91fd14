"""What can go wrong, as one tree. Each class carries its code and HTTP status.

    Fault
    ├─ BadRequest        400  the request itself is wrong; `param` names the field
    │  ├─ TooLong        400  an input exceeds the model's window and truncation was refused
    │  └─ AbsentFile     400  a file of this machine that cannot be read here
    ├─ Unauthorized      401  no key, or a wrong one
    ├─ Forbidden         403  a key without this right, or a source that settings do not allow
    ├─ NotFound          404  no such path
    │  └─ UnknownModel   404  no such model here
    ├─ WrongMethod       405
    ├─ TooSlow           408  the client sent slower than the deadline
    ├─ TooLarge          413
    ├─ WrongType         415  a content type that this path does not read
    ├─ Unsupported       422  well formed, but this model cannot do it
    │  └─ WrongMedium    422  it cannot read an image, or a video
    ├─ Overloaded        429  the queue is full; comes with `retry_after`
    ├─ ModelFailed       500  the model raised, hung, or gave numbers that are not finite
    └─ Loading           503  the model is not ready yet, or is going away; with `retry_after`
       ├─ LoadFailed     503  it could not be loaded; with `retry_after` if it may be later
       └─ LoadingAdapter 503  nor is the adapter that was asked for

A fault's message is written for the caller: short, fixed text, what would have been
accepted, never the caller's own value, a path of this machine or another exception's text.
Anything that is not a `Fault` is a bug: it goes to the log, and the caller is told
`ModelFailed` with the request's id.
"""

from __future__ import annotations


class Fault(Exception):  # noqa: N818 - the field's word; see the tree above
    """A failure that the caller is told about.

    `message` is the text, `param` the path of the field at fault (`input[3]`), and
    `retry_after` the seconds after which the same request may succeed.
    """

    code = "fault"
    status = 500

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after


class BadRequest(Fault):
    code = "bad_request"
    status = 400


class TooLong(BadRequest):
    code = "input_too_long"


class AbsentFile(BadRequest):
    code = "file_not_found"


class Unauthorized(Fault):
    code = "unauthorized"
    status = 401


class Forbidden(Fault):
    code = "forbidden"
    status = 403


class NotFound(Fault):
    code = "not_found"
    status = 404


class UnknownModel(NotFound):
    code = "model_not_found"


class WrongMethod(Fault):
    code = "method_not_allowed"
    status = 405


class TooSlow(Fault):
    code = "request_timeout"
    status = 408


class TooLarge(Fault):
    code = "too_large"
    status = 413


class WrongType(Fault):
    code = "unsupported_media_type"
    status = 415


class Unsupported(Fault):
    code = "unsupported"
    status = 422


class WrongMedium(Unsupported):
    """`medium` is "image" or "video"."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        medium: str = "image",
    ) -> None:
        super().__init__(message, param=param, retry_after=retry_after)
        self.medium = medium


class Overloaded(Fault):
    code = "overloaded"
    status = 429


class ModelFailed(Fault):
    code = "model_failed"
    status = 500


class Loading(Fault):
    code = "model_loading"
    status = 503


class LoadFailed(Loading):
    """`cause` is one of core/checkpoint.py's; `attempts` how often it was tried."""

    code = "model_load_failed"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        cause: str = "UNKNOWN",
        attempts: int = 1,
    ) -> None:
        super().__init__(message, param=param, retry_after=retry_after)
        self.cause = cause
        self.attempts = attempts


class LoadingAdapter(Loading):
    code = "adapter_loading"
