"""Clients as users of Intel's service and of Synesis write them, each over another library."""

from __future__ import annotations

import base64
import http.client
import json
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import requests
from recorded import Line, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# ── a recorded call over a connection that is kept ───────────────────────────────────────


@contextmanager
def over_httpx(url: str) -> Iterator[Callable[[Line], Reply]]:
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:

        def say(line: Line) -> Reply:
            got = client.request(line.method, line.path, content=line.sent, headers=line.headers)
            return Reply(got.status_code, dict(got.headers), got.content)

        yield say


@contextmanager
def over_requests(url: str) -> Iterator[Callable[[Line], Reply]]:
    with requests.Session() as session:
        session.trust_env = False

        def say(line: Line) -> Reply:
            got = session.request(
                line.method, url + line.path, data=line.sent, headers=line.headers, timeout=120
            )
            return Reply(got.status_code, _lower(got.headers.items()), got.content)

        yield say


@contextmanager
def over_http_client(url: str) -> Iterator[Callable[[Line], Reply]]:
    """The standard library alone; one connection, or else it fails."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=120)
    connection.connect()
    connection.auto_open = 0

    def say(line: Line) -> Reply:
        connection.request(line.method, line.path, body=line.sent, headers=line.headers)
        got = connection.getresponse()
        return Reply(got.status, _lower(got.getheaders()), got.read())

    try:
        yield say
    finally:
        connection.close()


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}


# ── Intel's ──────────────────────────────────────────────────────────────────────────────


class Retriever:
    """The search service: a query, documents, an image that somebody looks for."""

    def __init__(self, endpoint: str, model: str) -> None:
        self._endpoint = endpoint
        self._model = model
        self._session = httpx.Client(trust_env=False, timeout=None)
        self.width = len(self.embed_documents(["probe_text"])[0])

    def embed_query(self, text: str) -> list[float]:
        found = self._post({"type": "text", "text": text})
        return found[0] if isinstance(found[0], list) else found

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        found = self._post({"type": "text", "text": texts})
        assert isinstance(found[0], list)
        return found

    def embed_image(self, url: str) -> list[float]:
        return self._post({"type": "image_url", "image_url": url})

    def close(self) -> None:
        self._session.close()

    def _post(self, given: dict[str, Any]) -> Any:
        body = {"model": self._model, "input": given, "encoding_format": "float"}
        reply = self._session.post(self._endpoint, json=body)
        reply.raise_for_status()
        return reply.json()["embedding"]


class Indexer:
    """Data preparation by Milvus: an image a call, each in ten seconds."""

    def __init__(self, endpoint: str, model: str) -> None:
        self._endpoint = endpoint
        self._model = model
        self._session = requests.Session()
        self._session.trust_env = False

    def embed(self, picture: Path) -> list[float]:
        packed = base64.b64encode(picture.read_bytes()).decode("utf-8")
        given = {"type": "image_base64", "image_base64": packed}
        body = {"model": self._model, "encoding_format": "float", "input": given}
        reply = self._session.post(self._endpoint, json=body, timeout=10)
        reply.raise_for_status()
        return reply.json()["embedding"]

    def close(self) -> None:
        self._session.close()


class Preparation:
    """Data preparation by VDMS: a manifest of a video's frames in a folder of both."""

    def __init__(self, endpoint: str, model: str) -> None:
        self._endpoint = endpoint
        self._model = model

    def embed(self, manifest: Path) -> list[list[float]]:
        entries = json.loads(manifest.read_text())["all_frame_metadata"]
        found = self._post({"type": "frames_batch", "frames_manifest_path": str(manifest)})
        if len(found) != len(entries):
            raise RuntimeError(f"Mismatch: {len(found)} embeddings for {len(entries)} entries")
        return found

    def embed_image(self, path: str) -> list[float]:
        return self._post({"type": "image_file", "image_path": path})

    def _post(self, given: dict[str, Any]) -> Any:
        body = {"model": self._model, "input": given, "encoding_format": "float"}
        asked = urllib.request.Request(
            self._endpoint, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=120) as reply:
            return json.load(reply)["embedding"]


# ── Synesis's ────────────────────────────────────────────────────────────────────────────


class Synesis:
    """Retrieval as its page describes it: microbatches to index, then search and rerank."""

    def __init__(self, url: str, dimension: int, batch: int = 32) -> None:
        self._url = url
        self._dimension = dimension
        self._batch = batch
        self._session = requests.Session()
        self._session.trust_env = False

    def is_ready(self) -> bool:
        return self._session.get(f"{self._url}/ready/", timeout=5).status_code == 200

    def embed(self, inputs: list[dict[str, str]]) -> list[list[float]]:
        found = []
        for at in range(0, len(inputs), self._batch):
            body = {"inputs": inputs[at : at + self._batch], "dimension": self._dimension}
            reply = self._post("/v1/embeddings", body)
            assert reply["usage"]["dimension"] == self._dimension
            found += [entry["embedding"] for entry in reply["embeddings"]]
        return found

    def rank(self, query: str, documents: list[dict[str, str]], best: int) -> list[tuple[int, Any]]:
        body = {"query": {"text": query}, "documents": documents, "top_n": best}
        reply = self._post("/v1/rerank", body)
        return [(result["index"], result["document"]) for result in reply["results"]]

    def close(self) -> None:
        self._session.close()

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        reply = self._session.post(self._url + path, json=body, timeout=60)
        reply.raise_for_status()
        return reply.json()
