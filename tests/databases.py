"""A PostgreSQL of the tests' own, on a socket in a folder of theirs, from Debian's package."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pg8000.dbapi

from omnivec.jobs.postgres import place

if TYPE_CHECKING:
    from collections.abc import Iterator


def command(name: str) -> str:
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, places)]))
    assert found, f"{name} is not here: scripts/packages postgresql"
    return os.path.realpath(found)


@contextmanager
def postgres() -> Iterator[str]:
    """A server's URL. It refuses to run as root, so root lends it somebody else's name."""
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    lent: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid} if user else {}
    with tempfile.TemporaryDirectory(prefix="omnivec-pg-") as folder:
        if user:
            os.chown(folder, user.pw_uid, user.pw_gid)
        data = str(Path(folder, "data"))
        made = (command("initdb"), "-D", data, "-U", "omnivec", "-A", "trust", "-N", "-E", "UTF8")
        subprocess.run(made, check=True, cwd=folder, stdout=subprocess.DEVNULL, **lent)
        options = (command("postgres"), "-D", data, "-k", folder, "-h", "")
        server = subprocess.Popen(options, cwd=folder, stderr=subprocess.DEVNULL, **lent)
        try:
            await_answer(f"postgresql://omnivec@/postgres?host={folder}", server)
            yield f"postgresql://omnivec@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)  # "fast": it throws its clients out
            server.wait(30)


def connect(url: str) -> Any:
    """pg8000's connection, each statement a transaction."""
    connection = pg8000.dbapi.connect(**place(url))
    connection.autocommit = True
    return connection


def await_answer(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        try:
            connect(url).close()
        except pg8000.dbapi.Error:
            assert server.poll() is None
            time.sleep(0.1)
        else:
            return
    raise AssertionError("PostgreSQL does not answer")
