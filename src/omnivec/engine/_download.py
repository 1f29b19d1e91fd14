"""The two things about a download that concern a person: how far it is, and why it failed."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Self

from omnivec.core.checkpoint import Cause, CheckpointError
from omnivec.engine.catalog import Spec


class Meter:
    """What huggingface_hub takes for a progress bar: it counts, and draws nothing.

    The hub opens several at once (bytes received, bytes written, files); those in bytes are
    reported, the one that is further wins.
    """

    report: Callable[[int, int], None] | None = None
    bars: list[Meter]
    lock = Lock()

    def __init__(self, *items: Any, **options: Any) -> None:
        self.items = items[0] if items else ()
        self.n = options.get("initial") or 0
        self.total = options.get("total") or 0
        self.counts = options.get("unit") == "B"
        self.format_dict: dict[str, Any] = {"rate": None}
        with self.lock:
            self.bars.append(self)

    @classmethod
    @contextmanager
    def reporting(cls, report: Callable[[int, int], None] | None) -> Iterator[type[Meter]]:
        """A class of its own for each download, as two may run at once."""
        yield type("Meter", (cls,), {"report": staticmethod(report or _nobody), "bars": []})

    def update(self, n: float | None = 1) -> None:
        with self.lock:
            self.n += int(n or 0)
            bars = [bar for bar in self.bars if bar.counts]
            done = max((bar.n for bar in bars), default=0)
            total = max((bar.total or 0 for bar in bars), default=0)
        if self.counts and self.report is not None:
            self.report(int(done), int(max(done, total)))

    def __iter__(self) -> Iterator[Any]:
        for item in self.items:
            yield item
            self.update()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def __getattr__(self, name: str) -> Callable[..., None]:
        """refresh, close, set_description and the rest of a bar's drawing."""
        if name.startswith("__"):
            raise AttributeError(name)
        return _nobody

    @classmethod
    def get_lock(cls) -> Lock:
        return cls.lock

    @classmethod
    def set_lock(cls, lock: Lock) -> None:
        cls.lock = lock


def _nobody(*_values: object, **_options: object) -> None:
    return


def explain(error: BaseException, spec: Spec, cache: Path) -> CheckpointError:
    """Why a download failed and what to do, for the person who runs the server."""
    return CheckpointError(*_told(_cause(error), spec, cache))


def _told(error: BaseException, spec: Spec, cache: Path) -> tuple[str, Cause]:
    from huggingface_hub import constants, errors

    name, host = spec.source, constants.ENDPOINT
    match error:
        case errors.GatedRepoError():
            return (
                (
                    f"{name} is gated: accept its terms at {host}/{name}, then set HF_TOKEN to a "
                    "token of that account"
                ),
                "GATED",
            )
        case errors.RevisionNotFoundError():
            return (
                f"{name} has no revision {spec.revision!r}; accepted: a branch, a tag, a commit",
                "NOT_FOUND",
            )
        case errors.RepositoryNotFoundError():
            return (
                (
                    f"there is no model {name} on {host}, or it is private; check the spelling, or "
                    "set HF_TOKEN to a token that may read it"
                ),
                "NOT_FOUND",
            )
        case errors.OfflineModeIsEnabled():
            return (
                (
                    f"{name} is not in the cache ({cache}) and HF_HUB_OFFLINE is set; unset it, or "
                    f"run `omnivec pull {name}` where there is a network and copy the cache"
                ),
                "NETWORK",
            )
        case errors.HfHubHTTPError() as answer:
            status = getattr(answer.response, "status_code", "an error")
            return (f"{host} answered {status} for {name}; try again later", "NETWORK")
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return (
                (
                    f"the disk is full: {name} does not fit below {cache}; make room, or set "
                    "HF_HOME to a folder on another disk"
                ),
                "UNKNOWN",
            )
        case OSError(errno=errno.EACCES | errno.EPERM | errno.EROFS):
            return (
                f"{cache} cannot be written; change its owner, or set HF_HOME to another folder",
                "UNKNOWN",
            )
        case _:
            return (
                (
                    f"{name} is not in the cache and {host} cannot be reached; check the network, "
                    f"set HTTPS_PROXY or HF_ENDPOINT, or copy the cache ({cache}) from a machine "
                    f"where `omnivec pull {name}` worked"
                ),
                "NETWORK",
            )


def _cause(error: BaseException) -> BaseException:
    """The hub wraps what happened in "not in the cache": the first cause says more."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error
