"""The process of one device: `python -m omnivec.runtimes._torch.worker FD ...`.

The first socket brings what to open; then every socket brings batches, one at a time, each on
a thread of its own. The process ends when the other side closes them.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Sequence
from socket import socket

from omnivec.core.adapter import Adapter
from omnivec.core.checkpoint import Checkpoint, CheckpointError
from omnivec.core.seams import SessionLost
from omnivec.runtimes._torch import frames
from omnivec.runtimes._torch.opening import Local, open_session

log = logging.getLogger("omnivec.torch")


def work(connections: Sequence[socket]) -> None:
    """Serve until the connections are closed."""
    session = _open(connections[0])
    if session is None:
        return
    threads = [threading.Thread(target=_serve, args=(one, session)) for one in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _open(connection: socket) -> Local | None:
    asked = frames.receive(connection).header
    if not isinstance(asked, frames.Open):
        raise TypeError("a worker is first told what to open")
    from pathlib import Path

    try:
        adapters = [Adapter(name, Path(folder)) for name, folder in asked.adapters]
        overrides = {"pickle": asked.pickle}
        checkpoint = Checkpoint(
            asked.name, Path(asked.folder), overrides=overrides, adapters=adapters
        )
        session = open_session(checkpoint, asked.head, asked.device, asked.dtype)
    except CheckpointError as error:
        frames.send(connection, frames.Failed(str(error), unusable=True))
        return None
    frames.send(connection, frames.Ready(session.padding, session.batch_cost))
    return session


def _serve(connection: socket, session: Local) -> None:
    try:
        while True:
            _answer(connection, session, frames.receive(connection).arrays)
    except (EOFError, OSError):
        return
    finally:  # whatever else it was, nobody reads from here any more
        connection.close()


def _answer(connection: socket, session: Local, arrays: frames.Arrays) -> None:
    try:
        output = session.run(arrays)
    except SessionLost as error:
        frames.send(connection, frames.Failed(str(error), lost=True))
    except Exception as error:
        log.exception("a batch failed")
        frames.send(connection, frames.Failed(type(error).__name__))
    else:
        frames.send(connection, frames.batch_of(output, session.memory()), output)


if __name__ == "__main__":
    work([socket(fileno=int(number)) for number in sys.argv[1:]])
