"""Seed 000's bodies with pictures against a running server, verbatim but for host and paths. The
model takes pictures without having learnt to see: other pixels, other vectors."""

from __future__ import annotations

import json
import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

import live
import wire
from seeds import seed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEED = seed("000")


def pictured() -> list[dict[str, Any]]:
    found, end = [], 0
    for start in re.finditer(r"^\{$", SEED, re.MULTILINE):
        if start.start() >= end:
            body, end = json.JSONDecoder().raw_decode(SEED, start.start())
            found += [body] if '"image"' in json.dumps(body) else []
    return found


BODIES = pictured()
NAMES = sorted(set(re.findall(r'"image": "(?:/data/|https://example.com/)([^"]+)"', SEED)))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module", name="folder")
def media_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another picture under each name of the page."""
    folder = tmp_path_factory.mktemp("data")
    emoji = sorted((wire.DATA / "images" / "emoji").glob("*.png"))
    for name, picture in zip(NAMES, emoji, strict=False):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(picture, folder / name)
    return folder


@pytest.fixture(scope="module", name="web")
def web_server(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module", name="server")
def synesis_server(folder: Path) -> Iterator[live.Server]:
    flags = ("--media-root", str(folder), "--media-allow", "127.0.0.1", "--dialect", "synesis")
    with live.serve("fake:image=on", *flags) as running:
        yield running


def moved(body: dict[str, Any], folder: Path, web: str) -> dict[str, Any]:
    text = json.dumps(body).replace("/data/", f"{folder}/").replace("https://example.com", web)
    return json.loads(text)


def test_the_page_has_three_bodies_with_pictures() -> None:
    assert len(BODIES) == 3
    assert len(NAMES) == 6


@pytest.mark.parametrize("body", BODIES, ids=["images", "both", "rerank"])
def test_a_body_with_pictures(
    server: live.Server, folder: Path, web: str, body: dict[str, Any]
) -> None:
    sent = moved(body, folder, web)
    path = "/v1/embeddings" if "inputs" in sent else "/v1/rerank"
    reply = wire.request(server.url, path, sent)
    assert reply.status == 200, reply.body
    if "inputs" in sent:
        rows = [entry["embedding"] for entry in reply.json["embeddings"]]
        assert len(rows) == len({tuple(row) for row in rows}) == len(sent["inputs"])
        return
    assert len(reply.json["results"]) == sent["top_n"]
    for result in reply.json["results"]:
        assert result["document"] == sent["documents"][result["index"]]


def test_two_inputs_with_pictures_are_compared(server: live.Server, folder: Path) -> None:
    first, second = ({"image": str(folder / name)} for name in NAMES[:2])
    same = wire.request(server.url, "/v1/similarity", {"a": first, "b": first}).json
    other = wire.request(server.url, "/v1/similarity", {"a": first, "b": second}).json
    assert same["score"] == pytest.approx(1, abs=1e-5)
    assert other["score"] < 0.999


@pytest.mark.parametrize(
    "where", ["/etc/hostname", "absent.png", "http://127.0.0.2:1/a", "file:///etc/passwd"]
)
def test_what_cannot_be_read_is_422_with_its_place(server: live.Server, where: str) -> None:
    reply = wire.request(
        server.url, "/v1/embeddings", {"inputs": [{"text": "a"}, {"image": where}]}
    )
    assert reply.status == 422
    (told,) = reply.json["detail"]
    assert told["loc"] == ["body", "inputs", 1]
    assert where not in told["msg"]
