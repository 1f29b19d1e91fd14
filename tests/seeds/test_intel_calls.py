"""Seed 003, the page of Intel's Multimodal Embedding Serving: its curl lines and its input objects
against a running server, verbatim but for host and paths, and a client's recorded session. The
model takes pictures without having learnt to see: other pixels, other vectors."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
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

SEED = seed("003")
NAME = "CLIP/clip-vit-b-16"
WIDTH = 32
CURLS = re.findall(r"^curl -X POST .*?^\}'", SEED, re.MULTILINE | re.DOTALL)
PICTURE = wire.DATA / "images" / "chelsea.png"
FILM = wire.DATA / "video" / "bottle-detection.mp4"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module", name="folder")
def media_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videoQnA")
    for name in ("photo.jpg", "frame1.jpg"):  # which they are is read from their bytes
        shutil.copy(PICTURE, folder / name)
    for name in ("video.mp4", "sample.mp4"):
        shutil.copy(FILM, folder / name)
    return folder


@pytest.fixture(scope="module", name="web")
def web_server(folder: Path) -> Iterator[str]:
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module", name="server")
def intel_server(folder: Path) -> Iterator[live.Server]:
    variables = {
        "OMNIVEC_PROFILE": "intel",
        "EMBEDDING_MODEL_NAME": f"{NAME}=fake:image=on",
        "OMNIVEC_HOST": "127.0.0.1",
        "OMNIVEC_MEDIA_ROOT": str(folder),
        "OMNIVEC_MEDIA_ALLOW": "127.0.0.1",
    }
    with live.serve(env=variables) as running:
        yield running


def moved(text: str, server: live.Server, web: str) -> str:
    return text.replace("http://localhost:8000", server.url).replace("https://example.com", web)


def post(server: live.Server, given: Any, **more: Any) -> wire.Answer:
    body = {"model": NAME, "input": given, "encoding_format": "float", **more}
    return wire.request(server.url, "/embeddings", body, timeout=120)


def rows_of(server: live.Server, given: Any, **more: Any) -> Any:
    reply = post(server, given, **more)
    assert reply.status == 200, reply.body
    assert reply.json.keys() == {"embedding"}
    return reply.json["embedding"]


def packed(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


# ── the page ─────────────────────────────────────────────────────────────────────────────


def test_the_pages_curl_lines(server: live.Server, web: str) -> None:
    found = []
    for line in CURLS:
        done = subprocess.run(
            ["bash", "-c", f"{moved(line, server, web)} --silent --show-error"],
            env=live.environment({}),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        (key,) = json.loads(done.stdout)
        assert key == "embedding"
        found.append(json.loads(done.stdout)["embedding"])
    text, image, video = found
    assert len(text) == len(image) == WIDTH
    assert (len(video), {len(row) for row in video}) == (64, {WIDTH})
    assert text != image


def inputs() -> list[dict[str, Any]]:
    """The input objects that stand alone on the page."""
    found, end = [], 0
    for match in re.finditer(r'^(?=\{\s*"type": )', SEED, re.MULTILINE):
        if match.end() >= end:
            given, end = json.JSONDecoder().raw_decode(SEED, match.end())
            found.append(given)
    return found


@pytest.mark.parametrize("given", inputs(), ids=lambda given: given["type"])
def test_the_pages_inputs(
    server: live.Server, web: str, folder: Path, given: dict[str, Any]
) -> None:
    listed = [
        {"frame_number": i, "timestamp": i / 30, "image_path": path, "type": "full_frame"}
        for i, path in enumerate([str(folder / "photo.jpg"), "frame1.jpg"])
    ]
    (folder / "frames.json").write_text(json.dumps(listed))
    stands_for = {
        "<base64_encoded_image>": packed(PICTURE),
        "<base64_frame>": packed(PICTURE),
        "<base64_encoded_video>": packed(FILM),
        "<file_name>": "sample",
        "/data/manifests/frames.json": str(folder / "frames.json"),
    }
    text = moved(json.dumps(given), server, web)
    for placeholder, real in stands_for.items():
        text = text.replace(placeholder, real)
    rows = rows_of(server, json.loads(text))
    single = {"text": isinstance(given.get("text"), str), "image_url": True, "image_base64": True}
    if single.get(given["type"], False):
        assert len(rows) == WIDTH
        return
    few = {"text": 2, "video_frames": 2, "frames_batch": 2}
    assert (len(rows), {len(row) for row in rows}) == (few.get(given["type"], 64), {WIDTH})


def test_its_own_answers_about_the_model(server: live.Server) -> None:
    documented = [json.loads(one) for one in re.findall(r'^\{ "model": .*\}$', SEED, re.MULTILINE)]
    current, capable = documented
    told = wire.request(server.url, "/model/current").json
    assert told == {**current, "use_openvino": False}
    told = wire.request(server.url, "/model/capabilities").json
    assert told.pop("modalities")[:2] == capable.pop("modalities")
    assert told == {**capable, "supports_video": True}  # decision 18: the sample is wrong there
    (listed,) = re.findall(r'^\{ "current_model": .*\}$', SEED, re.MULTILINE)
    assert wire.request(server.url, "/models").json == json.loads(listed)
    assert wire.request(server.url, "/health").json == {"status": "healthy"}


# ── one picture, many ways ───────────────────────────────────────────────────────────────


def test_one_picture_has_one_vector_however_it_comes(
    server: live.Server, web: str, folder: Path
) -> None:
    url = {"type": "image_url", "image_url": f"{web}/photo.jpg"}
    ways = [
        {"type": "image_base64", "image_base64": packed(PICTURE)},
        {"type": "image_base64", "image_base64": f"data:image/png;base64,{packed(PICTURE)}"},
        {"type": "image_file", "image_path": "photo.jpg"},
        {"type": "image_file", "image_path": str(folder / "photo.jpg")},
    ]
    first = rows_of(server, url)
    assert [rows_of(server, way) for way in ways] == [pytest.approx(first, abs=1e-6)] * len(ways)
    listed = {"type": "image_url", "image_url": [f"{web}/photo.jpg", f"{web}/frame1.jpg"]}
    assert rows_of(server, listed) == [pytest.approx(first, abs=1e-6)] * 2
    numbers = rows_of(server, url, encoding_format="base64")
    assert len(base64.b64decode(numbers)) == 4 * WIDTH


def test_concurrent_callers_get_their_own_rows(server: live.Server) -> None:
    """One image a call, as the retrievers send them."""
    names = sorted((wire.DATA / "images" / "emoji").glob("*.png"))[:12]
    alone = [rows_of(server, {"type": "image_base64", "image_base64": packed(n)}) for n in names]
    assert len({tuple(row) for row in alone}) > 6
    with ThreadPoolExecutor(8) as pool:
        given = [{"type": "image_base64", "image_base64": packed(name)} for name in names]
        together = list(pool.map(partial(rows_of, server), given))
    assert together == [pytest.approx(row, abs=1e-6) for row in alone]


# ── frames ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({}, 64),
        ({"num_frames": 8}, 8),
        ({"startOffsetSec": 1, "clip_duration": 2, "num_frames": 64}, 59),
        ({"startOffsetSec": 5, "clip_duration": 5, "num_frames": 8}, 8),
        ({"extraction_fps": 1}, 40),
        ({"extraction_fps": 2.5, "clip_duration": 10}, 25),
        ({"frame_indexes": [20, 1, 10, 10]}, 3),
        ({"frame_indexes": [99999]}, 64),
        ({"num_frames": 0, "clip_duration": 1, "frame_interval": 10}, 3),
    ],
    ids=str,
)
def test_rows_of_the_film(server: live.Server, config: dict[str, Any], count: int) -> None:
    """intel.md 2.2 has these counts."""
    given = {"type": "video_file", "video_path": "sample.mp4", "segment_config": config}
    assert len(rows_of(server, given)) == count


def test_a_manifest_has_a_row_for_each_entry(server: live.Server, folder: Path) -> None:
    """Of an object with a video, as the client of data preparation writes it."""
    entries = [
        {"frame_number": number, "timestamp": number / 30, "image_path": path, "type": kind}
        for number, path, kind in [
            (30, None, "full_frame"),
            (30, str(folder / "photo.jpg"), "detected_crop"),
            (0, None, "full_frame"),
            (30, None, "full_frame"),
        ]
    ]
    manifest = {
        "frames": entries[:1],
        "video_path": str(folder / "sample.mp4"),
        "all_frame_metadata": entries,
        "frame_metadata_map": {"30": [0, 1]},
        "total_metadata_entries": len(entries),
    }
    (folder / "frames_manifest.json").write_text(json.dumps(manifest))
    given = {"type": "frames_batch", "frames_manifest_path": "frames_manifest.json"}
    rows = rows_of(server, given)
    config = {"frame_indexes": [0, 30]}
    film = {"type": "video_file", "video_path": "sample.mp4", "segment_config": config}
    first, thirtieth = rows_of(server, film)
    picture = rows_of(server, {"type": "image_file", "image_path": "photo.jpg"})
    expected = [thirtieth, picture, first, thirtieth]
    assert rows == [pytest.approx(row, abs=1e-6) for row in expected]


# ── refusals ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ({"type": "video_file", "video_path": "absent.mp4", "segment_config": {}}, 404,
         "File not found: "),
        ({"type": "frames_batch", "frames_manifest_path": "absent.json"}, 404, "File not found: "),
        ({"type": "image_file", "image_path": "/etc/hostname"}, 404, "File not found: "),
        ({"type": "image_url", "image_url": "http://127.0.0.2:1/a"}, 422, "Invalid input data: "),
        ({"type": "image_url", "image_url": "file:///etc/passwd"}, 422, "Invalid input data: "),
        ({"type": "image_base64", "image_base64": "bm8gcGljdHVyZQ=="}, 422,
         "Invalid input data: "),
        ({"type": "video_base64", "video_base64": "bm8gZmlsbQ==", "segment_config": {}}, 422,
         "Invalid input data: "),
        ({"type": "video_file", "video_path": "sample.mp4",
          "segment_config": {"startOffsetSec": 4000}}, 422, "Invalid input data: "),
    ],
)  # fmt: skip
def test_what_cannot_be_read(server: live.Server, given: Any, status: int, words: str) -> None:
    reply = post(server, given)
    assert reply.status == status
    assert reply.json["detail"].startswith(words)
    for told in ("absent", "hostname", "passwd", "127.0.0.2", "videoQnA"):
        assert told not in reply.json["detail"]


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"frames": [{}]}', b'[{"frame_number": 0}]'])
def test_a_manifest_that_is_none(server: live.Server, folder: Path, content: bytes) -> None:
    (folder / "bad.json").write_bytes(content)
    reply = post(server, {"type": "frames_batch", "frames_manifest_path": "bad.json"})
    assert reply.status == 422
    assert reply.json["detail"].startswith("Invalid input data: ")
    assert "manifest" in reply.json["detail"]
