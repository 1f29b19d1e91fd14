"""HTTP in this process: opens the port, serves until a signal, drains, and says how it went."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from omnivec.core.settings import Settings
from omnivec.server.asgi import Application
from omnivec.server.http import protocol

KEEP_ALIVE = 120
"""Seconds. aiohttp keeps idle connections for 90, and a POST to one that has gone is lost."""
BACKLOG = 2048
YOUNG = 20_000
"""Objects made and not yet gone before the garbage collector looks at them."""
MOST_CONNECTIONS = 16384
SWITCH = 0.001
"""Seconds for which a thread keeps the interpreter's lock while the event loop waits for it;
Python's own 5 ms add up when the loop asks again and again."""
HEAP = {-8: 2, -3: 4 << 20, -1: 8 << 20}
"""Of malloc.h: M_ARENA_MAX, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, in bytes."""
SPARE_FILES = 256
"""File descriptors that connections leave for model files, threads and logs."""


class PortError(OSError):
    """The address cannot be listened on; the message says why and what to do."""


def serve(
    app: Application, settings: Settings, *, opened: Callable[[str, int], None] | None = None
) -> int:
    """Serve until SIGTERM or SIGINT; returns the process's exit code.

    The port is bound before the application's startup runs and answers right after it.
    `opened` is called then with the address and the port (which `settings.port` 0 leaves to
    the system). At a signal the readiness probe says no, no connection is accepted any more,
    and whatever was admitted is answered within `settings.drain_timeout`; a second signal
    ends the process at once. Raises PortError.
    """
    sys.setswitchinterval(SWITCH)
    _share_heaps()
    sockets = listening(settings)
    server = Server(configure(app, settings), app)
    if opened is not None:
        address = sockets[0].getsockname()
        server.opened = lambda: opened(settings.host, address[1])
    _spare_collections()
    try:
        server.run(sockets=sockets)
    finally:
        for listener in sockets:
            listener.close()
    return 0 if server.started else 1


def _share_heaps() -> None:
    """glibc gives each thread a heap of its own and hardly ever gives one back: two for all of
    them keep some 30 MB less under mixed load. And each large block that is freed raises what it
    keeps, to 64 MB: fixed, what a large request took is given back with it. Other libraries of C
    have no such wishes."""
    with contextlib.suppress(AttributeError, OSError):
        for option, value in HEAP.items():
            ctypes.CDLL(None).mallopt(option, value)


def _spare_collections() -> None:
    """Requests leave next to nothing for the garbage collector, which looks at all that is in
    work whenever a burst of them begins, and at all that was ever imported now and then."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 50)


def configure(
    app: Application, settings: Settings, *, keep_alive: int = KEEP_ALIVE
) -> uvicorn.Config:
    """How uvicorn runs here: our protocol under it, our logging, no header of its own."""
    http = protocol(settings, capacity=_capacity(), refused=app.door.metrics.refused)
    app.door.metrics.connections = lambda: len(http.sweep.connections)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return uvicorn.Config(
        app,
        http=http,
        ws="none",
        loop="uvloop",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=keep_alive,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout)),
    )


def listening(settings: Settings) -> list[socket.socket]:
    """The sockets of a server's port and of its second one. Raises PortError."""
    sockets = bind(settings.host, settings.port)
    second = settings.health_port
    if second is None or second == settings.port:
        return sockets
    try:
        return [*sockets, *bind(settings.host, second, "--health-port")]
    except PortError:
        for opened in sockets:
            opened.close()
        raise


def bind(host: str, port: int, flag: str = "--host or --port") -> list[socket.socket]:
    """Sockets for every address of the host, bound and not yet listening. Raises PortError,
    which names the flag."""
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, proto, _, address in found:
            if sockets and port == 0:
                break  # the system's choice for one address may be taken on another
            sockets.append(_bound(family, kind, proto, address))
    except OSError as error:
        for opened in sockets:
            opened.close()
        raise PortError(
            error.errno,
            f"cannot listen on {host}:{port} ({error.strerror}); choose another with {flag}",
        ) from error
    return sockets


def _bound(family: int, kind: int, proto: int, address: tuple[object, ...]) -> socket.socket:
    made = socket.socket(family, kind, proto)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


class Server(uvicorn.Server):
    """uvicorn's, with signals that drain and then end with a code instead of a signal."""

    def __init__(self, config: uvicorn.Config, app: Application) -> None:
        super().__init__(config)
        self.opened: Callable[[], None] = lambda: None
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.opened()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike uvicorn's, does not raise the signal again when all is done."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals; whoever runs it stops it
            return
        kinds = (signal.SIGINT, signal.SIGTERM)
        before = {kind: signal.signal(kind, self.handle_exit) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        """The first signal drains, the second ends the process where it stands."""
        if self.should_exit:
            os._exit(128 + sig)
        self._app.door.draining = True
        self.should_exit = True


def _capacity() -> int:
    """As many connections as files may be open, the limit raised as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + SPARE_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < allowed:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            soft = allowed
    return max(32, min(MOST_CONNECTIONS, soft - SPARE_FILES))
