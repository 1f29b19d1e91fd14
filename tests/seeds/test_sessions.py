"""Whole sessions with Intel's service and with Synesis, as recorded in sessions/, replayed
against one running server each: over kept connections, one call after the other, and by many
at once. The models are tiny and random; they have the architectures and the vectors' lengths
of the ones that the services run."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import recorded
import users
from PIL import Image as Pillow
from recorded import Line

import live
import wire
from omnivec import Engine
from omnivec.core.nouns import Blob, Clip, Image, Item, Text
from seeing import build_qwen3_vl
from towers import build_towers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLIP_NAME = "CLIP/clip-vit-b-16"
LOCAL = {"OMNIVEC_HOST": "127.0.0.1", "OMNIVEC_MEDIA_ALLOW": "127.0.0.1", "OMNIVEC_DTYPE": "f32"}
WAYS = {
    "httpx": users.over_httpx,
    "requests": users.over_requests,
    "http.client": users.over_http_client,
}
CLOSE = 2e-5
"""Of numbers of order 1, from batches of different company in f32."""


class Stage(NamedTuple):
    """A running service, what was said to it, and an engine of the same weights."""

    server: live.Server
    lines: list[Line]
    folder: Path
    url: str
    engine: Engine


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def web(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def staged(
    name: str, folder: Path, variables: dict[str, str], models: tuple[str, ...]
) -> Iterator[Stage]:
    known = {"OMNIVEC_PROFILE": name, "OMNIVEC_MEDIA_ROOT": str(folder), **LOCAL}
    with (
        web(folder) as url,
        live.serve(env={**known, **variables}) as server,
        Engine(*models, dtype="f32", offline=True) as engine,
    ):
        yield Stage(server, recorded.load(name, folder, url), folder, url, engine)


@pytest.fixture(scope="module", name="intel")
def intel_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("videoQnA")
    emoji = sorted((wire.DATA / "images" / "emoji").glob("*.png"))
    shutil.copy(wire.DATA / "images" / "chelsea.png", folder / "cat.png")
    shutil.copy(emoji[3], folder / "hat.png")
    shutil.copy(wire.DATA / "video" / "bottle-detection.mp4", folder / "bottle.mp4")
    shutil.copy(wire.DATA / "video" / "small_video.mp4", folder / "small.mp4")
    write_manifests(folder)
    weights = build_towers("clip", tmp_path_factory.mktemp("weights") / "clip", projection=512)
    variables = {"EMBEDDING_MODEL_NAME": f"{CLIP_NAME}={weights}"}
    with staged("intel", folder, variables, (str(weights),)) as stage:
        yield stage


def write_manifests(folder: Path) -> None:
    listed = [
        {"frame_number": i, "timestamp": i / 30, "image_path": str(folder / name), "type": kind}
        for i, (name, kind) in enumerate(
            [("cat.png", "full_frame"), ("hat.png", "detected_crop"), ("cat.png", "full_frame")]
        )
    ]
    (folder / "frames.json").write_text(json.dumps({"frames": listed}))
    (folder / "empty.json").write_text(json.dumps({"frames": []}))
    lost = [{**listed[0], "image_path": str(folder / "lost.png")}]
    (folder / "lost.json").write_text(json.dumps({"frames": lost}))
    entries = [{**one, "frame_number": 30 * i} for i, one in enumerate([*listed, listed[0]])]
    (folder / "run-7").mkdir()
    (folder / "run-7" / "frames_manifest.json").write_text(
        json.dumps(
            {
                "frames": entries,
                "video_path": str(folder / "bottle.mp4"),
                "all_frame_metadata": entries,
                "frame_metadata_map": {"0": [0]},
                "total_metadata_entries": len(entries),
            }
        )
    )


@pytest.fixture(scope="module", name="synesis")
def synesis_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("data")
    (folder / "photos").mkdir()
    emoji = sorted((wire.DATA / "images" / "emoji").glob("*.png"))
    for name, picture in zip(("photos/cat.png", "dog.png", "shoe.png"), emoji, strict=False):
        Pillow.open(picture).convert("RGB").resize((96, 64)).save(folder / name)
    made = tmp_path_factory.mktemp("models")
    embedding = build_qwen3_vl(made / "Qwen3-VL-Embedding-2B", width=2048)
    reranker = build_qwen3_vl(made / "Qwen3-VL-Reranker-2B", seed=1)
    variables = {
        "EMBEDDING_MODEL_PATH": str(embedding),
        "EMBEDDING_RERANKER_MODEL_PATH": str(reranker),
        "EMBEDDING_HOST": "127.0.0.1",
    }
    with staged("synesis", folder, variables, (str(embedding), str(reranker))) as stage:
        yield stage


@pytest.fixture(params=["intel", "synesis"])
def stage(request: pytest.FixtureRequest) -> Stage:
    return request.getfixturevalue(request.param)


def replay(stage: Stage, way: str, start: int = 0) -> dict[str, list[float]]:
    """The numbers of every answer, each checked, on one connection from that line on."""
    found = {}
    with WAYS[way](stage.server.url) as say:
        for line in [*stage.lines[start:], *stage.lines[:start]]:
            found[line.name] = recorded.numbers(recorded.check(line, say(line)))
    return found


@pytest.fixture(scope="module")
def first() -> dict[str, dict[str, list[float]]]:
    """The numbers of the first replay, by service."""
    return {}


def heard(stage: Stage, first: dict[str, dict[str, list[float]]]) -> dict[str, list[float]]:
    if stage.server.url not in first:
        first[stage.server.url] = replay(stage, "httpx")
    return first[stage.server.url]


def vary(line: Line) -> bool:
    """Whether its numbers are another time's at another time."""
    return line.path in ("/health", "/metrics", "/openapi.json")


# ── replays ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", WAYS)
def test_a_session_is_answered_as_recorded(stage: Stage, first: Any, way: str) -> None:
    known, found = heard(stage, first), replay(stage, way)
    for line in stage.lines:
        if not vary(line):
            assert found[line.name] == pytest.approx(known[line.name], abs=CLOSE), line.name
        if line.equals is not None:
            assert found[line.name] == pytest.approx(found[line.equals], abs=CLOSE), line.name


def test_many_sessions_at_once_are_answered_as_one(stage: Stage, first: Any) -> None:
    known, ways = heard(stage, first), [*WAYS] * 2
    with ThreadPoolExecutor(len(ways)) as pool:
        starts = [i * len(stage.lines) // len(ways) for i in range(len(ways))]
        sessions = list(pool.map(partial(replay, stage), ways, starts))
    for found in sessions:
        for line in stage.lines:
            if not vary(line):
                assert found[line.name] == pytest.approx(known[line.name], abs=CLOSE), line.name


def test_the_vectors_are_the_engines_own(stage: Stage, first: Any) -> None:
    known = heard(stage, first)
    asked = [line for line in stage.lines if line.engine is not None]
    assert len(asked) >= 10
    for line in asked:
        told = known[line.name]
        if line.path == "/v1/rerank":  # index and score, best first
            scores = own(stage, line)
            best = sorted(range(len(scores)), key=lambda i: -scores[i])[: len(told) // 2]
            expected = [one for i in best for one in (i, scores[i])]
        elif line.path == "/v1/similarity":
            a, b = own(stage, line)
            expected = [float(a @ b), len(a)]
        else:
            rows = own(stage, line)
            indexed = [[i, *row] for i, row in enumerate(rows)] if "inputs" in line.engine else rows
            expected = np.concatenate(indexed).tolist()
        assert told == pytest.approx(expected, abs=CLOSE), line.name


def own(stage: Stage, line: Line) -> Any:
    told, engine = line.engine, stage.engine
    if "texts" in told:
        return engine.embed(told["texts"])
    if "files" in told:
        return engine.embed([stage.folder / name for name in told["files"]])
    if "film" in told:
        clip = Clip(indexes=tuple(told.get("indexes", ())), frames=told.get("frames", 64))
        return engine.embed(engine.film(stage.folder / told["film"], clip).frames)
    if "query" in told:
        documents = [item(stage, one) for one in told["documents"]]
        ranker = next(card.name for card in engine.cards if "encode" not in card.tasks)
        instruction = told["query"].get("instruction")
        query = item(stage, {**told["query"], "instruction": None})
        return engine.rerank(query, documents, model=ranker, instruction=instruction)
    given = told["inputs"] if "inputs" in told else [told["a"], told["b"]]
    wishes = {key: told[key] for key in ("dims", "normalize") if key in told}
    return engine.embed([item(stage, one) for one in given], **wishes)


def item(stage: Stage, told: dict[str, Any]) -> Item:
    parts: list[Any] = [Text(told["text"])] if "text" in told else []
    if "image" in told:
        parts.append(Image(Blob((stage.folder / told["image"]).read_bytes())))
    return Item(tuple(parts), instruction=told.get("instruction"))


# ── clients ──────────────────────────────────────────────────────────────────────────────


def test_intels_clients_find_what_was_recorded(intel: Stage, first: Any) -> None:
    known, endpoint = heard(intel, first), f"{intel.server.url}/embeddings"
    retriever = users.Retriever(endpoint, CLIP_NAME)
    assert retriever.width == 512
    query = retriever.embed_query("A photo of a cat")
    assert query == pytest.approx(known["a text"], abs=CLOSE)
    rows = retriever.embed_documents(["A photo of a cat", "A photo of a dog"])
    assert rows[0] == pytest.approx(query, abs=CLOSE)
    picture = retriever.embed_image(f"{intel.url}/cat.png")
    assert picture == pytest.approx(known["an image by URL"], abs=CLOSE)
    retriever.close()
    indexer = users.Indexer(endpoint, CLIP_NAME)
    assert indexer.embed(intel.folder / "cat.png") == pytest.approx(picture, abs=CLOSE)
    assert indexer.embed(intel.folder / "hat.png") != pytest.approx(picture, abs=0.01)
    indexer.close()
    preparation = users.Preparation(endpoint, CLIP_NAME)
    rows = preparation.embed(intel.folder / "run-7" / "frames_manifest.json")
    assert np.ravel(rows) == pytest.approx(known["a manifest by its absolute path"], abs=CLOSE)
    file = preparation.embed_image(str(intel.folder / "cat.png"))
    assert file == pytest.approx(picture, abs=CLOSE)


def test_synesis_client_indexes_searches_and_ranks(synesis: Stage) -> None:
    client = users.Synesis(synesis.server.url, dimension=128)
    assert client.is_ready()
    texts = [{"text": f"document {i} of a large collection"} for i in range(40)]
    index = np.array(client.embed([*texts, {"image": f"{synesis.url}/dog.png"}]))
    assert index.shape == (41, 128)
    (query,) = np.array(client.embed([texts[17]]))
    found = np.argsort(-(index @ query))[:20]
    assert found[0] == 17
    listed = [([*texts, {"image": f"{synesis.url}/dog.png"}])[i] for i in found]
    ranked = client.rank("which document?", listed, best=5)
    assert len(ranked) == 5
    assert all(document == listed[i] for i, document in ranked)
    client.close()
