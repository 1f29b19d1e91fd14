"""Media from strangers, each with its clear answer, while a canary is answered throughout.

One server may fetch from this machine, and so from a host that plays every part; another has
its default settings. Afterwards their memory is where it was, and no process is left.
"""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import live
import wire
from children import children, is_over
from pictures import MASQUERADES, SIZES, animation, bmp, exif, photo, png, saved
from playing import BAD, DENIED, GOOD, ODD, PNG, SLOW, Host, host

MODEL = "fake:image=on,dims=8"
REFUSED = {400, 404, 413, 422}
CANARY = {"input": "The canary sings while the others misbehave."}
KEPT = 30_000_000
"""Bytes that a server may keep, of its allocator's."""


class Canary:
    def __init__(self, url: str) -> None:
        self.url = url
        self.right = self.ask()
        self.asked = 0
        self.wrong: list[Any] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sing)
        self._thread.start()

    def ask(self) -> Any:
        answer = wire.request(self.url, "/v1/embeddings", CANARY)
        return answer.status, answer.json["data"][0]["embedding"]

    def _sing(self) -> None:
        while not self._stop.is_set():
            self.asked += 1
            try:
                if (found := self.ask()) != self.right:
                    self.wrong.append(found)
            except (OSError, KeyError, ValueError) as error:
                self.wrong.append(error)
            self._stop.wait(0.05)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)


@pytest.fixture(scope="module")
def playing() -> Iterator[Host]:
    with host() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A media root, with everything in it that is not to be read."""
    outside = tmp_path_factory.mktemp("media")
    root = outside / "root"
    (root / "inner").mkdir(parents=True)
    (root / "good.png").write_bytes(PNG)
    (root / "page.png").write_bytes(MASQUERADES["a page"])
    (outside / "secret.png").write_bytes(PNG)
    (root / "link.png").symlink_to(outside / "secret.png")
    (root / "link").symlink_to(outside)
    os.mkfifo(root / "fifo.png")
    with (root / "sparse.png").open("wb") as file:
        file.truncate(10 * 2**30)
    return root


def guarded(*args: str) -> Iterator[live.Server]:
    with live.serve(MODEL, *args) as running:
        embed(running, {"image": data_uri(PNG)})
        embed(running, {"image": data_uri(saved(photo(6000, 5000), "JPEG"))})
        before = memory(running)
        canary = Canary(running.url)
        yield running
        canary.stop()
        assert canary.asked > 10
        assert canary.wrong == []
        printed = running.printed(10_000_000)
        assert "Traceback" not in printed
        assert "Exception" not in printed
        end = time.monotonic() + 30
        while memory(running) > before + KEPT and time.monotonic() < end:
            time.sleep(0.2)
        assert memory(running) <= before + KEPT
        decoding = children(running.process.pid)
        assert 0 < len(decoding) <= 6
    assert all(map(is_over, decoding))


@pytest.fixture(scope="module")
def server(folder: Path, playing: Host) -> Iterator[live.Server]:
    yield from guarded("--media-allow", "127.0.0.1", "--media-root", str(folder))


@pytest.fixture(scope="module")
def strict() -> Iterator[live.Server]:
    yield from guarded()


def memory(server: live.Server) -> int:
    """Resident bytes of the server's own process."""
    status = Path("/proc", str(server.process.pid), "status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line) * 1024


def data_uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def embed(server: live.Server, *contents: dict[str, str]) -> wire.Answer:
    return wire.request(server.url, "/v1/embeddings", {"inputs": list(contents)}, timeout=120)


def refused(server: live.Server, image: str) -> str:
    """What the client is told, of which nothing may be the machine's or the network's."""
    answer = embed(server, {"text": "a"}, {"image": image})
    assert answer.status in REFUSED, answer.body[:300]
    (problem,) = answer.json["detail"]
    assert problem["loc"] == ["body", "inputs", 1]
    told = str(problem["msg"])
    for secret in ("127.0.0.1", "/proc", "/etc", "/tmp", "Error", "0x", "http://"):
        assert secret not in told
    return told


# ── pictures ─────────────────────────────────────────────────────────────────────────────

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
CUT = {
    f"{kind} {eighth}/8": saved(photo(200, 150), kind)[: 30_000 * eighth // 8]
    for kind in FORMATS
    for eighth in range(1, 8)
    if 30_000 * eighth // 8 < len(saved(photo(200, 150), kind)) * 7 // 8
} | {
    f"{kind} cut in half": saved(photo(200, 150), kind)[: len(saved(photo(200, 150), kind)) // 2]
    for kind in FORMATS
}
LARGE = {f"{build.__name__} of {size}": build(*size) for size in SIZES for build in (png, bmp)}
NONE = {name: data for name, data in {**MASQUERADES, **CUT, **LARGE}.items() if data}


@pytest.mark.parametrize("name", sorted(NONE))
def test_no_picture(server: live.Server, name: str) -> None:
    assert "no picture" in refused(server, data_uri(NONE[name]))


@pytest.mark.parametrize(
    "image",
    [
        "data:",
        "data:,",
        "data:image/png;base64,",
        "data:image/png;base64,!!!",
        "data:text/html;base64,PGh0bWw+",
        "data:image/png," + "A" * 100,
        "data:" + "image/png;" * 100_000 + "base64,AAAA",
        "data:image/png;base64," + "A" * 5_000_001,
    ],
    ids=lambda image: image[:32],
)
def test_no_data_uri(server: live.Server, image: str) -> None:
    assert "data URI" in refused(server, image)


def test_many_large_pictures_are_too_large_together(server: live.Server) -> None:
    large = [saved(Image.new("1", (8000, 6000), i % 2), "PNG") + b"%d" % i for i in range(10)]
    answer = embed(server, *({"image": data_uri(one)} for one in large))
    assert answer.status == 413
    alike = embed(server, *[{"image": data_uri(large[0])}] * 10)
    assert alike.status == 200
    assert len(alike.json["embeddings"]) == 10


def test_too_many_pictures(server: live.Server) -> None:
    answer = embed(server, *({"image": f"data:,{i}"} for i in range(513)))
    assert answer.status == 413


@pytest.mark.parametrize(
    "data",
    [
        saved(photo(1, 1), "PNG"),
        saved(photo(1, 3), "PNG"),
        saved(photo(2, 2), "JPEG"),
        animation("GIF", 200),
        animation("WEBP", 50),
        saved(photo().convert("CMYK"), "JPEG"),
        saved(photo().convert("P"), "PNG", transparency=0),
        saved(photo(), "JPEG", exif=exif(6)),
        saved(photo(), "JPEG", exif=b"Exif\0\0" + b"\xff" * 60_000),
        saved(photo(), "PNG", icc_profile=b"none"),
        saved(photo(), "JPEG") + b"<html><script>alert(1)</script>",
        PNG + b"PK\x03\x04" + b"\0" * 1000,
    ],
    ids=range(12),
)
def test_odd_pictures_that_are_pictures(server: live.Server, data: bytes) -> None:
    answer = embed(server, {"image": data_uri(data, "image/jpeg")})
    assert answer.status == 200, answer.body


@pytest.mark.parametrize("name", sorted(NONE.keys() - CUT.keys()))
def test_no_video(server: live.Server, name: str) -> None:
    given = {
        "type": "video_base64",
        "video_base64": base64.b64encode(NONE[name]).decode(),
        "segment_config": {},
    }
    body = {"model": "fake", "input": given, "encoding_format": "float"}
    answer = wire.request(server.url, "/v1/embeddings", body)
    assert answer.status in REFUSED, answer.body
    assert b"Error" not in answer.body
    assert b"/etc" not in answer.body


# ── URLs ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", sorted(BAD.keys() - {"/says-less", "/page", "/empty", "/refresh"}))
def test_hosts_that_misbehave(server: live.Server, playing: Host, path: str) -> None:
    assert "could not be fetched" in refused(server, playing.url + path)


@pytest.mark.parametrize("path", ["/says-less", "/page", "/empty", "/refresh"])
def test_hosts_that_have_no_picture(server: live.Server, playing: Host, path: str) -> None:
    assert "no picture" in refused(server, playing.url + path)


def test_hosts_that_never_end_are_left(server: live.Server, playing: Host) -> None:
    urls = [playing.url + path for path in SLOW] * 4
    with ThreadPoolExecutor(len(urls)) as threads:
        told = set(threads.map(lambda url: refused(server, url), urls))
    assert len(told) == 1


@pytest.mark.parametrize("path", sorted(GOOD))
def test_the_same_picture_by_url_base64_and_path(
    server: live.Server, playing: Host, folder: Path, path: str
) -> None:
    images = [playing.url + path, data_uri(PNG), "good.png", str(folder / "good.png")]
    answer = embed(server, *({"image": image} for image in images))
    assert answer.status == 200, answer.body
    rows = [row["embedding"] for row in answer.json["embeddings"]]
    assert rows == [rows[0]] * 4


@pytest.mark.parametrize("url", ODD, ids=lambda url: ascii(url[:40]))
def test_urls_in_odd_spellings(strict: live.Server, url: str) -> None:
    if url:
        refused(strict, url)
    else:
        assert embed(strict, {"text": "a"}, {"image": url}).status in REFUSED


@pytest.mark.parametrize("name", DENIED)
def test_what_is_not_public(strict: live.Server, playing: Host, name: str) -> None:
    playing.hits.clear()
    for port in (playing.port, 80):
        assert "could not be fetched" in refused(strict, f"http://{name}:{port}/good.png")
    assert playing.hits == []


def test_a_server_does_not_ask_itself(server: live.Server) -> None:
    assert "could not be fetched" in refused(server, server.url + "/health")


def test_documents_and_queries_are_read_as_carefully(server: live.Server, playing: Host) -> None:
    bad = {"image": playing.url + "/404"}
    for body, place in (
        ({"query": bad, "documents": [{"text": "a"}]}, ["query"]),
        ({"query": {"text": "a"}, "documents": [{"text": "a"}, bad]}, ["documents", 1]),
    ):
        answer = wire.request(server.url, "/v1/rerank", body)
        assert answer.status in REFUSED
        assert answer.json["detail"][0]["loc"] == ["body", *place]


# ── files ────────────────────────────────────────────────────────────────────────────────

PATHS = [
    "missing.png",
    "page.png",
    "link.png",
    "link/secret.png",
    "fifo.png",
    "sparse.png",
    "inner",
    ".",
    "../secret.png",
    "{root}/../secret.png",
    "{root}/link/secret.png",
    "{root}",
    "/etc/passwd",
    "/proc/self/environ",
    "/proc/self/fd/3",
    "/dev/zero",
    "/dev/stdin",
    "good.png\0.png",
    "~/good.png",
    "x" * 10_000,
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ascii(path[:24]))
def test_one_answer_for_every_path(server: live.Server, folder: Path, path: str) -> None:
    told = refused(server, path.format(root=folder))
    assert told == refused(server, "missing.png")
    assert str(folder) not in told


def test_without_a_root_there_are_no_files(strict: live.Server, folder: Path) -> None:
    assert "--media-root" in refused(strict, str(folder / "good.png"))


# ── processes ────────────────────────────────────────────────────────────────────────────


def test_processes_that_are_killed_are_replaced(server: live.Server) -> None:
    for _ in range(3):
        for pid in children(server.process.pid):
            os.kill(pid, 9)
            while not is_over(pid):
                time.sleep(0.01)
        for _ in range(8):
            answer = embed(server, {"image": data_uri(PNG)})
            assert answer.status == 200, answer.body


def test_a_caller_that_leaves_is_left(server: live.Server, playing: Host) -> None:
    body = b'{"inputs":[{"image":"%s"}]}' % (playing.url + "/silent").encode()
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    began = playing.open
    sent = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    assert wire.raw(server.url, sent, timeout=1) == b""
    end = time.monotonic() + 8  # less than a fetch may take
    while playing.open > began and time.monotonic() < end:
        time.sleep(0.1)
    assert playing.open <= began
