"""Plain HTTP for tests: what goes over the wire and nothing else."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

DATA = Path(__file__).parents[2] / "shared" / "data"
DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(
    url: str,
    path: str,
    body: Any = None,
    *,
    method: str | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 60,
) -> Answer:
    """One request on a connection of its own. `body` is sent as it is when it is bytes, else
    as JSON."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=timeout)
    sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    kind = {"content-type": "application/json"} if sent is not None else {}
    try:
        verb = method or ("GET" if sent is None else "POST")
        connection.request(verb, path, body=sent, headers=kind | (headers or {}))
        reply = connection.getresponse()
        names = {name.lower(): value for name, value in reply.getheaders()}
        return Answer(reply.status, names, reply.read())
    finally:
        connection.close()


def raw(url: str, data: bytes, *, timeout: float = 30) -> bytes:
    """Send bytes, then read until the server closes or `timeout` seconds pass in silence."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=timeout) as connection:
        connection.sendall(data)
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except TimeoutError:
            pass
        return received


def jsonl(relative: str) -> list[dict[str, Any]]:
    """A file of the real data, one object for each line."""
    with (DATA / relative).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
