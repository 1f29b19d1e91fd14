"""Pictures and videos sent as a form, `curl -F file=@cat.jpg`, to a running server: the same
vectors as in base64, refusals in the dialect's own words, and nothing left behind."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

import live
import wire

if TYPE_CHECKING:
    from collections.abc import Iterator

EMBED = "/v1/embeddings"
CAT = wire.DATA / "images" / "chelsea.png"
EMOJI = sorted((wire.DATA / "images" / "emoji").glob("*.png"))[:6]
FILM = wire.DATA / "video" / "bottle-detection.mp4"
LARGE = wire.DATA / "video" / "car-detection.mp4"  # curl asks first before it sends that much
LOCAL = {"OMNIVEC_HOST": "127.0.0.1", "OMNIVEC_LOG_FORMAT": "text"}


def serve(profile: str, **variables: str) -> Any:
    return live.serve("fake:image=on", env={"OMNIVEC_PROFILE": profile, **LOCAL, **variables})


@pytest.fixture(scope="module", name="openai")
def openai_server() -> Iterator[live.Server]:
    with serve("openai") as server:
        yield server


@pytest.fixture(scope="module", name="intel")
def intel_server() -> Iterator[live.Server]:
    with serve("intel") as server:
        yield server


@pytest.fixture(scope="module", name="synesis")
def synesis_server() -> Iterator[live.Server]:
    with serve("synesis") as server:
        yield server


def curl(url: str, *arguments: str) -> Any:
    done = subprocess.run(
        ["curl", "--silent", "--show-error", url, *arguments],
        env=live.environment({}),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout)


def packed(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def close(expected: Any) -> Any:
    return pytest.approx(expected, abs=1e-6)


# ── the same as in base64 ────────────────────────────────────────────────────────────────


def test_openai_by_curl(openai: live.Server) -> None:
    found = curl(
        openai.url + EMBED, "-F", f"file=@{CAT}", "-F", "model=fake", "-F", "text=a cat",
        "-F", f"another[]=@{EMOJI[0]}", "-F", "dimensions=16",
    )  # fmt: skip
    inputs = [{"image": packed(CAT)}, "a cat", {"image": packed(EMOJI[0])}]
    known = wire.request(openai.url, EMBED, {"input": inputs, "dimensions": 16}).json
    assert found.keys() == known.keys()
    assert [one["index"] for one in found["data"]] == [0, 1, 2]
    for one, other in zip(found["data"], known["data"], strict=True):
        assert one["embedding"] == close(other["embedding"])


def test_openai_with_a_video_and_in_base64(openai: live.Server) -> None:
    found = curl(openai.url + EMBED, "-F", f"file=@{LARGE}", "-F", "encoding_format=base64")
    assert len(base64.b64decode(found["data"][0]["embedding"])) == 4 * 32


def test_intel_by_curl(intel: live.Server) -> None:
    def known(given: dict[str, Any]) -> Any:
        return wire.request(intel.url, "/embeddings", {"input": given}, timeout=120).json

    for path in ("/embeddings", EMBED):
        single = curl(intel.url + path, "-F", f"file=@{CAT}", "-F", "model=fake")
        expected = known({"type": "image_base64", "image_base64": packed(CAT)})
        assert single == {"embedding": close(expected["embedding"])}
    several = curl(intel.url + "/embeddings", *(w for e in EMOJI for w in ("-F", f"file=@{e}")))
    expected = known({"type": "image_base64", "image_base64": [packed(e) for e in EMOJI]})
    assert several["embedding"] == [close(row) for row in expected["embedding"]]
    config = ("-F", "num_frames=8", "-F", "startOffsetSec=5", "-F", "clip_duration=5")
    film = curl(intel.url + "/embeddings", "-F", f"file=@{FILM}", *config)
    segment = {"num_frames": 8, "startOffsetSec": 5, "clip_duration": 5}
    expected = known(
        {"type": "video_base64", "video_base64": packed(FILM), "segment_config": segment}
    )
    assert len(expected["embedding"]) == 8
    assert film["embedding"] == [close(row) for row in expected["embedding"]]


def test_synesis_by_curl(synesis: live.Server) -> None:
    found = curl(
        synesis.url + EMBED, "-F", "text=product photo", "-F", f"image=@{EMOJI[0]}",
        "-F", f"image=@{EMOJI[1]}", "-F", "normalize=true",
    )  # fmt: skip
    uris = [f"data:image/png;base64,{packed(one)}" for one in EMOJI[:2]]
    inputs = [{"text": "product photo", "image": uris[0]}, {"image": uris[1]}]
    known = wire.request(synesis.url, EMBED, {"inputs": inputs}).json
    assert found["usage"]["input_count"] == 2
    for one, other in zip(found["embeddings"], known["embeddings"], strict=True):
        assert one["embedding"] == close(other["embedding"])


def test_synesis_is_told_by_its_field_under_another_profile(openai: live.Server) -> None:
    found = curl(openai.url + EMBED, "-F", f"inputs=@{CAT}")
    assert found.keys() == {"embeddings", "usage"}


def test_many_at_once_get_their_own(openai: live.Server) -> None:
    def upload(path: Path) -> Any:
        with path.open("rb") as file, requests.Session() as session:
            session.trust_env = False
            replies = [
                session.post(openai.url + EMBED, files={"file": file}, data={"user": "u"})
                for _ in range(3)
                if file.seek(0) == 0
            ]
        assert {reply.status_code for reply in replies} == {200}
        return [reply.json()["data"][0]["embedding"] for reply in replies]

    alone = [upload(path) for path in EMOJI]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(upload, EMOJI * 4))
    assert together == [[close(row) for row in rows] for rows in alone * 4]


# ── refusals ─────────────────────────────────────────────────────────────────────────────

FORM = {"content-type": "multipart/form-data; boundary=x"}
PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="../../%s"\r\n\r\n%s\r\n'
BAD = [
    (PART % (b"a.png", b"no picture") + b"--x--", 400),
    (PART % (b"a.txt", b"#EXTM3U\nfile:///etc/passwd") + b"--x--", 400),
    (PART % (b"a.svg", b"<svg/>") + b"--x--", 400),
    (PART % (b"a.png", b""), 400),
    (b"", 400),
    (b"--x\r\n" + b"y: z\r\n" * 100_000, 400),
    (PART % (b"a", b"") * 100_000 + b"--x--", 413),
    (b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nfake\r\n--x--', 400),
]


@pytest.mark.parametrize("number", range(len(BAD)))
@pytest.mark.parametrize("name", ["openai", "intel", "synesis"])
def test_what_cannot_be_read_is_told_in_the_dialects_words(
    request: pytest.FixtureRequest, name: str, number: int
) -> None:
    server = request.getfixturevalue(name)
    body, status = BAD[number]
    reply = wire.request(server.url, EMBED, body, headers=FORM, method="POST")
    expected = status if name == "openai" or status == 413 else 422
    assert (reply.status, list(reply.json)) == (
        expected,
        ["error"] if name == "openai" else ["detail"],
    )
    assert not re.search(r"\.\./|passwd|data:upload", reply.body.decode())


def test_a_path_without_forms_says_what_it_reads(openai: live.Server) -> None:
    reply = wire.request(openai.url, "/v1/rerank", PART % (b"a", b"b") + b"--x--", headers=FORM)
    assert reply.status == 415
    assert "send JSON here" in reply.body.decode()


def test_a_page_of_another_site_may_not_post_a_form(openai: live.Server) -> None:
    headers = {**FORM, "origin": "https://elsewhere.example"}
    body = PART % (b"a.png", CAT.read_bytes()) + b"--x--"
    assert wire.request(openai.url, EMBED, body, headers=headers).status == 403


def test_a_form_over_the_limit_is_refused(openai: live.Server) -> None:
    body = PART % (b"a.png", b"\0" * (33 * 2**20)) + b"--x--"
    assert wire.request(openai.url, EMBED, body, headers=FORM).status == 413


def test_nothing_is_left_of_large_forms(openai: live.Server) -> None:
    def resident() -> int:
        status = Path(f"/proc/{openai.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024

    def files() -> set[str]:
        return {str(one) for one in Path(f"/proc/{openai.process.pid}/cwd").resolve().iterdir()}

    picture = CAT.read_bytes()
    body = PART % (b"a.png", picture + os.urandom(15 * 2**20)) + b"--x--"
    before = files()
    levels = []
    for _ in range(8):
        assert wire.request(openai.url, EMBED, body, headers=FORM).status == 200
        levels.append(resident())
    assert levels[-1] - levels[3] < 40 * 2**20
    assert files() == before
